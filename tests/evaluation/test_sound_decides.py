"""The sound-decides test with a model that listens and with one that does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from avgn.evaluation.canvas import box_mask
from avgn.evaluation.sound_decides import SwapPair, sound_decides
from avgn.runtime.errors import InputError

Make = Callable[..., Any]
LEFT, RIGHT = (0.1, 0.3, 0.35, 0.6), (0.6, 0.3, 0.9, 0.7)


def _pair(draw: Make, sound: Make, a: str, b: str) -> SwapPair:
    return SwapPair(
        frame=draw([(a, LEFT), (b, RIGHT)]),
        labels=(a, b),
        masks=(box_mask([LEFT]), box_mask([RIGHT])),
        audio_a=sound([a], 0.5),
        audio_b=sound([b], 0.5),
    )


@pytest.fixture
def pairs(draw: Make, sound: Make) -> list[SwapPair]:
    return [_pair(draw, sound, "bell", "drum"), _pair(draw, sound, "horn", "flute")]


def test_a_model_that_listens_decides_by_the_sound(pairs: list[SwapPair], tone_engine: Make) -> None:
    scores = sound_decides(tone_engine(), pairs)
    assert scores == {"hotter": 100, "swapped": 100, "swapped_right": 100, "top_class": 100, "cases": 4, "pairs": 2}


def test_a_model_that_only_looks_does_not(pairs: list[SwapPair], tone_engine: Make) -> None:
    engine = tone_engine()
    engine.run_audio = lambda waveform: {
        "sources": np.ones((len(waveform), 4, 1), np.float32),
        "audio_prob": np.tile(np.array([1, 0, 0, 0.5], np.float32), (len(waveform), 1)),
    }
    scores = sound_decides(engine, pairs)
    assert scores["hotter"] == 25 and scores["swapped"] == 0 and scores["swapped_right"] == 0


def test_swapped_sounds_are_wrong_but_swap(pairs: list[SwapPair], tone_engine: Make) -> None:
    crossed = [replace(pair, audio_a=pair.audio_b, audio_b=pair.audio_a) for pair in pairs]
    scores = sound_decides(tone_engine(), crossed)
    assert scores["hotter"] == 0 and scores["swapped"] == 100 and scores["swapped_right"] == 0


def test_bad_pairs_are_refused(pairs: list[SwapPair], tone_engine: Make) -> None:
    with pytest.raises(InputError, match="no swap pairs"):
        sound_decides(tone_engine(), [])
    with pytest.raises(InputError, match="swap pair 1 has an empty mask"):
        sound_decides(
            tone_engine(), [pairs[0], replace(pairs[1], masks=(pairs[1].masks[0], np.zeros((224, 224), bool)))]
        )
    with pytest.raises(InputError, match="no audio head"):
        sound_decides(tone_engine(has_presence=False), pairs)
