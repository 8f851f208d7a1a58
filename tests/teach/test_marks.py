"""Boxes and masks beside a picture, as parts of the model's cells."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from avgn.runtime.errors import InputError
from avgn.teach.marks import covered, draw_boxes, find_mask, read_boxes, read_marks

# pictures 40 wide and 20 high, cells 4 x 2
ENCODERS: Any = SimpleNamespace(info=SimpleNamespace(image_size=(20, 40), grid=(2, 4)))


def test_a_cell_is_marked_by_its_part_that_is_covered(tmp_path: Path) -> None:
    picture = tmp_path / "a.jpg"
    assert read_marks(picture, 8, ENCODERS) is None
    # half of the second cell of the first row, and half of the one below it
    picture.with_suffix(".json").write_text(json.dumps({"boxes": [[0.25, 0.25, 0.5, 0.75]]}))
    found = read_marks(picture, 8, ENCODERS)
    assert found is not None and found.tolist() == pytest.approx([0, 0.5, 0, 0, 0, 0.5, 0, 0])
    # several boxes are one thing, however they overlap; a mask goes before them
    plane = draw_boxes([(0, 0, 0.5, 0.5), (0.25, 0, 0.75, 0.5)], (20, 40))
    assert covered(plane, (2, 4)).tolist() == pytest.approx([1, 1, 1, 0, 0, 0, 0, 0])
    mask = np.zeros((20, 40, 3), np.uint8)
    mask[10:, 30:, 2] = 255
    cv2.imwrite(str(tmp_path / "a.mask.png"), mask)
    found = read_marks(picture, 8, ENCODERS)
    assert found is not None and found.tolist() == pytest.approx([0, 0, 0, 0, 0, 0, 0, 1])


def test_a_mask_has_any_format_and_size(tmp_path: Path) -> None:
    """A mask is stretched over the picture, as the picture is over the model's."""
    mask = np.zeros((300, 16), np.uint8)
    mask[150:, 8:] = 255
    for number, ending in enumerate((".png", ".jpg", ".BMP")):
        path = tmp_path / f"a{number}.mask{ending}"
        cv2.imwrite(str(path), mask)
        assert find_mask(tmp_path / f"a{number}.jpg") == path
        found = read_marks(tmp_path / f"a{number}.jpg", 8, ENCODERS)
        assert found is not None and found.tolist() == pytest.approx([0, 0, 0, 0, 0, 0, 1, 1], abs=0.05)


def test_marks_of_nothing_are_named(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.mask.PNG"), np.zeros((20, 40), np.uint8))
    with pytest.raises(InputError, match=r"^a\.mask\.PNG beside it marks nothing"):
        read_marks(tmp_path / "a.jpg", 8, ENCODERS)
    # two pixels of a hundred are a slip
    (tmp_path / "b.json").write_text('{"boxes": [[0.1, 0.1, 0.125, 0.2]]}')
    with pytest.raises(InputError, match=r"^b\.json beside it marks nothing"):
        read_marks(tmp_path / "b.jpg", 8, ENCODERS)


def test_boxes_lie_in_the_picture(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"boxes": [[0, 0, 1, 1], [0.25, 0.5, 0.75, 1]]}')
    assert read_boxes(path) == [(0, 0, 1, 1), (0.25, 0.5, 0.75, 1)]
    flat = ("[0.5, 0, 0.5, 1]", "[0, 0.5, 1, 0.5]", "[0, 1, 1, 0]")
    bad = (*flat, "[0, 0, 1.01, 1]", "[-0.01, 0, 1, 1]", "[0, 0, 1, NaN]", "[0, 0, 1]")
    for box in bad:
        # one bad box among good ones is enough
        path.write_text(f'{{"boxes": [[0, 0, 1, 1], {box}]}}')
        with pytest.raises(InputError, match="beside it must be"):
            read_boxes(path)
