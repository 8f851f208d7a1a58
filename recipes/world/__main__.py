"""Makes avgn/world/refit.npz: python -m recipes.world --output runs/world-audio [--ship]

Downloads 0.2 GB of Debian packages (or takes them from OUTPUT/packages), plays the soundfonts, mixes, fits.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
import wave
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avgn.encoders.packages import YAMNET, read_onnx_numbers
from avgn.encoders.yamnet import RATE, rename
from avgn.machine import usable_cores
from avgn.runtime.audio import resample
from avgn.runtime.errors import FailureError, InputError
from avgn.runtime.reading import read_wav
from avgn.world import refit as fitted
from avgn.world.classes import world_classes
from avgn.world.refit import Refit, write_refit
from avgn.world.weights import world_config
from recipes.world.encode import make_examples
from recipes.world.fetch import fetch, unpacked
from recipes.world.fit import FitConfig, fit_rows, published_evidence
from recipes.world.mix import Plan, Waveforms, trim
from recipes.world.phrases import LONG_TAKES, PHRASES, SYNTH, SYNTH_VERSION, compose, open_synth, play, seed_of
from recipes.world.programs import programs_of
from recipes.world.sources import FONTS, RECORDINGS

PLANS = (
    Plan(8000, seed=911),
    Plan(1000, seed=903, augment=False),
    Plan(800, seed=921, noise_alone=True),
)
# seconds of a recording that are used, and sounds that a class must have for its rows to be fitted
LONGEST, ENOUGH = 30.0, 10


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=usable_cores(), help="processes that mix, default one a core")
    parser.add_argument("--ship", action="store_true", help="copy the result into the package")
    args = parser.parse_args()
    begin = time.time()

    def report(message: str) -> None:
        print(f"{time.time() - begin:5.0f} s  {message}", file=sys.stderr)

    try:
        made = make(args.output, args.workers, report)
    except (InputError, FailureError) as error:
        print(error, file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    if args.ship:
        shutil.copy(made, Path(fitted.__file__).parent / fitted.NAME)
    print(made)
    return 0


def make(output: Path, workers: int, report: Callable[[str], None]) -> Path:
    """Fetch, play, mix and fit under `output`; return the path of refit.npz. Raises InputError for what is missing."""
    # what is missing is said before anything is downloaded
    open_synth()
    _, rows, biases = rename(read_onnx_numbers(YAMNET))
    fetch(output, report)
    waveforms, table = gather(output, report)
    (output / "licences.json").write_text(json.dumps(table, indent=1, ensure_ascii=False) + "\n")
    classes = tuple(world_classes())
    examples = make_examples(waveforms, PLANS, classes, world_config(classes).window_samples, report, workers)
    chosen = [label for label in classes if enough(label, table)]
    report(f"fitting {len(chosen)} classes on {len(examples.heard)} windows")
    evidence = published_evidence(examples.features, rows, biases, chosen)
    heard = examples.heard[:, [classes.index(label) for label in chosen]]
    config = FitConfig()
    added, bias = fit_rows(examples.features, evidence, heard, config)
    result = Refit(
        classes=tuple(chosen),
        rows=added.astype(np.float16),
        bias=bias,
        provenance={
            "made_with": "python -m recipes.world",
            "published": f"{YAMNET.package} {YAMNET.version}",
            "recordings": summarize(table),
            "mixtures": [vars(plan) for plan in PLANS],
            "fit": config.facts(),
        },
    )
    write_refit(output / fitted.NAME, result)
    report("done")
    return output / fitted.NAME


def gather(folder: Path, report: Callable[[str], None]) -> tuple[Waveforms, list[dict[str, Any]]]:
    """Gather all sounds at RATE by label, and a row for each: file, label, package, version, licence, author."""
    waveforms: Waveforms = {}
    table = []
    for each in RECORDINGS:
        path = unpacked(folder, each.package, each.path)
        samples, rate = read_wav(path)
        waveforms.setdefault(each.label, []).append(trim(resample(samples[: int(LONGEST * rate)], rate, RATE)))
        table.append(_row(each.label, path.relative_to(folder), each.package, each.author))
    for font, (package, inside) in FONTS.items():
        report(f"playing {font}")
        for label, name, waveform in play_all(font, unpacked(folder, package, inside)):
            file = folder / "phrases" / label.replace(" ", "_") / f"{font}_{name}.wav"
            _write(file, waveform)
            waveforms.setdefault(label, []).append(trim(waveform))
            table.append(_row(label, file.relative_to(folder), package, package.author))
    return waveforms, table


def play_all(font: str, path: Path) -> Iterator[tuple[str, str, NDArray[np.float32]]]:
    """Play every phrase on a font: yields its label, name and sound."""
    synth = open_synth()
    number = synth.sfload(str(path))
    for label, parts in programs_of(font).items():
        for index, part in enumerate(parts):
            for take in range(LONG_TAKES if part.style == "long" else PHRASES):
                notes = compose(seed_of(font, label, part, take), part.low, part.high, part.style)
                waveform = play(synth, number, part, notes, RATE)
                if waveform is not None:
                    yield label, f"{part.bank}_{part.program}_{index}_{take}", waveform


def enough(label: str, table: list[dict[str, Any]]) -> bool:
    """Return whether a class has enough sounds of its own; sound effects don't count."""
    return sum(row["label"] == label and "/effects_" not in row["file"] for row in table) >= ENOUGH


def summarize(table: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Count the files of each package and author, for the record of the fit."""
    keys = ("package", "version", "licence", "author")
    counts: dict[tuple[str, ...], int] = {}
    for row in table:
        key = tuple(row[name] for name in keys)
        counts[key] = counts.get(key, 0) + 1
    played = {"played_with": f"{SYNTH} {SYNTH_VERSION}"}
    fonts = {owner.name for owner, _ in FONTS.values()}
    return [
        dict(zip(keys, key, strict=True)) | {"files": count} | (played if key[0] in fonts else {})
        for key, count in counts.items()
    ]


def _row(label: str, file: Path, package: Any, author: str) -> dict[str, Any]:
    facts = {"package": package.name, "version": package.version, "licence": package.licence, "author": author}
    return {"file": file.as_posix(), "label": label} | facts


def _write(path: Path, waveform: NDArray[np.float32]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(np.round(waveform * 32767).astype("<i2").tobytes())


if __name__ == "__main__":
    sys.exit(main())
