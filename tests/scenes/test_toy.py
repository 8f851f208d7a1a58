"""Not a toy: what needs no understanding (colours, the spectral centroid) does not tell the classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from avgn.scenes import CLASSES, render_single_object, render_single_waveform

Data = tuple[NDArray[np.float64], NDArray[np.int64]]


def colour_histogram(label: str, split: str, seed: int) -> NDArray[np.float64]:
    frame, mask = render_single_object(label, split, seed, (128, 128))
    bins: NDArray[np.int64] = (frame[mask].astype(np.int64) // 32) @ np.array([64, 8, 1])
    counts = np.bincount(bins, minlength=512)
    shares: NDArray[np.float64] = counts / counts.sum()
    return shares


def centroid(label: str, split: str, seed: int) -> NDArray[np.float64]:
    sound = render_single_waveform(label, split, seed, 2.0)
    frames = np.lib.stride_tricks.sliding_window_view(sound, 1024)[::512] * np.hanning(1024)
    magnitude = np.abs(np.fft.rfft(frames))
    centre = magnitude @ np.fft.rfftfreq(1024, 1 / 22_050) / (magnitude.sum(axis=1) + 1e-9)
    return np.log([centre.mean(), centre.std() + 1])


def collect(feature: Any, split: str, num: int) -> Data:
    pairs = [(feature(label, split, seed), k) for k, label in enumerate(CLASSES) for seed in range(num)]
    return np.array([x for x, _ in pairs]), np.array([y for _, y in pairs])


def best_accuracy(models: list[Any], train: Data, test: Data) -> float:
    """The best of several classifiers, from train to test and within either (3-fold cross-validated)."""
    scores = []
    for model in models:
        scores.append(model.fit(*train).score(*test))
        scores.extend(cross_val_score(model, *data, cv=3).mean() for data in (train, test))
    return float(max(scores))


def test_colours_do_not_tell_the_class(record_property: Callable[[str, object], None]) -> None:
    models = [LogisticRegression(max_iter=200, C=10, tol=0.02), KNeighborsClassifier(1), KNeighborsClassifier(7)]
    train, test = collect(colour_histogram, "train", 50), collect(colour_histogram, "test", 25)
    accuracy = best_accuracy(models, train, test)
    record_property("accuracy", accuracy)
    assert accuracy <= 0.30


def test_the_spectral_centroid_does_not_tell_the_class(record_property: Callable[[str, object], None]) -> None:
    models = [
        make_pipeline(StandardScaler(), model)
        for model in (KNeighborsClassifier(9), GaussianNB(), LogisticRegression(max_iter=1000))
    ]
    train, test = collect(centroid, "train", 60), collect(centroid, "test", 30)
    accuracy = best_accuracy(models, train, test)
    record_property("accuracy", accuracy)
    assert accuracy <= 0.40
