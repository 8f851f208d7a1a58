"""Draws class-aware embeddings g^a and g^v of sounding visible sources by t-SNE (the paper's Figure 4).

N items, S sources, K classes, D width.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from avgn.engine import describe
from avgn.evaluation.inference import batches, check_classes
from avgn.figures.page import STYLE, check_output, class_color, class_name, import_matplotlib, new_page, save
from avgn.model import AVGN, LocalizerModel
from avgn.runtime.arrays import Array
from avgn.runtime.errors import InputError
from avgn.runtime.manifest import Item, Manifest

PERPLEXITY = 30.0
LEAST_SOURCES = 8
SIDE_INCHES = 3.0
# neighbours in the class list differ in shape, too
MARKERS = "os^Dv"
NAMES_PER_LINE = 6
MOST_NAMED = 24
BATCH_ITEMS = 16


@dataclass(frozen=True, kw_only=True)
class Embeddings:
    """Holds audio and visual [S, D] of S sources with their class indices [S]; `control` [S, D] holds, for each of
    them, the embedding of the same class in an item where that class neither sounds nor is seen (NaN: there is
    none)."""

    labels: Array
    audio: Array
    visual: Array
    control_audio: Array
    control_visual: Array


@torch.inference_mode()
def collect_embeddings(
    model: LocalizerModel,
    manifest: Manifest,
    *,
    seed: int = 0,
    skip_bad: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Embeddings:
    """Collect the embeddings of all sounding visible sources of a manifest.

    Raises InputError for a model without classes, other classes than the model's, or too few sources.
    """
    if not isinstance(model, AVGN) or not model.has_presence:
        raise InputError(f"model {model.config.name} has no class-aware embeddings: give one with class tokens")
    info = describe(model)
    check_classes(info, manifest)
    items: list[Item] = []
    audio: list[Array] = []
    visual: list[Array] = []
    skipped: Counter[str] = Counter()
    for found, waveforms, images in batches(info, manifest.items, BATCH_ITEMS, skip_bad, skipped):
        audio.append(model.encode_audio(torch.from_numpy(np.stack(waveforms))).embedding.numpy())
        visual.append(_visual_embedding(model, torch.from_numpy(np.stack(images))).numpy())
        items += found
        if progress:
            progress(len(items), len(manifest.items))
    index = {name: k for k, name in enumerate(manifest.classes)}
    shown = np.zeros((len(items), len(index)), bool)
    absent = np.ones((len(items), len(index)), bool)
    for n, item in enumerate(items):
        for source in item.sources:
            absent[n, index[source.label]] &= not (source.sounding or source.on_screen)
            shown[n, index[source.label]] |= source.sounding and source.on_screen
    rows, labels = np.nonzero(shown)
    if len(rows) < LEAST_SOURCES or len(set(labels)) < 2:
        raise InputError(
            f"{manifest.path} has {len(rows)} sounding visible sources of {len(set(labels))} classes: "
            f"give at least {LEAST_SOURCES} of 2 classes"
        )
    rng = np.random.default_rng(seed)
    others = np.array([_draw_other(absent[:, k], rng) for k in labels])
    found_audio, found_visual = np.concatenate(audio), np.concatenate(visual)

    def control(values: Array) -> Array:
        return np.where(others[:, None] < 0, np.nan, values[others, labels])

    return Embeddings(
        labels=labels,
        audio=found_audio[rows, labels],
        visual=found_visual[rows, labels],
        control_audio=control(found_audio),
        control_visual=control(found_visual),
    )


def _draw_other(absent: Array, rng: np.random.Generator) -> int:
    places = np.flatnonzero(absent)
    return int(rng.choice(places)) if len(places) else -1


def _visual_embedding(model: AVGN, image: torch.Tensor) -> torch.Tensor:
    """Compute g^v [B, K, D], whether or not the model's maps are gated by it."""
    cells, _ = model.visual_encoder(model.normalize(image))
    grouped: torch.Tensor = model.visual_grouping(*model.visual_transformer(cells, model.tokens))
    return grouped


def silhouettes(embeddings: Embeddings) -> dict[str, float | None]:
    """Compute silhouette scores (cosine, on the embeddings themselves) of the classes: audio, visual, and of their
    controls.

    An embedding holds its class's token: the control says how far that alone sets the classes apart.
    """
    names = ("audio", "visual", "control_audio", "control_visual")
    return {name: _silhouette(getattr(embeddings, name), embeddings.labels) for name in names}


def _silhouette(values: Array, labels: Array) -> float | None:
    from sklearn.metrics import silhouette_score

    kept = np.isfinite(values).all(axis=1)
    if not 2 <= len(set(labels[kept])) < kept.sum():
        return None
    return float(silhouette_score(values[kept].astype(np.float64), labels[kept], metric="cosine"))


def draw_embeddings(
    embeddings: Embeddings, classes: tuple[str, ...], output: str | os.PathLike[str], *, seed: int = 0
) -> dict[str, float | None]:
    """Draw audio and visual embeddings side by side; returns their silhouette scores."""
    path = check_output(output)
    matplotlib = import_matplotlib()
    scores = silhouettes(embeddings)
    with matplotlib.rc_context(STYLE):
        page = new_page(2 * SIDE_INCHES + 0.2, SIDE_INCHES)
        for column, kind in enumerate(("audio", "visual")):
            axes = page.add_axes(
                (column * (SIDE_INCHES + 0.2) / (2 * SIDE_INCHES + 0.2), 0, SIDE_INCHES / (2 * SIDE_INCHES + 0.2), 1)
            )
            _scatter(axes, project(getattr(embeddings, kind), seed), embeddings.labels, classes)
            symbol = {"audio": r"$g^a$", "visual": r"$g^v$"}[kind]
            score = "" if scores[kind] is None else f", silhouette {scores[kind]:.2f}"
            axes.set_title(f"{kind.capitalize()} embeddings {symbol}{score}", pad=5)
        handles, names = _legend(axes, embeddings.labels)
        columns = -(-len(names) // -(-len(names) // NAMES_PER_LINE))
        page.legend(
            *(handles, names),
            loc="upper center",
            bbox_to_anchor=(0.5, -0.01),
            ncols=columns,
            frameon=False,
            fontsize=8,
            handletextpad=0.1,
            columnspacing=1.2,
            markerscale=1.6,
        )
        save(page, path)
    return scores


def _legend(axes: Any, labels: Array) -> tuple[list[Any], list[str]]:
    """Return the entries of the legend: all classes, or the most frequent ones if there are too many."""
    handles, names = axes.get_legend_handles_labels()
    counts = Counter(labels.tolist())
    most = {k for k, _ in counts.most_common(MOST_NAMED)}
    kept = [n for n, k in enumerate(sorted(counts)) if k in most]
    shown = [names[n] for n in kept]
    if len(kept) < len(names):
        handles = [*handles, axes.scatter([], [], s=0)]
        return [*(handles[n] for n in kept), handles[-1]], [*shown, f"and {len(names) - len(kept)} more"]
    return handles, shown


def project(values: Array, seed: int) -> Array:
    """Project embeddings [S, D] to points [S, 2] by t-SNE of their cosine distances."""
    from sklearn.manifold import TSNE

    unit = values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
    perplexity = min(PERPLEXITY, (len(values) - 1) / 3)
    # equal up to a factor to the cosine distance, and much faster
    tsne = TSNE(perplexity=perplexity, init="pca", random_state=seed, n_jobs=1)
    return np.asarray(tsne.fit_transform(unit.astype(np.float32)))


def _scatter(axes: Any, points: Array, labels: Array, classes: tuple[str, ...]) -> None:
    for k in sorted(set(labels.tolist())):
        own = points[labels == k]
        axes.scatter(
            *own.T,
            s=13,
            marker=MARKERS[k % len(MARKERS)],
            color=class_color(k),
            edgecolors="white",
            linewidths=0.25,
            label=class_name(classes[k]),
        )
    axes.set_xticks([])
    axes.set_yticks([])
    axes.margins(0.04)
    for spine in axes.spines.values():
        spine.set_color("0.7")
