"""Which programs of the soundfonts stand for which class."""

from __future__ import annotations

from recipes.world.phrases import DRUMS, Part
from recipes.world.sources import NOISE


def _parts(*rows: tuple[int, int, int, int, str]) -> list[Part]:
    return [Part(*row) for row in rows]


# General MIDI, played on both fonts
INSTRUMENTS = {
    "guitar": _parts(
        (0, 24, 40, 76, "strum"),
        (0, 25, 40, 77, "strum"),
        (0, 24, 45, 79, "broken"),
        (0, 25, 45, 79, "broken"),
        (0, 26, 45, 76, "line"),
        (0, 27, 40, 79, "line"),
        (0, 29, 40, 70, "chords"),
        (0, 30, 40, 70, "chords"),
    ),
    "banjo": _parts((0, 105, 48, 82, "broken"), (0, 105, 48, 82, "strum")),
    "piano": _parts(
        (0, 0, 33, 96, "chords"),
        (0, 1, 33, 96, "line"),
        (0, 0, 40, 90, "broken"),
        (0, 3, 40, 88, "chords"),
        (0, 4, 40, 88, "chords"),
    ),
    "organ": _parts(
        (0, 16, 40, 84, "chords"),
        (0, 17, 40, 84, "chords"),
        (0, 18, 40, 84, "chords"),
        (0, 19, 36, 84, "chords"),
        (0, 20, 48, 84, "chords"),
        (0, 19, 48, 84, "line"),
    ),
    "drum": _parts(
        *((DRUMS, kit, 35, 59, "kit") for kit in (0, 8, 16, 32, 40)),
        (0, 116, 40, 64, "roll"),
        (0, 117, 40, 64, "roll"),
        (0, 47, 36, 57, "roll"),
    ),
    "marimba": _parts(
        (0, 12, 48, 86, "line"),
        (0, 13, 65, 96, "line"),
        (0, 12, 48, 80, "roll"),
        (0, 11, 53, 89, "line"),
        (0, 9, 72, 96, "line"),
    ),
    "steel drum": _parts((0, 114, 57, 86, "line"), (0, 114, 57, 86, "roll")),
    "maracas": _parts((DRUMS, 0, 70, 70, "pulse"), (DRUMS, 0, 82, 82, "pulse")),
    "violin": _parts(
        (0, 40, 55, 93, "legato"),
        (0, 40, 55, 93, "line"),
        (0, 110, 55, 88, "line"),
        (0, 40, 55, 88, "thirds"),
    ),
    "cello": _parts((0, 42, 36, 72, "legato"), (0, 42, 36, 67, "line"), (0, 43, 28, 55, "line")),
    "harp": _parts((0, 46, 36, 91, "broken"), (0, 46, 36, 91, "line"), (0, 46, 40, 90, "strum")),
    "flute": _parts((0, 73, 60, 93, "legato"), (0, 73, 60, 93, "line"), (0, 72, 74, 98, "line")),
    "clarinet": _parts(
        (0, 71, 50, 89, "legato"),
        (0, 71, 50, 89, "line"),
        (0, 68, 58, 89, "line"),
        (0, 70, 34, 70, "line"),
    ),
    "saxophone": _parts(
        (0, 64, 57, 86, "line"),
        (0, 65, 50, 80, "legato"),
        (0, 65, 50, 80, "line"),
        (0, 66, 45, 75, "line"),
        (0, 67, 38, 67, "line"),
    ),
    "trumpet": _parts((0, 56, 54, 82, "line"), (0, 56, 54, 82, "legato"), (0, 59, 55, 80, "line")),
    "trombone": _parts((0, 57, 40, 69, "line"), (0, 57, 40, 69, "legato")),
    "french horn": _parts((0, 60, 41, 77, "line"), (0, 60, 41, 77, "legato")),
    "harmonica": _parts((0, 22, 60, 89, "line"), (0, 22, 60, 89, "thirds"), (0, 22, 60, 84, "chords")),
    "accordion": _parts((0, 21, 53, 86, "line"), (0, 21, 53, 86, "chords"), (0, 23, 50, 84, "line")),
    "whistle": _parts((DRUMS, 0, 71, 72, "pulse")),
    "bell": _parts(
        (0, 14, 60, 77, "slow"),
        (0, 112, 72, 90, "line"),
        (DRUMS, 0, 83, 83, "pulse"),
        (DRUMS, 0, 81, 81, "pulse"),
    ),
    "singing": _parts((0, 52, 48, 79, "chords"), (0, 53, 48, 79, "chords"), (0, 52, 48, 79, "legato")),
    "songbird": _parts((0, 123, 54, 78, "long")),
    "telephone": _parts((0, 124, 56, 76, "long")),
    NOISE: _parts((0, 122, 48, 72, "long"), (0, 126, 48, 72, "long")),
}
# the sound effects of Roland GS. Not taken, for YAMNet hears something else: its train, jet plane, gallop, second
# telephone and second bird
EFFECTS = {
    "dog": _parts((1, 123, 54, 68, "pulse")),
    "laughter": _parts((1, 126, 56, 66, "long")),
    "car": _parts((1, 125, 54, 66, "long"), (3, 125, 54, 66, "long"), (2, 125, 56, 64, "long")),
    "siren": _parts((5, 125, 56, 66, "long")),
    "bell": _parts((5, 124, 54, 70, "long")),
    NOISE: _parts(*((bank, 122, 50, 68, "long") for bank in (1, 2, 3, 4, 5))),
}
# made by a synthesiser in MuseScore's font, or heard as something else
NOT_ON = {"musescore": ("steel drum", "songbird")}


def programs_of(font: str) -> dict[str, list[Part]]:
    """Return what is played on a font, by label."""
    table = EFFECTS if font == "effects" else INSTRUMENTS
    return {label: parts for label, parts in table.items() if label not in NOT_ON.get(font, ())}
