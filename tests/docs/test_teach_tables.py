"""The table of docs/teach.md, from a record as benchmarks.teach writes it."""

from __future__ import annotations

from docs.tools import teach_tables

SCORES = {"ciou": 81.61, "class_f1": 72.7}


def test_the_built_in_classes_come_first() -> None:
    record = {
        "built_in": {"again": SCORES, "rest": SCORES, "false_sources_per_image": 0.21},
        "counts": [{"examples": 3, "again": SCORES, "new": SCORES, "rest": SCORES, "false_sources_per_image": 0.184}],
    }
    head, rows = teach_tables.curve(record)
    assert rows[0] == ("built in", "81.6", "72.7", "", "", "81.6", "72.7", "0.21")
    assert rows[1] == ("3", "81.6", "72.7", "81.6", "72.7", "81.6", "72.7", "0.18")
    assert all(len(row) == len(head) for row in rows)
