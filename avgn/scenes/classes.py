"""Names the classes of procedural scenes and how each looks and sounds: one table, so that no class lacks a part."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from avgn.scenes import outlines, textures, timbres
from avgn.scenes.draw import Draw
from avgn.scenes.outlines import Outline
from avgn.scenes.synth import Wave, place_in_room
from avgn.scenes.textures import Image, Weights


@dataclass(frozen=True, kw_only=True)
class SceneClass:
    """Draws the silhouette of a class, paints the texture on it, and plays its timbre."""

    outline: Callable[[Draw], Outline]
    texture: Callable[[Image, Image, float, Draw], Weights]
    timbre: Callable[[Draw, int], Wave]


SCENE_CLASSES: dict[str, SceneClass] = {
    "beacon": SceneClass(outline=outlines.beacon, texture=textures.beacon, timbre=timbres.beacon),
    "bell": SceneClass(outline=outlines.bell, texture=textures.bell, timbre=timbres.bell),
    "buzzer": SceneClass(outline=outlines.buzzer, texture=textures.buzzer, timbre=timbres.buzzer),
    "drum": SceneClass(outline=outlines.drum, texture=textures.drum, timbre=timbres.drum),
    "flute": SceneClass(outline=outlines.flute, texture=textures.flute, timbre=timbres.flute),
    "harp": SceneClass(outline=outlines.harp, texture=textures.harp, timbre=timbres.harp),
    "organ": SceneClass(outline=outlines.organ, texture=textures.organ, timbre=timbres.organ),
    "phone": SceneClass(outline=outlines.phone, texture=textures.phone, timbre=timbres.phone),
    "rattle": SceneClass(outline=outlines.rattle, texture=textures.rattle, timbre=timbres.rattle),
    "siren": SceneClass(outline=outlines.siren, texture=textures.siren, timbre=timbres.siren),
}
CLASSES: tuple[str, ...] = tuple(sorted(SCENE_CLASSES))


def draw_waveform(label: str, num: int, d: Draw) -> NDArray[np.float32]:
    """Render a class's sound in a room: [num] samples at 22 050 Hz with an RMS of 1."""
    return place_in_room(SCENE_CLASSES[label].timbre(d, num), d)
