"""Settings of the world model: what it hears at, and which entries of a configuration go together with its encoders."""

from __future__ import annotations

from typing import Any

# samples per second of its front-end
RATE = 16_000
# samples that its audio network hears at once, and between the starts of two such patches
PATCH_SAMPLES, PATCH_HOP = 15_600, 3200
# patches whose evidence counts: the mean of the loudest
LOUDEST = 3
# log-odds that a class loses for each that noise is ahead of it, and how far ahead noise starts
NOISE_WEIGHT, NOISE_LEAD = 6.0, 0.5
# width of the blur of the maps, in cells of 32 pixels, and how far it reaches
BLUR, BLUR_REACH = 0.85, 2
# logits grow with a cell's length; cells that see little are told apart by more of it: + weight * ln(1 + length)
LENGTH_WEIGHT = 2.0
# p^v = sigmoid(peak - offset): the median of things that are seen peaks at 21, of others at 10. The runtime takes
# log-odds of 15 at most, so that of two things in plain view the sound decides
SEEN_OFFSET = 10.0
# entries that the encoders world need
WITH_ENCODERS: dict[str, Any] = {"encoders": "world", "frontend": "log-mel", "sample_rate": RATE}


def window_of(hops: int) -> float:
    """Return the seconds of a window of one patch and this many hops."""
    return (PATCH_SAMPLES + hops * PATCH_HOP) / RATE


def preset_entries(tokens: str) -> dict[str, Any]:
    """Return the entries of the preset avgn-world with this kind of tokens."""
    entries = {
        "name": "avgn-world",
        "tokens": "classifiers",
        "window_seconds": window_of(10),
        "image_size": (320, 320),
        **WITH_ENCODERS,
    }
    # a token hands over one number: its log-odds
    return entries | ({"dim": 1, "heads": 1} if tokens == "classifiers" else {})


def check_together(encoders: str, frontend: str, tokens: str) -> None:
    """Raise ValueError for entries of the world model without the others that they need."""
    world, classifiers = encoders == "world", tokens == "classifiers"
    if world != (frontend == "log-mel") or (classifiers and not world):
        raise ValueError(
            "encoders 'world' and frontend 'log-mel' belong together, and tokens 'classifiers' with both, got "
            f"{encoders!r}, {frontend!r} and {tokens!r}: use preset avgn-world"
        )


def check_window(sample_rate: int, window_seconds: float, whole_patches: bool) -> None:
    """Raise ValueError for a window that the audio network can't hear: another rate, too short, or cut in a patch."""
    rest = round(window_seconds * sample_rate) - PATCH_SAMPLES
    if sample_rate != RATE or rest < 0 or (whole_patches and rest % PATCH_HOP):
        seconds = [window_of(hops) for hops in (0, 5, 10)]
        raise ValueError(
            f"the world model hears whole patches at {RATE} Hz, got {window_seconds} s at {sample_rate} Hz: use "
            f"window_seconds of {seconds[0]} plus a multiple of 0.2, as {seconds[2]}"
        )
