"""One stream through the two halves: sound and frames in, results out. No threads, no hidden state.

Shapes: T samples of a window, K classes, h x w the map grid. Two grids meet here: frames come at their own times, audio
windows end at multiples of the hop. A window is computed once, when the first frame needs it.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from avgn.runtime.arrays import Floats, Pixels
from avgn.runtime.audio import loudness_db
from avgn.runtime.clock import AudioClock
from avgn.runtime.decision import DecisionConfig, DecisionState, Rules, step
from avgn.runtime.engines.base import Engine
from avgn.runtime.image import resize
from avgn.runtime.nvtx import stage
from avgn.runtime.patches import PatchMemory, Window, hear
from avgn.runtime.result import Result

Mode = Literal["live", "file"]

log = logging.getLogger("avgn.runtime")

# a frame time within a millionth of a hop of a window's end counts as that end
SLACK = 1e-6
CLIPPED_SHARE = 0.001


@dataclass(frozen=True, kw_only=True, eq=False)
class Pending:
    """A frame, already resized, that waits for its audio window or for its batch."""

    time: float
    number: int
    window: int
    image: Pixels
    dropped: int
    resize_ms: float


@dataclass(frozen=True, kw_only=True, eq=False)
class AudioWindow:
    """The audio half's answer for window `index`: sources [K, D], audio_prob [K]."""

    index: int
    sources: Floats
    audio_prob: Floats
    loudness_db: float
    ms: float

    @classmethod
    def of(cls, index: int, waveform: Floats, sources: Floats, audio_prob: Floats, ms: float) -> AudioWindow:
        return cls(index=index, sources=sources, audio_prob=audio_prob, loudness_db=loudness_db(waveform), ms=ms)


@dataclass(kw_only=True)
class State:
    """Everything that a stream remembers."""

    clock: AudioClock
    decision: DecisionState
    pending: deque[Pending] = field(default_factory=deque)
    patches: PatchMemory = field(default_factory=PatchMemory)
    window: AudioWindow | None = None
    frames: int = 0
    windows: int = 0
    warned: bool = False
    flushed: bool = False


class StreamLocalizer:
    """Localizes one stream with a shared engine.

    In mode "live" a frame at time t uses the last window that ends at or before t; in mode "file" the one whose
    centre is nearest (ties: the earlier one). A frame waits until the sound up to its window's end has been pushed, so
    the results do not depend on how the input is cut; with `max_wait` (seconds of frame time) it waits no
    longer than that and then takes the sound that is there.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        decision: DecisionConfig | None = None,
        mode: Mode = "live",
        batch: int = 1,
        max_wait: float | None = None,
    ) -> None:
        """`decision`: default the bundle's own; `batch`: frames that go through the image half together."""
        if mode not in ("live", "file"):
            raise ValueError(f'mode must be "live" or "file", got {mode!r}')
        if batch < 1:
            raise ValueError(f"batch must be at least 1, got {batch}")
        self.engine = engine
        self.info = engine.info
        self.rules = Rules.for_bundle(engine.info, decision)
        self.mode = mode
        self.batch = batch
        self.max_wait = max_wait
        self.reset()

    def reset(self) -> None:
        """Start a new stream."""
        self.state = State(
            clock=AudioClock(self.info.sample_rate), decision=DecisionState.start(len(self.info.classes))
        )

    @property
    def lookahead(self) -> float:
        """Seconds of sound after a frame that must be pushed before its result can come."""
        if self.mode == "live":
            return 0.05
        return (self.info.window_samples + self.info.hop_samples) / 2 / self.info.sample_rate + 0.05

    def window_of(self, time: float) -> int:
        """Return the index of the audio window that a frame at `time` seconds uses."""
        samples, hop = time * self.info.sample_rate, self.info.hop_samples
        if self.mode == "live":
            return math.floor(samples / hop + SLACK)
        return math.ceil((samples + self.info.window_samples / 2) / hop - 0.5 - SLACK)

    def push_audio(
        self,
        samples: npt.NDArray[Any],
        rate: int,
        time: float,
        *,
        lock: AbstractContextManager[object] | None = None,
        reopen: bool = False,
    ) -> list[Result]:
        """Take sound [T] or [T, C] at `rate` Hz whose first sample is at `time` seconds; returns what it completes.

        Non-finite samples count as 0 and are reported once in the log. `lock` is entered when the sound was resampled
        and is to be added (where other threads read the stream); `reopen` takes sound after its end, too.
        """
        self._refuse_flushed()
        clock = self.state.clock
        if clock.closed and not reopen:
            raise RuntimeError("the sound of this stream was ended: call reset() before pushing more")
        pieces = clock.prepare(samples, rate, time)
        if clock.non_finite and not self.state.warned:
            self.state.warned = True
            log.warning("the sound holds samples that are not finite (from %.2f s on): they count as silence", time)
        with lock or nullcontext():
            clock.closed = False
            clock.add(pieces)
            return self._advance(False)

    def push_frame(self, rgb: Pixels, time: float, *, dropped: int = 0) -> list[Result]:
        """Take a frame [H, W, 3] uint8 at `time` seconds; returns the results that are complete, in frame order.

        `dropped`: how many frames were lost since the one before.
        """
        self._refuse_flushed()
        self.state.pending.append(self.take_frame(rgb, time, dropped=dropped))
        return self._advance(False)

    def take_frame(self, rgb: Pixels, time: float, *, dropped: int = 0) -> Pending:
        """Number and resize a frame without queueing it (for `MultiStream`, which has queues of its own)."""
        if not math.isfinite(time):
            raise ValueError(f"a frame's time must be finite seconds, got {time}")
        with stage("resize") as timer:
            image = resize(rgb, self.info.image_size)
        number = self.state.frames
        self.state.frames += 1
        return Pending(
            time=time, number=number, window=self.window_of(time), image=image, dropped=dropped, resize_ms=timer.ms
        )

    def end_audio(self) -> list[Result]:
        """Say that no more sound comes (silence from here on), while frames still may."""
        if not self.state.clock.closed:
            self.state.clock.close()
        return self._advance(False)

    def flush(self) -> list[Result]:
        """End the stream: the results of all frames that still wait."""
        results = self.end_audio()
        self.state.flushed = True
        return results + self._advance(True)

    def warnings(self) -> list[str]:
        """Sentences about the sound so far that the user should know."""
        clock = self.state.clock
        found = []
        if clock.non_finite:
            found.append(f"{clock.non_finite} audio samples were not finite and counted as silence")
        if clock.clipped > CLIPPED_SHARE * max(1, clock.samples_in):
            share = 100 * clock.clipped / clock.samples_in
            found.append(f"the sound is clipped ({share:.1f} % of its samples at full scale): results may suffer")
        return found

    def _refuse_flushed(self) -> None:
        if self.state.flushed:
            raise RuntimeError("this stream was flushed: call reset() before pushing more")

    def _advance(self, final: bool) -> list[Result]:
        results: list[Result] = []
        pending = self.state.pending
        while pending:
            ready = 0
            while ready < min(self.batch, len(pending)) and self._is_ready(pending[ready]):
                ready += 1
            if ready == 0 or (ready < self.batch and not final):
                break
            results += self._run([pending.popleft() for _ in range(ready)])
        return results

    def _is_ready(self, frame: Pending) -> bool:
        clock = self.state.clock
        if clock.closed or frame.window <= 0 or frame.window * self.info.hop_samples <= clock.end:
            return True
        return self.max_wait is not None and self.state.pending[-1].time - frame.time >= self.max_wait

    def _run(self, frames: list[Pending]) -> list[Result]:
        windows: list[AudioWindow] = []
        audio_ms: list[float] = []
        for frame in frames:
            known = self.state.window is not None and self.state.window.index == frame.window
            window = self.state.window if known else None
            if window is None:
                window = self.state.window = self._hear(frame.window)
            windows.append(window)
            audio_ms.append(0.0 if known else window.ms)
        with stage("image") as timer:
            seen = self.engine.run_image(
                np.stack([frame.image for frame in frames]), np.stack([window.sources for window in windows])
            )
        return [
            self.decide(frame, window, seen["maps"][i], seen["visual_prob"][i], audio_ms[i], timer.ms / len(frames))
            for i, (frame, window) in enumerate(zip(frames, windows, strict=True))
        ]

    @property
    def complete(self) -> int:
        """The last window up to whose end the sound has come."""
        return math.floor(self.state.clock.end / self.info.hop_samples)

    def cut_window(self, index: int) -> Window:
        """Return an audio window; sound long before it is let go of."""
        length = self.info.window_samples
        start = index * self.info.hop_samples - length
        # frames come in time order, but a timestamp may step back a little
        clock = self.state.clock
        clock.forget(start - length)
        complete = index if clock.closed else self.complete
        return Window(index=index, waveform=clock.window(start, length), complete=complete, memory=self.state.patches)

    def _hear(self, index: int) -> AudioWindow:
        window = self.cut_window(index)
        with stage("audio") as timer:
            heard = hear(self.engine, [window])
        self.state.windows += 1
        return AudioWindow.of(index, window.waveform, heard["sources"][0], heard["audio_prob"][0], timer.ms)

    def decide(
        self, frame: Pending, window: AudioWindow, maps: Floats, visual_prob: Floats, audio_ms: float, image_ms: float
    ) -> Result:
        """Return the result of a frame from what the halves gave for it; frames must come in order."""
        with stage("decide") as timer:
            self.state.decision, decision = step(
                self.rules,
                self.state.decision,
                time=frame.time,
                audio_prob=window.audio_prob,
                visual_prob=visual_prob,
                maps=maps,
                loudness_db=window.loudness_db,
            )
        return Result(
            time=frame.time,
            frame=frame.number,
            state=decision.state,
            sources=decision.sources,
            audio_prob=window.audio_prob,
            visual_prob=visual_prob,
            maps=maps,
            loudness_db=window.loudness_db,
            window=window.index,
            ms={"resize": frame.resize_ms, "audio": audio_ms, "image": image_ms, "decide": timer.ms},
            dropped=frame.dropped,
        )
