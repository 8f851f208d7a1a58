"""Boxes, masks and grids on the canvas, against plain loops and torch."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from avgn.evaluation import canvas
from avgn.runtime.errors import InputError
from avgn.runtime.manifest import Source


def test_boxes_are_half_open_and_clipped() -> None:
    mask = canvas.box_mask([(0.25, 0.5, 0.5, 0.75)])
    rows, columns = np.nonzero(mask)
    assert tuple(int(side) for side in (rows.min(), rows.max(), columns.min(), columns.max())) == (112, 167, 56, 111)
    assert canvas.box_mask([(0, 0, 1, 1)]).all()
    assert canvas.box_mask([(-0.4, -0.1, 0.5, 2.0)]).sum() == 112 * 224
    assert canvas.box_mask([(0.001, 0.001, 0.004, 0.004)]).sum() == 0
    assert canvas.box_mask([(0.999 / 224, 0, 1.999 / 224, 1)])[:, 0].all()


def test_overlapping_boxes_are_a_union() -> None:
    mask = canvas.box_mask([(0, 0, 0.5, 0.5), (0.25, 0.25, 0.75, 0.75)], (8, 8))
    assert mask.dtype == bool
    assert mask.sum() == 16 + 16 - 4


@pytest.mark.parametrize(("source", "target"), [((6, 8), (3, 4)), ((7, 5), (3, 3)), ((3, 4), (7, 9)), ((5, 5), (5, 5))])
def test_area_average_by_integrating_finely(source: tuple[int, int], target: tuple[int, int]) -> None:
    values = np.random.default_rng(0).random(source)
    fine = np.kron(values, np.ones(target))
    expected = fine.reshape(target[0], source[0], target[1], source[1]).mean(axis=(1, 3))
    np.testing.assert_allclose(canvas.area_average(values, target), expected, atol=1e-12)


def test_resized_mask_needs_half_of_the_pixel() -> None:
    mask = np.zeros((4, 4), dtype=bool)
    mask[0, 0] = mask[0, 1] = True
    mask[2, 2] = True
    assert canvas.resize_mask(mask, (2, 2)).tolist() == [[True, False], [False, False]]
    assert (canvas.resize_mask(mask, (8, 8)) == np.kron(mask, np.ones((2, 2), dtype=bool))).all()


@pytest.mark.parametrize("grid", [(7, 7), (5, 9), (14, 14), (1, 1), (28, 28)])
def test_bilinear_upsampling_is_torchs(grid: tuple[int, int]) -> None:
    maps = np.random.default_rng(1).normal(size=(3, *grid)).astype(np.float32)
    maps[2] = np.float32(0.1)
    ours = canvas.upsample_bilinear(maps)
    theirs = torch.nn.functional.interpolate(torch.from_numpy(maps)[None], size=(224, 224), mode="bilinear")[0].numpy()
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert np.ptp(ours[2]) == 0


def test_centre_map_is_highest_in_the_middle() -> None:
    score = canvas.centre_map((5, 7))
    assert score.argmax() == 2 * 7 + 3
    assert score[0, 0] == pytest.approx(-np.hypot(2, 3))


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_mask_files_of_any_kind(tmp_path: Path, channels: int) -> None:
    mask = np.zeros((448, 448), dtype=np.uint8)
    mask[100:200, 50:150] = 255
    image = mask if channels == 1 else np.dstack([mask] * 3 + [np.full_like(mask, 255)] * (channels - 3))
    path = tmp_path / "mask.png"
    cv2.imwrite(str(path), image)
    assert (canvas.read_mask(path) == (mask[::2, ::2] > 0)).all()


def test_mask_that_is_no_image_is_named(tmp_path: Path) -> None:
    path = tmp_path / "broken.png"
    path.write_bytes(b"not a picture")
    with pytest.raises(InputError, match="broken.png"):
        canvas.read_mask(path)
    path.write_bytes(b"")
    with pytest.raises(InputError, match="broken.png"):
        canvas.read_mask(path)
    with pytest.raises(InputError, match="absent.png"):
        canvas.read_mask(tmp_path / "absent.png")


def test_sources_are_united_and_a_mask_goes_before_boxes(tmp_path: Path) -> None:
    exact = np.zeros((224, 224), dtype=np.uint8)
    exact[:10, :10] = 1
    cv2.imwrite(str(tmp_path / "m.png"), exact)
    masked = Source(label="a", sounding=True, on_screen=True, boxes=((0, 0, 0.5, 0.5),), mask=tmp_path / "m.png")
    boxed = Source(label="a", sounding=True, on_screen=True, boxes=((0.5, 0.5, 1, 1),))
    assert canvas.source_mask([masked, boxed]).sum() == 100 + 112 * 112
