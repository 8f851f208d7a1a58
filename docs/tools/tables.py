"""Writes the tables of README.md and the pages of docs from benchmarks/results, between their markers.

python -m docs.tools.tables

A table is a function of `TABLES` that makes its head and rows from JSON; it stands where a page says
`<!-- table: NAME -->`, up to `<!-- end -->`. A test compares them, so that no number drifts from its JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from docs.tools import gpu_tables, teach_tables, world_tables
from docs.tools.comparison import Row, comparison

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
PAGES = (
    ROOT / "README.md",
    *(
        ROOT / "docs" / f"{name}.md"
        for name in ("baselines", "browser", "gpu", "model-card-world", "security", "teach")
    ),
)
COMPARISONS = (
    "table2-synthetic",
    "table2-ladder-synthetic",
    "table2-realset",
    "table2-realset-long",
    "table1-synthetic",
    "three-sources-synthetic",
)


def main() -> None:
    for page in PAGES:
        page.write_text(filled(page.read_text()))


def filled(text: str) -> str:
    """Rewrite every table of a text between its markers. Raises ValueError for a marker that names no
    table."""

    def table(name: str) -> str:
        if name not in TABLES:
            raise ValueError(f"<!-- table: {name} --> names no table: use one of {', '.join(TABLES)}")
        return markdown(*TABLES[name]())

    for name in re.findall(r"<!-- table: (.*?) -->", text):
        text = between(text, f"<!-- table: {name} -->\n", "<!-- end -->", table(name))
    return text


def speed() -> tuple[Row, list[Row]]:
    """Tabulate what the package promises: engines beside eager PyTorch, streams, training."""
    model, training, streaming = read("model"), read("training"), read("streaming")
    rows: list[Row] = []
    for threads, found in model["threads"].items():
        for precision, name in (("fp32", "float32"), ("int8-cpu", "8 bits")):
            engine = found["engines"][f"{precision}, openvino"]
            halves = engine["halves_times_faster_than_eager"]
            stream = engine["stream_times_less_cpu_than_eager"]
            what = f"`{model['model']}` in {name}, OpenVINO, {_threads(threads)}"
            rows.append((f"{what}: a picture with its sound", f"{halves['wall']:.2f} times eager PyTorch"))
            rows.append((f"{what}: a frame of a stream at 30 frames/s", f"{stream:.1f} times less CPU time than eager"))
    frames = streaming["capacity"][0]["frames_per_second"]
    rows.append((f"one stream of `{streaming['bundle']}`, {streaming['engine']}, 1 thread", f"{frames:.0f} frames/s"))
    for threads, of in training["samples_per_second"].items():
        clock = training["over_plain_wall"][threads]["avgn"]["p50"]
        what = f"`avgn train --preset {training['preset']}`, batch {training['batch']}, {_threads(threads)}"
        rows.append((what, f"{of['avgn']['p50']:.2f} samples/s, {clock:.2f} times a plain PyTorch loop"))
    return (f"{training['machine']['cores']} cores ({model['machine']['processor']}), no GPU", "median"), rows


def startup() -> tuple[Row, list[Row]]:
    """Tabulate the command line in fresh processes."""
    record = read("startup")
    commands = record["commands"]
    localize = commands["avgn localize tiny"]
    helps = [values["wall_seconds"]["p50"] for name, values in commands.items() if name.endswith(" --help")]
    rows: list[Row] = [
        ("`avgn localize tiny VIDEO`: process start to first result", _seconds(localize, "first_result_seconds")),
        ("the same, peak memory", f"{localize['peak_mb']['p50']:.0f} MB"),
        ("`avgn --help`", _seconds(commands["avgn --help"], "wall_seconds")),
        ("the slowest help of a command", f"{max(helps):.2f} s"),
    ]
    return (f"{record['machine']['cores']} cores, no GPU", "median"), rows


def hostile() -> tuple[Row, list[Row]]:
    """Tabulate what each attack of `tests/hostile` cost above its command's own cost."""
    rows: list[Row] = []
    for row in read("hostile-files")["attacks"]:
        name = row["attack"].replace("|", "\\|").replace("*", "\\*").replace("<", "&lt;")
        rows.append(
            (name, f"{row['seconds']:.2f} s", f"{row['memory_mb']:.0f} MB", "refused" if row["held"] else "NOT HELD")
        )
    return ("attack", "processor", "memory above idle", "outcome"), rows


def in_browser() -> tuple[Row, list[Row]]:
    """Tabulate the page without a server by bundle and threads."""
    rows: list[Row] = []
    for bundle, found in read("browser")["bundles"].items():
        size = found["size"]
        for threads, row in found["threads"].items():
            rows.append(
                (
                    bundle,
                    threads,
                    f"{row['frames_per_second']:.1f}",
                    f"{row['image_ms']['p50']:.0f} ms",
                    f"{row['first_result_seconds']:.1f} s",
                    f"{row['memory_mb']:.0f} MB",
                    f"{size['code_gzip_kb']:.0f} + {size['wasm_gzip_kb']:.0f} + {size['bundle_kb']:.0f} kB",
                )
            )
    head = ("bundle", "threads", "frames/s", "image half", "first result", "memory", "code + runtime (gzip) + bundle")
    return head, rows


def parity() -> tuple[Row, list[Row]]:
    """Tabulate, frame by frame, what the page and the Python runtime say of the demo's scene."""
    bundles = read("parity")["bundles"]
    rows: list[Row] = []
    for frames in zip(*bundles.values(), strict=True):
        row = [f"{frames[0]['time']:.2f} s"]
        for frame in frames:
            heard = frame["python"]["on_screen"] + [f"({name})" for name in frame["python"]["off_screen"]]
            said = ", ".join(heard) or frame["python"]["state"]
            row += [said if frame["same"] else f"NOT THE SAME: {said}", f"{frame['maps_apart']:.1e}"]
        rows.append(tuple(row))
    head = tuple(part for name in bundles for part in (name, "maps apart"))
    return ("time", *head), rows


def _compared(name: str) -> tuple[Row, list[Row]]:
    return comparison(read(name))


def _predicted(make: Callable[[Any], tuple[Row, list[Row]]]) -> tuple[Row, list[Row]]:
    return make(read("gpu-budget"))


def _of_world(make: Callable[[Any], tuple[Row, list[Row]]]) -> tuple[Row, list[Row]]:
    # a checkout without the measurement says so
    return make(read("world")) if _is_measured("world") else world_tables.UNMEASURED


def _is_measured(name: str) -> bool:
    return (RESULTS / f"{name}.json").is_file()


# a table for a page: its name, and the function that makes head and rows
TABLES: dict[str, Callable[[], tuple[Row, list[Row]]]] = {
    "speed": speed,
    "startup": startup,
    "browser": in_browser,
    "parity": parity,
    "hostile files": hostile,
    **{name: partial(_compared, name) for name in COMPARISONS},
    **{name: partial(_predicted, make) for name, make in gpu_tables.TABLES.items()},
    **{name: partial(_of_world, make) for name, make in world_tables.TABLES.items()},
    "teach": lambda: teach_tables.curve(read("teach")) if _is_measured("teach") else teach_tables.UNMEASURED,
    "gpu measured": lambda: gpu_tables.measured(read("gpu-budget"), read("gpu-h200")),
}


def read(name: str) -> Any:
    """Read the JSON of a benchmark."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def between(text: str, begin: str, end: str, body: str) -> str:
    """Replace what stands between two markers of a text. Raises ValueError if they are missing."""
    if begin not in text or end not in text.split(begin, 1)[1]:
        raise ValueError(f"markers {begin.strip()} and {end} are missing: write both where the table should stand")
    before, rest = text.split(begin, 1)
    return before + begin + body + end + rest.split(end, 1)[1]


def number(value: float | None) -> str:
    """Format with two decimals below ten, one above."""
    return "" if value is None else f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"


def markdown(head: Row, rows: Sequence[Row]) -> str:
    """Format a table in Markdown."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def _seconds(values: dict[str, dict[str, float]], key: str) -> str:
    return f"{values[key]['p50']:.2f} s"


def _threads(count: str) -> str:
    return f"{count} thread" + ("" if count == "1" else "s")


if __name__ == "__main__":
    main()
