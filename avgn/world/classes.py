"""The classes of the world model: each one joins names of AudioSet with classes of ImageNet, or with faces."""

from __future__ import annotations

import csv
import difflib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

from avgn.encoders.packages import YAMNET_CLASSES
from avgn.runtime.errors import InputError

# what sounds like nothing in particular: a class that is heard less than the loudest of these is hardly heard
NOISES = (
    "Silence",
    "White noise",
    "Pink noise",
    "Hum",
    "Mains hum",
    "Static",
    "Noise",
    "Environmental noise",
    "Rain",
    "Rain on surface",
    "Raindrop",
    "Wind",
    "Wind noise (microphone)",
    "Throbbing",
    "Vibration",
    "Rumble",
    "Sine wave",
    "Waterfall",
    "Stream",
    "Distortion",
    "Inside, small room",
    "Waves, surf",
    "Ocean",
    "Steam",
    "Effects unit",
    "Electronic tuner",
    "Rustle",
    "Chirp tone",
)


@dataclass(frozen=True, kw_only=True)
class WorldClass:
    """Holds a class: AudioSet's names of its sounds, and ImageNet's indices of what it looks like (none: faces)."""

    label: str
    audioset: tuple[str, ...]
    imagenet: tuple[int, ...]

    @property
    def by_face(self) -> bool:
        """Whether it is a person, which ImageNet has no class for."""
        return not self.imagenet


def world_classes() -> dict[str, WorldClass]:
    """Return the whole table by label, in its order."""
    rows = json.loads((files("avgn.world") / "classes.json").read_text(encoding="utf-8"))
    return {
        row["label"]: WorldClass(
            label=row["label"], audioset=tuple(row["audioset"]), imagenet=tuple(row.get("imagenet", ()))
        )
        for row in rows
    }


def find_classes(labels: Sequence[str]) -> list[WorldClass]:
    """Return the entries of these labels. Raises InputError for one that the table lacks, with the nearest names."""
    table = world_classes()
    for label in labels:
        if label not in table:
            near = difflib.get_close_matches(label, table, n=3, cutoff=0.4) or sorted(table)[:3]
            raise InputError(f"class {label!r} is not one of the world model's {len(table)}: did you mean {near}?")
    return [table[label] for label in labels]


def audioset_names() -> list[str]:
    """Read the display names of YAMNet's 521 outputs, in their order, from its package."""
    return [row["display_name"] for row in csv.DictReader(io.StringIO(YAMNET_CLASSES.read().decode("utf-8")))]
