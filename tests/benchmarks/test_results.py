"""The results in benchmarks/results keep to the one schema of docs/results.md."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from docs.tools.tables import RESULTS, ROOT

SNAKE_CASE = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*|\d+")
# the keys under these are names of things, as the schema page says
NAMES = (
    "bundles",
    "by_class",
    "chips",
    "commands",
    "confused",
    "engine",
    "engines",
    "errors",
    "graph_hazards",
    "halves",
    "image_half_many_over_few_classes",
    "instructions",
    "loader_over_training",
    "loader_samples_per_second",
    "megabytes",
    "metrics",
    "models",
    "modules",
    "ms",
    "named",
    "no_source_in_noise_percent",
    "one_core_ms",
    "per_class",
    "predicted_us",
    "runs",
    "shape",
    "summary",
    "times",
    "versions",
)
# the same for the rows of tables, whose metrics are the evaluation's
METRICS = ("values", "std", "ci95", "floor", "ceiling")
# names within names
NAMES_OF_NAMES = ("frame_ms", "measured_at_export", "published", "seeds")


def wrong_keys(value: Any, path: str = "", parent: str = "") -> Iterator[str]:
    """The paths of keys that are neither snake_case nor names of things."""
    if isinstance(value, list):
        for each in value:
            yield from wrong_keys(each, f"{path}[]", parent)
    elif isinstance(value, dict) and not of_the_product(value):
        for key, each in value.items():
            here = f"{path}/{key}"
            if parent not in (*NAMES, *METRICS) and not SNAKE_CASE.fullmatch(key):
                yield here
            if key not in NAMES_OF_NAMES:
                yield from wrong_keys(each, here, key)


def of_the_product(record: dict[str, Any]) -> bool:
    """Whether a record is one of the product's own file formats, or a result of `avgn evaluate`: other pages describe
    those."""
    return "format" in record or {"protocol", "classes", "metrics"} <= set(record)


def test_results_are_found() -> None:
    assert len(list(RESULTS.glob("*.json"))) > 20


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_keys_are_snake_case_or_names_of_things(path: Any) -> None:
    assert list(wrong_keys(json.loads(path.read_text()))) == []


def test_a_key_with_a_space_is_found_wherever_it_stands() -> None:
    assert list(wrong_keys({"rows": [{"cpu ms": 1}], "peak_MB": 2, "versions": {"onnx-x": "1"}, "a__b": 3})) == [
        "/rows[]/cpu ms",
        "/peak_MB",
        "/a__b",
    ]


def test_the_schema_page_lists_every_file_and_every_place_of_names() -> None:
    page = (ROOT / "docs" / "results.md").read_text()
    missing = [path.name for path in RESULTS.glob("*.json") if f"`{path.name}`" not in page]
    assert missing == []
    assert [name for name in (*NAMES, *METRICS, *NAMES_OF_NAMES) if f"`{name}`" not in page] == []
