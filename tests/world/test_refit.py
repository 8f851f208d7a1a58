"""The file of fitted audio rows: what it adds to the published ones, and damage that is refused with a sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from avgn.encoders.packages import EFFICIENTNET, FACES, YAMNET
from avgn.encoders.yamnet import WIDTH
from avgn.runtime.errors import InputError
from avgn.world.classes import world_classes
from avgn.world.refit import ARRAYS, FORMAT, NOTHING, Refit, read_refit, write_refit
from avgn.world.weights import build_world, read_published, world_config
from tests.core.published import needs

LABELS = ("dog", "speech", "violin", "bell")


def some_refit(*classes: str) -> Refit:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((len(classes), WIDTH)).astype(np.float16)
    return Refit(classes=classes, rows=rows, bias=rng.standard_normal(len(classes)).astype(np.float32))


@needs(EFFICIENTNET, YAMNET, FACES)
def test_rows_are_the_published_ones_and_the_fit() -> None:
    published, refit = read_published(), some_refit("violin", "guitar")
    plain, fitted = (build_world(world_config(LABELS), published, each).audio_tokens for each in (NOTHING, refit))
    counts = [len(world_classes()[label].audioset) for label in LABELS]
    at = [slice(sum(counts[:k]), sum(counts[: k + 1])) for k in range(len(LABELS))]
    for label, span in zip(LABELS, at, strict=True):
        weight, bias = plain.rows.weight[span].detach().clone(), plain.rows.bias[span].detach().clone()
        if label == "violin":
            weight += torch.from_numpy(refit.rows[0].astype(np.float32))
            bias += float(refit.bias[0])
        assert torch.equal(fitted.rows.weight[span], weight) and torch.equal(fitted.rows.bias[span], bias), label
    assert torch.equal(fitted.noises.weight, plain.noises.weight)
    assert torch.equal(fitted.noises.bias, plain.noises.bias)
    by_default = build_world(world_config(LABELS), published).audio_tokens.rows.weight
    moved = [bool((by_default[span] != plain.rows.weight[span]).any()) for span in at]
    assert moved == [label in read_refit().classes for label in LABELS]


def test_the_packages_own_file_says_where_it_is_from() -> None:
    refit = read_refit()
    assert 20 <= len(refit.classes) < len(world_classes())
    assert refit.provenance["recordings"] and refit.provenance["made_with"]
    # a correction, not other rows
    assert float(np.abs(refit.rows.astype(np.float32)).max()) < 4.0 and np.abs(refit.bias).max() < 4.0


def test_a_file_is_read_as_written_and_its_bytes_are_its_content(tmp_path: Path) -> None:
    one, other = tmp_path / "one.npz", tmp_path / "other.npz"
    refit = some_refit("violin", "bell")
    write_refit(one, refit)
    read = read_refit(one)
    assert read.classes == refit.classes
    assert np.array_equal(read.rows, refit.rows) and np.array_equal(read.bias, refit.bias)
    write_refit(other, read)
    assert one.read_bytes() == other.read_bytes()
    write_refit(one, NOTHING)
    assert read_refit(one).classes == ()


def damaged(**changed: Any) -> dict[str, Any]:
    good = some_refit("violin", "bell")
    arrays = {
        "format": np.array(FORMAT),
        "classes": np.array(good.classes),
        "rows": good.rows,
        "bias": good.bias,
        "provenance": np.array(json.dumps({})),
    }
    assert set(arrays) == set(ARRAYS)
    return {name: value for name, value in (arrays | changed).items() if value is not None}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"bias": None}, "it must hold the arrays format, classes, rows, bias, provenance"),
        ({"extra": np.zeros(1)}, "it must hold the arrays"),
        ({"format": np.array("other")}, "its format is 'other', not 'avgn-world-refit'"),
        ({"classes": np.array(["violin", "violine"])}, "class 'violine' is not one of the world model's"),
        ({"classes": np.array(["violin", "violin"])}, "it names a class twice"),
        ({"classes": np.array(["violin"])}, r"rows must be float16 \[1, 1024\], got float16 \[2, 1024\]"),
        ({"rows": np.zeros((2, 512), np.float16)}, r"rows must be float16 \[2, 1024\], got float16 \[2, 512\]"),
        ({"rows": np.zeros((2, WIDTH), np.float32)}, "rows must be float16"),
        ({"rows": np.full((2, WIDTH), np.nan, np.float16)}, "rows hold a number that is not finite"),
        ({"bias": np.array([0, np.inf], np.float32)}, "bias hold a number that is not finite"),
        ({"bias": np.array([0, 1e6], np.float32)}, "larger than 100"),
        ({"provenance": np.array("[1]")}, "its provenance is not a JSON object"),
        ({"provenance": np.array("{")}, "Expecting property name"),
        ({"classes": np.array([{"a": 1}, "bell"], dtype=object)}, "Object arrays cannot be loaded"),
    ],
    ids=lambda value: "" if isinstance(value, str) else next(iter(value)),
)
def test_damaged_content_is_refused(changed: dict[str, Any], message: str, tmp_path: Path) -> None:
    file = tmp_path / "refit.npz"
    np.savez(file, **damaged(**changed))
    with pytest.raises(InputError, match=message) as caught:
        read_refit(file)
    assert str(file) in str(caught.value) and "python -m recipes.world" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_damaged_bytes_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "refit.npz"
    with pytest.raises(InputError, match="No such file"):
        read_refit(file)
    write_refit(file, some_refit("violin"))
    whole = file.read_bytes()
    single = tmp_path / "single.npy"
    np.save(single, np.zeros(3))
    turned = bytearray(whole)
    turned[len(whole) // 2] ^= 0xFF
    for data in (b"", b"not an archive", whole[: len(whole) // 2], bytes(turned), single.read_bytes()):
        file.write_bytes(data)
        with pytest.raises(InputError, match="doesn't hold fitted audio rows"):
            read_refit(file)
