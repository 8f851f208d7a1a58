"""Makes a card of each of a few items: its picture with the truth, its sound as a spectrogram, and words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from avgn.inspection.spectrogram import RATE, draw_spectrogram
from avgn.inspection.truth import draw_item
from avgn.runtime.audio import resample
from avgn.runtime.clock import AudioClock
from avgn.runtime.errors import InputError
from avgn.runtime.manifest import Item, Manifest
from avgn.runtime.media import open_media
from avgn.runtime.reading import read_wav

CARD_HEIGHT = 240
SPECTROGRAM_WIDTH = 200
# seconds of a video's sound around its frame
SECONDS_AROUND = 3.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Card:
    """Holds what is shown of an item; `fault` says why a picture or a sound is missing."""

    item: Item
    frame: NDArray[np.uint8] | None
    spectrogram: NDArray[np.uint8] | None
    fault: str | None

    @property
    def words(self) -> list[str]:
        """Put an item into words: its name, and what is heard and seen."""
        lines = [self.item.id]
        for title, sounding, on_screen in (
            ("sounds", True, True),
            ("off-screen", True, False),
            ("silent", False, True),
        ):
            names = [s.label for s in self.item.sources if (s.sounding, s.on_screen) == (sounding, on_screen)]
            if names:
                lines.append(f"{title}: {', '.join(names)}")
        return lines if len(lines) > 1 else [*lines, "no source"]


def pick(items: Sequence[Item], count: int, seed: int) -> list[Item]:
    """Draw `count` items at random, in the manifest's order. Raises InputError for a count below 1 or a negative
    seed."""
    if count < 1 or seed < 0:
        raise InputError(f"--count must be from 1 and --seed from 0, got {count} and {seed}")
    if count >= len(items):
        return list(items)
    chosen = np.random.default_rng(seed).choice(len(items), count, replace=False)
    return [items[at] for at in sorted(chosen)]


def draw_cards(manifest: Manifest, items: Sequence[Item], progress: Callable[[int], None] | None = None) -> list[Card]:
    """Make the cards of items; an item that can't be read becomes a card that says so."""
    cards = []
    for done, item in enumerate(items, start=1):
        cards.append(_draw(item, manifest.classes))
        if progress is not None:
            progress(done)
    return cards


def _draw(item: Item, classes: Sequence[str]) -> Card:
    frame = spectrogram = None
    faults = []
    time = 0.0
    try:
        frame, time = draw_item(item, classes, CARD_HEIGHT)
    except (InputError, OSError) as error:
        faults.append(str(error))
    try:
        waveform = _waveform(item, time)
        if len(waveform):
            spectrogram = draw_spectrogram(waveform, (CARD_HEIGHT, SPECTROGRAM_WIDTH))
    except (InputError, OSError) as error:
        faults.append(str(error))
    return Card(item=item, frame=frame, spectrogram=spectrogram, fault="; ".join(dict.fromkeys(faults)) or None)


def _waveform(item: Item, time: float) -> NDArray[np.float32]:
    """Return the sum of the item's sounds, or the sound around `time` in its video: [T] at 22 050 Hz."""
    if not item.sounds and item.video_file is not None:
        clock = AudioClock(RATE)
        for block in open_media(item.video_file).audio():
            if block.time > time + SECONDS_AROUND:
                break
            clock.push(block.samples, block.rate, block.time)
            clock.forget(min(round((time - SECONDS_AROUND) * RATE), clock.end - round(2 * SECONDS_AROUND * RATE)))
        clock.close()
        length = min(round(SECONDS_AROUND * RATE), clock.end)
        start = min(max(0, round(time * RATE) - length // 2), clock.end - length)
        return clock.window(start, length)
    waveforms = [resample(*read_wav(path), RATE) for path in item.sounds]
    total = np.zeros(max(map(len, waveforms), default=0), np.float32)
    for each in waveforms:
        total[: len(each)] += each
    return total
