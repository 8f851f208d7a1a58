"""Makes the tables of docs/model-card-world.md from what python -m benchmarks.world measured."""

from __future__ import annotations

from typing import Any

from docs.tools.comparison import Row

UNMEASURED: tuple[Row, list[Row]] = (("", ""), [("not measured yet: `python -m benchmarks.world`", "")])


def reached(record: dict[str, Any]) -> tuple[Row, list[Row]]:
    """Tabulate the whole: scenes (means over the manifests), which sound decides, noise, talking, time, size."""
    rows: list[Row] = [
        ("scenes", f"{sum(each['items'] for each in record['scenes'])}", ""),
        *_scores(record, "given", "CIoU@0.3", "CAP"),
        *_scores(record, "predicted", "F1@0.3", "false sources per image"),
    ]
    decides = "sound decides: the sounding one of two visible things scores higher, percent of pairs"
    rows.append((decides, f"{record['sound_decides']['percent']:.1f}", "50"))
    noise = record["no_source_in_noise_percent"]
    rows.append(("frames without a source in silence, noise and hum, percent", f"{noise['all']:.1f}", ""))
    least = min((name for name in noise if name not in ("all", "named")), key=lambda name: noise[name])
    rows.append((f"the same, the worst of them ({least}), percent", f"{noise[least]:.1f}", ""))
    for clip in record["talking"]:
        rows.append((f"seconds of `{clip['clip']}` with speech named, percent", f"{clip['speech_percent']:.1f}", ""))
        if "faces" in clip:
            faces = clip["faces"]
            rows.append(
                (
                    f"of its {faces['speaking_seconds']} speaking seconds, with the peak inside a face, percent",
                    f"{faces['inside_a_face_percent']:.1f}",
                    "",
                )
            )
    milliseconds = record["one_core_ms"]
    rows.append(("image half, one core, ms", f"{milliseconds['image']['p50']:.1f}", ""))
    rows.append(("audio half, each hop of 0.2 s, one core, ms", f"{milliseconds['audio hop']['p50']:.1f}", ""))
    rows.append(("start to first result, s", f"{record['start']['seconds']:.2f}", ""))
    rows.append(("memory at the first result, MB", f"{record['start']['megabytes']:.0f}", ""))
    rows.append(("bundle, MB", f"{record['megabytes']:.1f}", ""))
    machine = record["machine"]
    return (f"{machine['processor']}, {machine['cores']} cores, {record['backend']}", "", "floor"), rows


def classes(record: dict[str, Any]) -> tuple[Row, list[Row]]:
    """Tabulate what each class reaches, and what is taken for it most often."""
    taken: dict[str, list[str]] = {}
    for pair in record["confused"]:
        missed, _, wrong = pair.partition(" as ")
        taken.setdefault(missed, []).append(wrong)
    rows: list[Row] = []
    for label, found in record["per_class"].items():
        decides = found.get("sound_decides")
        rows.append(
            (
                label,
                f"{found['sources']}",
                f"{found['given']:.0f}",
                f"{found['predicted']:.0f}",
                "" if decides is None else f"{decides:.0f}",
                ", ".join(taken.get(label, ())),
            )
        )
    head = ("class", "sources", "localized, classes given", "predicted", "its sound decides", "most often taken for")
    return head, rows


TABLES = {"world": reached, "world classes": classes}


def _scores(record: dict[str, Any], mode: str, *names: str) -> list[Row]:
    rows: list[Row] = []
    for name in names:
        values = [each[mode]["metrics"][name] for each in record["scenes"]]
        floors = [each[mode]["floor"][name] for each in record["scenes"] if name in each[mode]["floor"]]
        floor = f"{sum(floors) / len(floors):.1f}" if floors else ""
        mean = sum(values) / len(values)
        rows.append((f"adaptive, classes {mode}: {name}", f"{mean:.2f}" if mean < 1 else f"{mean:.1f}", floor))
    return rows
