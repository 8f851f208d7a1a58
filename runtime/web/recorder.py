"""What a visitor sends while holding the button: all of the sound, of the pictures a few, spread over the time."""

from __future__ import annotations

import time as clock

import numpy as np
import numpy.typing as npt

from avgn.runtime.web import wire
from avgn.runtime.web.lessons import LessonError, Recording

# seconds of sound that an example needs, and that are kept of one
SHORTEST, LONGEST = 0.5, 10.0
# pictures that are kept while more may come, and those of an example, the last one among them
KEPT, PICTURES = 12, 3


class Recorder:
    """One example's. Everything runs in the event loop."""

    def __init__(self) -> None:
        self._began = clock.monotonic()
        self._rate = 0
        self._pieces: list[npt.NDArray[np.int16]] = []
        self._seconds = 0.0
        self._kept: list[bytes] = []
        self._last: bytes | None = None
        # of the pictures that come one in so many is kept
        self._step, self._seen = 1, 0

    def hear(self, samples: wire.Samples) -> None:
        """Add sound; what is more than an example holds is left out."""
        if self._rate not in (0, samples.rate) or self._seconds >= LONGEST:
            return
        self._rate = samples.rate
        self._pieces.append(samples.samples)
        self._seconds += len(samples.samples) / samples.rate

    def see(self, frame: wire.Frame) -> None:
        """Add a picture; of many as many are kept, evenly spread."""
        if self._last is not None and self._seen % self._step == 0:
            self._kept.append(self._last)
            if len(self._kept) > KEPT:
                self._kept = self._kept[::2]
                self._step *= 2
        self._seen += 1
        self._last = frame.jpeg

    def finish(self) -> tuple[npt.NDArray[np.int16], int, list[bytes]]:
        """Return the sound [T], its rate, and JPEGs of which the last one is the last that came.

        Raises LessonError for too little.
        """
        if not self._rate and clock.monotonic() - self._began >= 2 * SHORTEST:
            raise LessonError("no-sound")
        if self._seconds < SHORTEST:
            raise LessonError("short", seconds=SHORTEST)
        if self._last is None:
            raise LessonError("no-picture")
        chosen = np.linspace(0, len(self._kept) - 1, min(len(self._kept), PICTURES - 1)).round().astype(int)
        samples = np.concatenate(self._pieces)[: round(LONGEST * self._rate)]
        return samples, self._rate, [*(self._kept[at] for at in chosen.tolist()), self._last]


def decode(samples: npt.NDArray[np.int16], rate: int, jpegs: list[bytes]) -> Recording:
    """Decode what was recorded; raises LessonError for a picture that can't be."""
    try:
        pictures = tuple(wire.decode_jpeg(jpeg) for jpeg in jpegs)
    except wire.WireError:
        raise LessonError("no-picture") from None
    return Recording(samples=samples, rate=rate, pictures=pictures)
