"""Measures what taught classes reach beside built-in ones, on scenes with their truth.

python -m benchmarks.teach --examples FOLDER --scenes MANIFEST --again violin,harp,... --new sitar,tuba,...
    [--counts 1,3,5,10,20] [--plot docs/teach.png] --output benchmarks/results/teach.json

FOLDER holds a folder of pictures and sounds for each class, none of which is in the scenes. Classes `--again` are taken
out of the bundle first and taught back, `--new` ones it never had. For each count, as many pictures and sounds of every
class are used, drawn with a seed; all classes are taught at once, and one class alone is timed in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from avgn.evaluation import evaluate
from avgn.evaluation.inference import predict
from avgn.machine import measured_on
from avgn.runtime.joint import judge
from avgn.runtime.localizer import Localizer
from avgn.runtime.manifest import read_manifest
from avgn.teach import Changes, give_lesson
from avgn.teach.examples import SOUNDS
from avgn.teach.marks import PICTURES

TIMED = 10
TIMING = """
import sys, time
begin = time.perf_counter()
from avgn.teach import teach
teach(sys.argv[1], {"it": sys.argv[2]})
assert "torch" not in sys.modules
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(time.perf_counter() - begin, float(peak.split()[1]) * 1024 / 1e6)
"""


@dataclass(kw_only=True)
class Count:
    """What was said of classes over all scenes."""

    right: int = 0
    wrong: int = 0
    missed: int = 0

    def f1(self) -> float:
        return round(200 * self.right / max(1, 2 * self.right + self.wrong + self.missed), 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--bundle", default="world")
    parser.add_argument("--examples", type=Path, required=True)
    parser.add_argument("--scenes", type=Path, required=True, help="manifest")
    parser.add_argument("--again", required=True, help="comma-separated")
    parser.add_argument("--new", required=True, help="comma-separated")
    parser.add_argument("--counts", default="1,3,5,10,20")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    groups = {"again": args.again.split(","), "new": args.new.split(",")}
    record: dict[str, Any] = {"machine": measured_on(), "bundle": Path(args.bundle).name, **groups, "counts": []}
    with tempfile.TemporaryDirectory() as scratch:
        record["built_in"] = measure(args.bundle, args.scenes, groups, Path(scratch))
        print(json.dumps(record["built_in"]), file=sys.stderr, flush=True)
        for count in [int(text) for text in args.counts.split(",")]:
            folders = {
                label: choose(args.examples / label, Path(scratch) / f"{count}" / label, count, args.seed)
                for label in (*groups["again"], *groups["new"])
            }
            lesson = give_lesson(
                args.bundle,
                Changes(classes=folders, remove=groups["again"]),
                Path(scratch) / f"bundle{count}",
            )
            row = {"examples": count, "seconds": lesson.report["seconds"]}
            row |= measure(lesson.bundle.path, args.scenes, groups, Path(scratch))
            row["left_out"] = {
                label: {name: facts[name] for name in ("recall", "precision", "heard", "seen")}
                for label, facts in lesson.report["classes"].items()
            }
            if count == TIMED:
                record["one_class"] = timed(args.bundle, folders[groups["new"][0]])
            record["counts"].append(row)
            print(json.dumps(row), file=sys.stderr, flush=True)
            # what was measured so far is kept, whatever comes
            record["counts"].sort(key=lambda row: row["examples"])
            if args.output:
                args.output.write_text(json.dumps(record, indent=1) + "\n")
    if args.plot:
        plot(record, args.plot)


def choose(folder: Path, target: Path, count: int, seed: int) -> Path:
    """Link `count` pictures and as many sounds of a class into a new folder."""
    target.mkdir(parents=True)
    random = np.random.default_rng(seed)
    for kinds in (PICTURES, SOUNDS):
        files = sorted(file for file in folder.iterdir() if file.suffix.lower() in kinds)
        # of any count, the first ones of the same order
        for at in random.permutation(len(files))[:count]:
            (target / files[at].name).symlink_to(files[at].resolve())
    return target


def measure(bundle: str | Path, scenes: Path, groups: dict[str, list[str]], scratch: Path) -> dict[str, Any]:
    """Score a bundle on the scenes: taught classes of each group and all others ("rest")."""
    engine = Localizer.load(bundle, "onnxruntime", threads=1).engine
    labels = engine.info.classes
    manifest = read_manifest(known_only(scenes, labels, scratch))
    results = evaluate(engine, manifest, ["adaptive"], ["given", "predicted"], bootstrap=0)
    given = next(result for result in results if result["classes"] == "given")["per_class"]
    predictions = predict(engine, manifest)
    counts = {label: Count() for label in labels}
    assert engine.info.joint is not None
    for row, item in enumerate(predictions.items):
        found = predictions
        verdict = judge(engine.info.joint, found.audio_prob[row], found.visual_prob[row], found.maps[row])
        said = {labels[k] for k in np.flatnonzero(verdict.claimed)}
        true = {source.label for source in item.sources if source.sounding and source.on_screen}
        for label in said | true:
            counts[label].right += label in said and label in true
            counts[label].wrong += label in said and label not in true
            counts[label].missed += label not in said
    taught = {label for group in groups.values() for label in group}
    parts = groups | {"rest": [label for label in labels if label not in taught]}
    shown: dict[str, Any] = {}
    for name, group in parts.items():
        there = [label for label in group if label in labels]
        total = Count()
        for label in there:
            total.right += counts[label].right
            total.wrong += counts[label].wrong
            total.missed += counts[label].missed
        rows = [given[label] for label in there if label in given]
        sources = sum(row["sources"] for row in rows)
        if sources:
            shown[name] = {
                "sources": int(sources),
                "ciou": round(sum(row["sources"] * row["IoU@0.3"] for row in rows) / sources, 1),
                "class_f1": total.f1(),
                "false_sources_per_image": round(total.wrong / len(predictions.items), 3),
            }
    shown["per_class"] = {
        label: {"ciou": round(given[label]["IoU@0.3"], 1), "class_f1": counts[label].f1()}
        for label in sorted(taught)
        if label in given
    }
    shown["false_sources_per_image"] = round(sum(count.wrong for count in counts.values()) / len(predictions.items), 3)
    return shown


def known_only(scenes: Path, labels: Sequence[str], scratch: Path) -> Path:
    """Write the manifest without the sources that a bundle has no name for, for its class list."""
    head, *lines = scenes.read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    base = scenes.resolve().parent
    for row in rows:
        row["sources"] = [source for source in row["sources"] if source["label"] in labels]
        for source in row["sources"]:
            if source.get("mask"):
                source["mask"] = str(base / source["mask"])
        for name in ("frame", "audio"):
            row[name] = str(base / row[name])
    path = scratch / "scenes.jsonl"
    header = json.loads(head) | {"classes": list(labels)}
    path.write_text("\n".join(json.dumps(row) for row in [header, *rows]) + "\n", encoding="utf-8")
    return path


def timed(bundle: str, folder: Path) -> dict[str, float]:
    """Teach one class in a process of its own: seconds with all imports, and megabytes at the most."""
    done = subprocess.run(
        [sys.executable, "-c", TIMING, str(bundle), str(folder)], capture_output=True, text=True, check=True
    )
    seconds, megabytes = done.stdout.split()[-2:]
    return {"seconds": round(float(seconds), 1), "megabytes": round(float(megabytes), 0)}


def plot(record: dict[str, Any], path: Path) -> None:
    """Draw what classes reach over the number of their examples, the built-in ones as lines."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.4), sharex=True)
    colours = {"again": "tab:blue", "new": "tab:orange"}
    names = {"again": "taken out and taught back", "new": "never known before"}
    for axis, (measure_name, title) in zip(axes, {"ciou": "CIoU@0.3", "class_f1": "class F1"}.items(), strict=True):
        for group, colour in colours.items():
            rows = [row for row in record["counts"] if group in row]
            axis.plot(
                [row["examples"] for row in rows],
                [row[group][measure_name] for row in rows],
                "o-",
                color=colour,
                label=names[group],
            )
        axis.axhline(record["built_in"]["again"][measure_name], color="tab:blue", ls="--", label="the same, built in")
        axis.set_xscale("log")
        counts = [row["examples"] for row in record["counts"]]
        axis.set_xticks(counts, [str(count) for count in counts])
        axis.minorticks_off()
        axis.set_ylim(0, 100)
        axis.set_xlabel("pictures and sounds of each class")
        axis.set_title(title)
        axis.grid(alpha=0.3)
    axes[0].legend(loc="lower right", fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
