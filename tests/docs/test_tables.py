"""Tables of README and of the docs say what the JSON of the benchmarks says."""

from __future__ import annotations

import re

import pytest

from docs.tools import tables


def test_the_tables_of_the_pages_are_those_of_the_json() -> None:
    named = set()
    for page in tables.PAGES:
        text = page.read_text()
        named |= set(re.findall("<!-- table: (.*?) -->", text))
        assert tables.filled(text) == text
    assert {"speed", *tables.COMPARISONS} <= named


def test_a_table_is_written_between_its_markers_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "TABLES", {"one": lambda: (("a", "b"), [("1", "2")])})
    text = "before\n<!-- table: one -->\nold\n<!-- end -->\nafter <!-- end -->\n"
    made = "before\n<!-- table: one -->\n| a | b |\n| --- | --- |\n| 1 | 2 |\n<!-- end -->\nafter <!-- end -->\n"
    assert tables.filled(text) == made
    with pytest.raises(ValueError, match="names no table: use one of one"):
        tables.filled("<!-- table: two -->\n<!-- end -->")
    with pytest.raises(ValueError, match="are missing"):
        tables.filled("<!-- table: one -->\n")
