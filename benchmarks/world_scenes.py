"""Scores a model of real things on annotated scenes: localization, which sound decides, what is taken for what."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from avgn.evaluation import evaluate
from avgn.evaluation.inference import Predictions, predict
from avgn.runtime.engines.base import Engine
from avgn.runtime.joint import joint_odds, judge
from avgn.runtime.manifest import Manifest


def on_scenes(engine: Engine, manifests: list[Manifest]) -> dict[str, Any]:
    """Score each manifest, and all of them together class by class."""
    results = [evaluate(engine, each, ["adaptive"], ["given", "predicted"], bootstrap=0) for each in manifests]
    found = [predict(engine, manifest) for manifest in manifests]
    decided = sound_decides(engine, found)
    return {
        "scenes": [accuracy(manifest, each) for manifest, each in zip(manifests, results, strict=True)],
        "sound_decides": decided,
        "per_class": per_class(results, decided["by_class"]),
        "confused": confused(engine, found),
    }


def per_class(results: list[list[dict[str, Any]]], decided: dict[str, float]) -> dict[str, dict[str, float]]:
    """Pool over the manifests what each class reaches.

    The number of its sources, the percentage that is localized (IoU of 0.3) with classes given and with classes
    predicted, and the percentage of pairs in which its sound decides.
    """
    hits: dict[str, Counter[str]] = {}
    for result in (result for each in results for result in each):
        for label, row in result["per_class"].items():
            found = hits.setdefault(label, Counter())
            found[result["classes"]] += round(row["sources"] * row["IoU@0.3"] / 100)
            found[f"all {result['classes']}"] += row["sources"]
    return {
        label: {"sources": count["all given"]}
        | {mode: round(100 * count[mode] / max(1, count[f"all {mode}"]), 1) for mode in ("given", "predicted")}
        | ({"sound_decides": decided[label]} if label in decided else {})
        for label, count in sorted(hits.items())
    }


def confused(engine: Engine, predictions: list[Predictions]) -> dict[str, int]:
    """Count the pairs (what sounds and was not said, what was said instead) of all items, the twenty commonest."""
    info = engine.info
    assert info.joint is not None
    pairs: Counter[str] = Counter()
    for found in predictions:
        for row, item in enumerate(found.items):
            verdict = judge(info.joint, found.audio_prob[row], found.visual_prob[row], found.maps[row])
            said = {info.classes[k] for k in np.flatnonzero(verdict.claimed)}
            true = {source.label for source in item.sources if source.sounding}
            pairs.update(f"{missed} as {wrong}" for missed in true - said for wrong in said - true)
    return dict(pairs.most_common(20))


def accuracy(manifest: Manifest, results: list[dict[str, Any]]) -> dict[str, Any]:
    """Keep of the adaptive protocol, with classes given and predicted, the scores beside their floor."""
    kept = ("CIoU@0.3", "CAP", "F1@0.3", "false sources per image", "AP", "PIAP")
    found: dict[str, Any] = {"items": len(manifest.items)}
    for result in results:
        rows = {name: result["metrics"] for name in ("metrics",)} | {"floor": result.get("floor") or {}}
        found[result["classes"]] = {
            where: {name: round(float(values[name]), 2) for name in kept if isinstance(values.get(name), float | int)}
            for where, values in rows.items()
        }
    return found


def sound_decides(engine: Engine, predictions: list[Predictions]) -> dict[str, Any]:
    """Measure the percentage of pairs of a sounding and a silent visible thing of a scene in which the sounding one
    scores higher."""
    info = engine.info
    assert info.joint is not None
    right: list[bool] = []
    by_class: dict[str, list[bool]] = {}
    for found in predictions:
        odds = joint_odds(info.joint, found.audio_prob, found.visual_prob)
        for row, item in zip(odds, found.items, strict=True):
            score = {source.label: float(row[info.classes.index(source.label)]) for source in item.sources}
            for loud in (source.label for source in item.sources if source.sounding):
                for still in (source.label for source in item.sources if not source.sounding):
                    right.append(score[loud] > score[still])
                    by_class.setdefault(loud, []).append(right[-1])
    return {
        "percent": round(100 * float(np.mean(right)), 1),
        "pairs": len(right),
        "by_class": {label: round(100 * float(np.mean(hits)), 1) for label, hits in sorted(by_class.items())},
    }
