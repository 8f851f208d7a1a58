"""Writes the tables of docs/model-card-tiny.md from benchmarks/results, between its markers.

The table of times stays as it is where `avgn benchmark` has not written benchmark.json.

python -m benchmarks.card
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
CARD = ROOT / "docs" / "model-card-tiny.md"
STILLS = (
    "CAP",
    "CIoU@0.3",
    "CIoU@0.5",
    "AUC",
    "F1@0.3",
    "false sources per image",
    "class F1 audio",
    "class F1 visual",
)
VIDEOS = ("recall", "precision", "peak in mask", "peak in box", "false sources per minute", "onset error (s)")


def main() -> None:
    text = CARD.read_text()
    for name, table in (
        ("stills", _stills),
        ("videos", _videos),
        ("noise", _noise),
        ("gates", _gates),
        *((("speed", _speed),) if (RESULTS / "benchmark.json").is_file() else ()),
    ):
        begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        before, rest = text.split(begin)
        text = before + begin + table() + end + rest.split(end, 1)[1]
    CARD.write_text(text)


def _stills() -> str:
    given, predicted = (_find(_read("quality")["stills"], "adaptive", classes) for classes in ("given", "predicted"))
    rows = [
        (
            name,
            _value(given, name),
            _value(predicted, name),
            _value(given, name, "floor"),
            _value(given, name, "ceiling"),
        )
        for name in STILLS
    ]
    return _table(("adaptive, percent", "classes given", "classes predicted", "floor", "ceiling"), rows)


def _videos() -> str:
    record = _find(_read("quality")["videos"], "video", "predicted")
    steady = record["steady"]
    return _table(
        ("20 unseen videos", "all frames", "more than a window after a change", "floor"),
        [(name, _value(record, name), _number(steady.get(name)), _value(record, name, "floor")) for name in VIDEOS],
    )


def _noise() -> str:
    quality = _read("quality")
    rows = [("sound decides: the sounding object is hotter, percent", f"{quality['sound decides']['hotter']:.1f}")]
    rows.append(("swapping the sounds swaps the answer, percent", f"{quality['sound decides']['swapped']:.1f}"))
    rows.extend(
        (f"frames without a source under {name}, percent", f"{share:.1f}")
        for name, share in quality["frames without a source, percent"].items()
    )
    return _table(("", ""), rows)


def _gates() -> str:
    record = _read("gates")
    rows = []
    for gate, found in record["gates"].items():
        given = _find(found["adaptive"], "adaptive", "given")
        hotter = found["own object hotter, percent"]["hotter"]
        rows.append((f"`{gate}`", _value(given, "CIoU@0.3"), _value(given, "CAP"), f"{hotter:.1f}"))
    return _table((f"`visual_gate`, {record['steps']} steps", "CIoU@0.3", "CAP", "own object hotter, percent"), rows)


def _speed() -> str:
    record = _read("benchmark")
    single = [row for row in record["rows"] if (row["backend"], row["batch"]) == ("onnxruntime", 1)]
    rows = [
        (f"{half} half, {row['threads']} threads, ms (p50)", f"{row['wall_ms'][half]['p50']:.2f}")
        for row in single
        for half in ("image", "audio")
    ]
    file = next(one for one in record["stages"] if one["backend"] == "onnxruntime")
    rows.append(("640x360 file to overlay, frames/s", f"{file['pipeline']['frames_per_second']['p50']:.0f}"))
    machine = record["machine"]
    return _table((f"{machine['processor']}, {machine['usable_cores']} cores, ONNX Runtime", ""), rows)


def _read(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text())


def _find(results: list[dict[str, Any]], protocol: str, classes: str) -> dict[str, Any]:
    return next(one for one in results if one["protocol"] == protocol and one["classes"] == classes)


def _value(record: dict[str, Any], name: str, kind: str = "metrics") -> str:
    return _number(record[kind].get(name))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


if __name__ == "__main__":
    main()
