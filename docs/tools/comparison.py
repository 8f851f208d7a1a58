"""Tables of docs/baselines.md: what `avgn reproduce ... --json benchmarks/results/NAME.json` measured.

avgn reproduce table2 --data synthetic --parallel 2 --output OUT --json benchmarks/results/table2-synthetic.json
"""

from __future__ import annotations

from typing import Any

Row = tuple[str, ...]
MAPS = {"shared-map": "one", "matched": "unnamed, matched", "per class": "a class"}


def comparison(outcome: dict[str, Any], protocol: str = "adaptive") -> tuple[Row, list[Row]]:
    """Tabulate an outcome's first set under one protocol, classes given: mean, deviation between seeds where
    there are several, and the 95 % interval; floor (a blob in the centre) and ceiling below.
    """
    (found,) = outcome["sets"]
    metrics = found["metrics"]
    rows: list[Row] = []
    limits: dict[str, Any] = {}
    for row in found["rows"]:
        if row["protocol"] != protocol or row["classes"] != "given":
            continue
        rows.append((row["row"], MAPS[row["maps"]], str(len(row["seeds"])), *(_cell(row, name) for name in metrics)))
        limits = row
    for bound, name in (("floor", "centre blob (floor)"), ("ceiling", "best map on this grid (ceiling)")):
        rows.append((name, "", "", *(f"{limits[bound][metric]:.1f}" for metric in metrics)))
    return ("system", "maps", "seeds", *metrics), rows


def _cell(row: dict[str, Any], metric: str) -> str:
    value, deviation, interval = row["values"][metric], row["std"][metric], row["ci95"][metric]
    if value is None:
        return "-"
    text = f"{value:.1f}" + (f" ± {deviation:.1f}" if deviation is not None else "")
    return text + (f" [{interval[0]:.1f}, {interval[1]:.1f}]" if interval else "")
