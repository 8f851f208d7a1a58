"""One engine that turns items into result rows; every kind of worker holds one.

T samples, K classes, h x w the map grid.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from avgn.runtime.arrays import Floats, Pixels
from avgn.runtime.audio import loudness_db
from avgn.runtime.collections.job import Entry, Job, Outcome
from avgn.runtime.decision import DecisionConfig, DecisionState, Rules, step
from avgn.runtime.errors import InputError, MissingExtraError
from avgn.runtime.files import write_whole
from avgn.runtime.localizer import Localizer
from avgn.runtime.media import open_media
from avgn.runtime.reading import read_clip, read_frame
from avgn.runtime.result import Result
from avgn.runtime.sinks.events import Event, EventFollower

NOT_FINITE = "the model gave NaN or infinity"
LONGEST_NAME = 200


@dataclass(frozen=True, kw_only=True, eq=False)
class Still:
    """An item's frame [H, W, 3] and sound [T] as the halves take them."""

    entry: Entry
    image: Pixels
    waveform: Floats


Piece = Still | Entry | Outcome


class Runner:
    """Localizes chunks of items; what can't be read becomes an outcome with a reason, never an error."""

    def __init__(self, job: Job) -> None:
        """Load the engine. Raises InputError or FailureError as `Localizer.load` does."""
        self.job = job
        self.localizer = Localizer.load(job.bundle, job.backend, job.precision, threads=job.threads)
        info = self.localizer.engine.info
        config = DecisionConfig.for_bundle(info)
        # a still has no time in which a state could last
        self.rules = Rules.for_bundle(info, replace(config, min_on=0.0, unknown_seconds=0.0, off_screen_seconds=0.0))

    def __call__(self, chunk: list[Entry]) -> list[Outcome]:
        """Return the outcome of every entry."""
        return self.localize(self.read(chunk))

    def read(self, chunk: list[Entry]) -> list[Piece]:
        """Return every entry's files in memory (videos are left to `localize`), or why they can't be read."""
        return [self._read(entry) for entry in chunk]

    def localize(self, pieces: list[Piece]) -> list[Outcome]:
        """Return the outcomes of what `read` gave."""
        outcomes = [piece for piece in pieces if isinstance(piece, Outcome)]
        outcomes += [self._localize_video(piece) for piece in pieces if isinstance(piece, Entry)]
        stills = [piece for piece in pieces if isinstance(piece, Still)]
        for first in range(0, len(stills), self.job.batch):
            outcomes += self._localize_stills(stills[first : first + self.job.batch])
        return outcomes

    def _read(self, entry: Entry) -> Piece:
        if entry.frame is None or entry.audio is None:
            return entry
        info = self.localizer.engine.info
        try:
            return Still(
                entry=entry,
                image=read_frame(Path(entry.frame), info.image_size),
                waveform=read_clip(Path(entry.audio), info.sample_rate, info.window_samples),
            )
        except MissingExtraError:
            raise
        except InputError as error:
            return Outcome(id=entry.id, reason=str(error))

    def _localize_stills(self, stills: list[Still]) -> list[Outcome]:
        engine = self.localizer.engine
        heard = engine.run_audio(np.stack([still.waveform for still in stills]))
        seen = engine.run_image(np.stack([still.image for still in stills]), heard["sources"])
        return [
            self._decide(still, heard["audio_prob"][n], seen["visual_prob"][n], seen["maps"][n])
            for n, still in enumerate(stills)
        ]

    def _decide(self, still: Still, audio_prob: Floats, visual_prob: Floats, maps: Floats) -> Outcome:
        name = still.entry.id
        if not all(np.isfinite(values).all() for values in (audio_prob, visual_prob, maps)):
            return Outcome(id=name, reason=NOT_FINITE)
        loudness = loudness_db(still.waveform)
        _, decision = step(
            self.rules,
            DecisionState.start(len(self.rules.classes)),
            time=0.0,
            audio_prob=audio_prob,
            visual_prob=visual_prob,
            maps=maps,
            loudness_db=loudness,
        )
        result = Result(
            time=0.0,
            frame=0,
            state=decision.state,
            sources=decision.sources,
            audio_prob=audio_prob,
            visual_prob=visual_prob,
            maps=maps,
            loudness_db=loudness,
            window=0,
            ms={},
        ).to_json()
        row = {"id": name, "state": result["state"], "sources": result["sources"]}
        if self.job.maps is not None:
            row["maps"] = write_maps(Path(self.job.maps), name, maps)
        return Outcome(id=name, row=row)

    def _localize_video(self, entry: Entry) -> Outcome:
        assert entry.video_file is not None
        follower, events = EventFollower(), list[Event]()
        frames, end = 0, 0.0
        try:
            media = open_media(entry.video_file, audio_track=self.job.audio_track)
            for result in self.localizer.stream(media, batch=self.job.batch):
                events += follower.add(result)
                frames, end = frames + 1, max(end, result.time)
        except MissingExtraError:
            raise
        except InputError as error:
            return Outcome(id=entry.id, reason=str(error))
        events += follower.finish()
        row = {
            "id": entry.id,
            "frames": frames,
            "seconds": round(end + 1 / media.info.fps, 3),
            "corrupt": media.corrupt_frames + media.corrupt_audio,
            "events": [_event_to_json(event) for event in events],
        }
        return Outcome(id=entry.id, row=row)


def write_maps(folder: Path, name: str, maps: Floats) -> str:
    """Write maps [K, h, w] as float16 to an .npz named after the item; returns the file's name."""
    safe = quote(name, safe=" ")
    if len(safe) > LONGEST_NAME:
        safe = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()
    data = io.BytesIO()
    np.savez_compressed(data, maps=maps.astype(np.float16))
    return write_whole(folder / f"{safe}.npz", data.getvalue(), "maps").name


def _event_to_json(event: Event) -> dict[str, Any]:
    return {
        "label": event.label,
        "start": round(event.start, 3),
        "end": round(event.end, 3),
        "on_screen": round(event.share, 3),
        "mean": None if event.place is None else [round(value, 4) for value in event.place],
        "frames": event.frames,
    }
