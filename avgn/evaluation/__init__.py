"""Evaluates localizers: metrics, named protocols, floors and ceilings. Needs numpy, in places scipy; never torch."""

from avgn.evaluation.evaluate import evaluate, evaluate_bounds
from avgn.evaluation.inference import Predictions, predict
from avgn.evaluation.protocols import PROTOCOLS
from avgn.evaluation.report import format_table
from avgn.evaluation.sound_decides import SwapPair, sound_decides
from avgn.evaluation.thresholds import calibrate_thresholds
from avgn.evaluation.video import evaluate_video

__all__ = [
    "PROTOCOLS",
    "Predictions",
    "SwapPair",
    "calibrate_thresholds",
    "evaluate",
    "evaluate_bounds",
    "evaluate_video",
    "format_table",
    "predict",
    "sound_decides",
]
