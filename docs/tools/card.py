"""Writes the tables of docs/model-card-tiny.md from benchmarks/results, between its markers.

The table of times stays as it is where `avgn benchmark` has not written benchmark.json.

python -m docs.tools.card
"""

from __future__ import annotations

from typing import Any

from docs.tools.tables import RESULTS, ROOT, between, markdown, number, read

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
        text = between(text, f"<!-- {name} -->\n", f"<!-- /{name} -->", table())
    CARD.write_text(text)


def _stills() -> str:
    given, predicted = (_find(read("quality")["stills"], "adaptive", classes) for classes in ("given", "predicted"))
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
    return markdown(("adaptive, percent", "classes given", "classes predicted", "floor", "ceiling"), rows)


def _videos() -> str:
    record = _find(read("quality")["videos"], "video", "predicted")
    steady = record["steady"]
    return markdown(
        ("20 unseen videos", "all frames", "more than a window after a change", "floor"),
        [(name, _value(record, name), number(steady.get(name)), _value(record, name, "floor")) for name in VIDEOS],
    )


def _noise() -> str:
    quality = read("quality")
    rows = [("sound decides: the sounding object is hotter, percent", f"{quality['sound_decides']['hotter']:.1f}")]
    rows.append(("swapping the sounds swaps the answer, percent", f"{quality['sound_decides']['swapped']:.1f}"))
    rows.extend(
        (f"frames without a source under {name}, percent", f"{share:.1f}")
        for name, share in quality["frames_without_source_percent"].items()
    )
    return markdown(("", ""), rows)


def _gates() -> str:
    record = read("gates")
    rows = []
    for gate, found in record["gates"].items():
        given = _find(found["adaptive"], "adaptive", "given")
        hotter = found["own_object_hotter"]["hotter"]
        rows.append((f"`{gate}`", _value(given, "CIoU@0.3"), _value(given, "CAP"), f"{hotter:.1f}"))
    return markdown((f"`visual_gate`, {record['steps']} steps", "CIoU@0.3", "CAP", "own object hotter, percent"), rows)


def _speed() -> str:
    record = read("benchmark")
    single = [row for row in record["rows"] if (row["backend"], row["batch"]) == ("onnxruntime", 1)]
    rows = [
        (f"{half} half, {row['threads']} threads, ms (p50)", f"{row['wall_ms'][half]['p50']:.2f}")
        for row in single
        for half in ("image", "audio")
    ]
    file = next(one for one in record["stages"] if one["backend"] == "onnxruntime")
    rows.append(("640x360 file to overlay, frames/s", f"{file['pipeline']['frames_per_second']['p50']:.0f}"))
    machine = record["machine"]
    return markdown((f"{machine['processor']}, {machine['usable_cores']} cores, ONNX Runtime", ""), rows)


def _find(results: list[dict[str, Any]], protocol: str, classes: str) -> dict[str, Any]:
    return next(one for one in results if one["protocol"] == protocol and one["classes"] == classes)


def _value(record: dict[str, Any], name: str, kind: str = "metrics") -> str:
    return number(record[kind].get(name))


if __name__ == "__main__":
    main()
