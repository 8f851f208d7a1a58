"""Draws image, ground truth and every method's heat map of every source side by side (the paper's Figure 3).

H x W pixels of a picture, K classes, h x w a model's grid.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from avgn.evaluation.canvas import source_mask
from avgn.evaluation.inference import check_classes
from avgn.evaluation.map_kinds import MapKind, map_kind
from avgn.evaluation.metrics import average_precision, best_assignment
from avgn.figures.page import STYLE, check_output, class_color, class_name, import_matplotlib, new_page, save
from avgn.runtime.arrays import Array
from avgn.runtime.engines.base import Engine
from avgn.runtime.errors import InputError
from avgn.runtime.image import upsample_map
from avgn.runtime.manifest import Item, Manifest
from avgn.runtime.reading import read_clip, read_frame, read_still
from avgn.runtime.regions import min_max

TILE_INCHES = 1.15
GAP_INCHES = 0.06
BETWEEN_ITEMS_INCHES = 0.16
TOP_INCHES = 0.24
LABEL_INCHES = 0.2
LABEL_POINTS = 7.5
# of a bold letter, in inches
LETTER_INCHES = 0.075
MOST_ROWS = 60
SHOWN_PIXELS = 360
HEAT = "turbo"
OPACITY = 0.55


@dataclass(frozen=True, kw_only=True)
class Row:
    """Holds a sounding visible class of an item: its mask [H, W] and each method's map, upsampled, [H, W] in 0..1."""

    label: str
    index: int
    mask: Array
    heat: dict[str, Array]


@dataclass(frozen=True, kw_only=True)
class ShownItem:
    """Holds an item to show: its frame [H, W, 3] uint8 and a row for each source."""

    item: Item
    rgb: Array
    rows: tuple[Row, ...]


def draw_qualitative(
    engines: Mapping[str, Engine],
    manifest: Manifest,
    output: str | os.PathLike[str],
    *,
    items: Sequence[str] | None = None,
    count: int = 4,
    seed: int = 0,
) -> list[str]:
    """Draw the items with the ids `items`, or `count` drawn at random; returns the ids shown.

    `engines`: the methods by their names, in order. `output`: a .png, .pdf or .svg file. `seed` decides which items are
    drawn at random. Maps are those of the classes that truly sound and are seen; maps
    without names are matched to their masks, and a source that is left without one has an empty map. Raises InputError
    for ids that are not listed or have nothing to show, other classes than the models' and unreadable files.
    """
    path = check_output(output)
    import_matplotlib()
    for engine in engines.values():
        check_classes(engine.info, manifest)
    chosen = _choose(manifest, items, count, seed)
    num_rows = sum(len(_sources(item)) for item in chosen)
    if num_rows > MOST_ROWS:
        raise InputError(f"{len(chosen)} items have {num_rows} sources: a page takes {MOST_ROWS}, so show fewer items")
    _draw([_show(item, manifest, engines) for item in chosen], list(engines), path)
    return [item.id for item in chosen]


def _sources(item: Item) -> list[str]:
    """Return the classes of an item that have a map to show."""
    shown = {s.label for s in item.sources if s.sounding and s.on_screen and (s.boxes or s.mask is not None)}
    return sorted(shown) if item.frame is not None and item.audio is not None else []


def _choose(manifest: Manifest, items: Sequence[str] | None, count: int, seed: int) -> list[Item]:
    listed = {item.id: item for item in manifest.items}
    if items is not None:
        for name in items:
            if name not in listed:
                raise InputError(f"{manifest.path} lists no item {name!r}: give ids that it has")
            if not _sources(listed[name]):
                raise InputError(f"item {name!r} has no sounding visible source with a box or mask: choose another")
        return [listed[name] for name in items]
    if count < 1:
        raise InputError(f"--count must be at least 1, got {count}")
    usable = [item for item in manifest.items if _sources(item)]
    if not usable:
        raise InputError(f"{manifest.path} has no item with a sounding visible source: nothing to show")
    drawn = np.random.default_rng(seed).permutation(len(usable))[:count]
    return [usable[n] for n in sorted(drawn)]


def _show(item: Item, manifest: Manifest, engines: Mapping[str, Engine]) -> ShownItem:
    assert item.frame is not None
    size = _shown_size(item)
    labels = _sources(item)
    indices = [manifest.classes.index(label) for label in labels]
    masks = [
        source_mask([s for s in item.sources if s.label == label and s.sounding and s.on_screen], size)
        for label in labels
    ]
    heat = {
        name: _heat(_maps(engine, item), map_kind(engine.info), indices, np.stack(masks))
        for name, engine in engines.items()
    }
    rows = [
        Row(label=label, index=index, mask=mask, heat={name: found[n] for name, found in heat.items()})
        for n, (label, index, mask) in enumerate(zip(labels, indices, masks, strict=True))
    ]
    return ShownItem(item=item, rgb=read_frame(item.frame, size), rows=tuple(rows))


def _shown_size(item: Item) -> tuple[int, int]:
    """Return (H, W) of the frame's own shape, large enough for a tile."""
    assert item.frame is not None
    image = read_still("frame", item.frame)
    scale = SHOWN_PIXELS / max(image.shape[:2])
    return round(image.shape[0] * scale), round(image.shape[1] * scale)


def _maps(engine: Engine, item: Item) -> Array:
    """Return a method's maps [K, h, w] of an item."""
    assert item.frame is not None and item.audio is not None
    info = engine.info
    heard = engine.run_audio(read_clip(item.audio, info.sample_rate, info.window_samples)[None])
    return np.asarray(engine.run_image(read_frame(item.frame, info.image_size)[None], heard["sources"])["maps"][0])


def _heat(maps: Array, kind: MapKind, indices: Sequence[int], masks: Array) -> list[Array]:
    """Return the map of each source [H, W] in 0..1, of maps [K, h, w]; indices: the sources' classes, masks [S, H,
    W]."""
    height, width = masks.shape[1:]

    def shown(k: int) -> Array:
        return np.asarray(min_max(upsample_map(maps[k], (height, width))))

    if kind == "per class":
        return [shown(index) for index in indices]
    if kind == "shared-map":
        return [shown(0)] * len(indices)
    heat = np.stack([shown(k) for k in range(len(maps))])
    # an empty mask has no AP
    owners = best_assignment(np.nan_to_num(average_precision(heat, masks)))
    return [heat[k] if k >= 0 else np.zeros((height, width)) for k in owners]


def _draw(shown_items: list[ShownItem], names: list[str], path: Any) -> None:
    matplotlib = import_matplotlib()
    with matplotlib.rc_context(STYLE):
        _lay_out(shown_items, ["Image", "Ground truth", *names], path, matplotlib.colormaps[HEAT])


def _lay_out(shown_items: list[ShownItem], titles: list[str], path: Any, heat: Any) -> None:
    """Lay out columns of one width; an item's tiles have the height that its frame's shape asks for."""
    lefts = [column * (TILE_INCHES + GAP_INCHES) + (LABEL_INCHES if column else 0) for column in range(len(titles))]
    width = lefts[-1] + TILE_INCHES
    heights = [TILE_INCHES * shown.rgb.shape[0] / shown.rgb.shape[1] for shown in shown_items]
    height = TOP_INCHES + sum(
        len(p.rows) * (h + GAP_INCHES) + BETWEEN_ITEMS_INCHES - GAP_INCHES
        for p, h in zip(shown_items, heights, strict=True)
    )
    page = new_page(width, height)

    def tile(column: int, top: float, tall: float) -> Any:
        axes = page.add_axes(
            (lefts[column] / width, (height - top - tall) / height, TILE_INCHES / width, tall / height)
        )
        axes.set_xticks([])
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set_visible(False)
        return axes

    for x, title in zip(lefts, titles, strict=True):
        page.text(
            (x + TILE_INCHES / 2) / width,
            1 - 0.6 * TOP_INCHES / height,
            _shorten(title, TILE_INCHES),
            ha="center",
            va="center",
        )
    top = TOP_INCHES
    for shown, tall in zip(shown_items, heights, strict=True):
        block = len(shown.rows) * (tall + GAP_INCHES) - GAP_INCHES
        tile(0, top + (block - tall) / 2, tall).imshow(shown.rgb, aspect="auto")
        for row in shown.rows:
            color = class_color(row.index)
            truth = tile(1, top, tall)
            truth.imshow(_tinted(shown.rgb, row.mask, color), aspect="auto")
            _outline(truth, row.mask, color)
            for column, found in enumerate(row.heat.values(), start=2):
                axes = tile(column, top, tall)
                axes.imshow(_heated(shown.rgb, heat(found)[..., :3]), aspect="auto")
                _outline(axes, row.mask, "white")
            name = _shorten(class_name(row.label), tall)
            x, y = (lefts[1] - LABEL_INCHES / 2) / width, 1 - (top + tall / 2) / height
            page.text(
                x, y, name, rotation=90, fontsize=LABEL_POINTS, color=color, weight="bold", ha="center", va="center"
            )
            top += tall + GAP_INCHES
        top += BETWEEN_ITEMS_INCHES - GAP_INCHES
    save(page, path)


def _shorten(name: str, length: float) -> str:
    """Shorten a name so that it fits beside a tile of `length` inches."""
    most = max(4, int(length / LETTER_INCHES))
    return name if len(name) <= most else name[: most - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _outline(axes: Any, mask: Array, color: Any) -> None:
    if mask.any() and not mask.all():
        axes.contour(np.asarray(mask, dtype=float), levels=[0.5], colors=[color], linewidths=0.9)


def _tinted(rgb: Array, mask: Array, color: tuple[float, float, float]) -> Array:
    """Draw the frame [H, W, 3] in 0..1 with the source in its colour and the rest dimmed."""
    light = rgb / 255
    weight = np.clip(np.asarray(mask, dtype=float), 0, 1)[..., None]
    return np.asarray(weight * (0.55 * light + 0.45 * np.array(color)) + (1 - weight) * (0.45 * light + 0.25))


def _heated(rgb: Array, heat: Array) -> Array:
    """Draw the frame in grey under the heat [H, W, 3] in 0..1, so that its own colours are not taken for heat."""
    grey = (rgb @ np.array([0.299, 0.587, 0.114]) / 255)[..., None]
    return np.asarray(np.clip((1 - OPACITY) * grey + OPACITY * heat, 0, 1))
