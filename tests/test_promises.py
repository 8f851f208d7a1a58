"""Numbers that the pages promise are those of the code: each sentence is looked up, and so is what it speaks of."""

from __future__ import annotations

import importlib
import inspect
import json
import math
import re
from collections.abc import Callable
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest

from avgn.config import Config, preset
from avgn.systems import AVGN, RELEASED, SYSTEMS, find_system
from recipes import tiny

ROOT = Path(__file__).resolve().parents[1]


def constant(module: str, name: str) -> Callable[[], Any]:
    return lambda: getattr(importlib.import_module(f"avgn.{module}"), name)


def default(module: str, path: str, argument: str) -> Callable[[], Any]:
    """The default of an argument of a function or method."""

    def find() -> Any:
        found: Any = importlib.import_module(f"avgn.{module}")
        for name in path.split("."):
            found = getattr(found, name)
        return inspect.signature(found).parameters[argument].default

    return find


# page, sentence, what the code holds, what it must be
PROMISES: list[tuple[str, str, Callable[[], Any], Any]] = [
    ("live", "at most 0.25\nseconds", default("runtime.multi", "MultiStream.open", "max_wait"), 0.25),
    ("live", "(up to 8, after at most 4 ms)", default("runtime.multi", "MultiStream", "max_batch"), 8),
    ("live", "(up to 8, after at most 4 ms)", default("runtime.multi", "MultiStream", "max_delay"), 0.004),
    ("live", "ends after five attempts", constant("runtime.live_run", "ATTEMPTS"), 5),
    ("live", "gives nothing for two seconds is opened again", constant("runtime.sources.devices", "DEAF"), 2.0),
    ("files", "A stretch of more than 60 s without picture and", constant("runtime.limits", "MAX_GAP"), 60.0),
    ("files", "0.3 s longer than the pictures", constant("runtime.media", "PADDING"), 0.3),
    ("files", "with the last picture, ten times a second", constant("runtime.media", "HELD_FPS"), 10.0),
    ("files", "a correlation below -0.9", constant("runtime.audio", "DOWNMIX_INVERSE"), 0.9),
    ("files", "blocks of 4096 samples", constant("runtime.audio", "DOWNMIX_BLOCK"), 4096),
    ("files", "| sample rate | 1,000 to 768,000 Hz |", constant("runtime.limits", "MIN_RATE"), 1000),
    ("files", "| sample rate | 1,000 to 768,000 Hz |", constant("runtime.limits", "MAX_RATE"), 768_000),
    ("files", "| channels | 64 |", constant("runtime.limits", "MAX_CHANNELS"), 64),
    ("files", "| a video's picture | 40 million pixels", constant("runtime.limits", "MAX_PIXELS"), 40_000_000),
    ("files", "| a still | 128 million pixels", constant("runtime.limits", "MAX_STILL_PIXELS"), 128_000_000),
    ("files", "| width of a pixel that is believed | 1/8 to 8", constant("runtime.limits", "MAX_PIXEL_ASPECT"), 8.0),
    ("outputs", "`NAME.<ten random digits>.partial`", constant("runtime.outputs.names", "ENDING"), ".partial"),
    ("outputs", "`NAME.<ten random digits>.partial`", constant("runtime.outputs.names", "TOKEN_BYTES"), 5),
    ("outputs", "written in fragments of a second", constant("runtime.sinks.containers", "FRAGMENT_SECONDS"), 1),
    (
        "collections",
        "actors of a Ray cluster that take half a CPU",
        constant("runtime.collections.ray_cluster", "CPUS_PER_ACTOR"),
        0.5,
    ),
    ("export", "The first `--samples` (64) items", constant("export.bundle", "SAMPLES"), 64),
    ("export", "by more than `--max-drop` (1 point)", constant("export.bundle", "MAX_DROP"), 1.0),
    ("export", "at most 10 % of the multiply-adds", constant("export.sensitivity", "FLOAT_SHARE"), 0.10),
    ("export", "no activation may exceed 6000", constant("export.mixed", "MAX_ACTIVATION"), 6000.0),
    ("export", "on 16 rendered scenes of three picture sizes", lambda: sum(constant("export.verify", "BATCHES")()), 16),
    ("export", "of three picture sizes", lambda: len(set(constant("export.verify", "GROWTH")())), 3),
    (
        "export",
        "may differ by 1e-5 anywhere",
        lambda: constant("runtime.contract", "TOLERANCES")()["fp32"].max_abs,
        1e-5,
    ),
    (
        "export",
        "fp16 must keep a cosine of 0.9995",
        lambda: constant("runtime.contract", "TOLERANCES")()["fp16"].cosine,
        ("cosine_maps", 0.9995),
    ),
    (
        "export",
        "one of 0.98 in the mean",
        lambda: constant("runtime.contract", "TOLERANCES")()["int8-cpu"].cosine,
        ("cosine_maps_mean", 0.98),
    ),
    ("export", "(engines: 32 to\n1024 pixels", constant("export.bundle", "SIDES"), (32, 1024)),
    (
        "evaluation",
        "By default `source-wise`, `frame-wise` and `adaptive` are run",
        constant("evaluation.evaluate", "DEFAULT_PROTOCOLS"),
        ("source-wise", "frame-wise", "adaptive"),
    ),
    (
        "evaluation",
        "with classes given and predicted",
        constant("evaluation.protocols", "CLASS_MODES"),
        ("given", "predicted"),
    ),
    (
        "evaluation",
        "f = .1 solo, .5 synthetic, .2 duet",
        lambda: [
            constant("evaluation.protocols", name)()
            for name in ("SOLO_THRESHOLD", "SYNTHETIC_THRESHOLD", "DUET_THRESHOLD")
        ],
        [0.1, 0.5, 0.2],
    ),
    (
        "evaluation",
        "is mixed in with weight 0.6",
        lambda: constant("evaluation.protocols", "PROTOCOLS")()["ezvsl"].alpha,
        0.4,
    ),
    ("evaluation", "pixels at most 0.2", constant("evaluation.metrics", "FLAT_LEVEL"), 0.2),
    ("training", "`canvas` (the default)", lambda: preset("avgn-resnet18").pair_input, "canvas"),
    (
        "data",
        "`.jpg`, `.jpeg`, `.png`, `.webp` or `.bmp` (of several the first in this order)",
        constant("importers.files", "FRAME_SUFFIXES"),
        (".jpg", ".jpeg", ".png", ".webp", ".bmp"),
    ),
    ("data", "the sound never passes -60 dBFS", constant("importers.silence", "QUIET_AMPLITUDE"), 0.001),
    ("data", "more than a tenth of the boxes", constant("inspection.boxes", "SUSPICIOUS_SHARE"), 0.1),
    ("data", "less than a thousandth of it", constant("inspection.boxes", "TINY_SHARE"), 0.001),
    ("data", "more than 30 % ending", constant("inspection.boxes", "CORNER_SHARE"), 0.3),
    (
        "method",
        "windows of 512 samples (periodic Hann) every 220",
        lambda: [constant("frontend", name)() for name in ("N_FFT", "HOP_PAPER")],
        [512, 220],
    ),
    ("method", "ln(|X|^2 + 1e-7)", constant("frontend", "LOG_OFFSET"), 1e-7),
    ("method", "drop-path 0.1", lambda: preset("avgn-resnet18").drop_path, 0.1),
    ("method", "linear layers start truncated-normal 0.02", constant("transformer", "INIT_STD"), 0.02),
    (
        "method",
        '`avgn-resnet18` keeps the paper\'s choice; `avgn-tiny` uses `"token"`',
        lambda: [preset(name).visual_gate for name in ("avgn-resnet18", "avgn-tiny")],
        ["grouped", "token"],
    ),
    (
        "method",
        "so that a 160x160 picture gives a 10x10 grid",
        lambda: preset("avgn-tiny", image_size=(160, 160), visual_stride=16).grid,
        (10, 10),
    ),
]


@pytest.mark.parametrize(
    ("page", "sentence", "found", "expected"), PROMISES, ids=[f"{row[0]}: {row[1][:40]}" for row in PROMISES]
)
def test_a_page_says_what_the_code_does(page: str, sentence: str, found: Callable[[], Any], expected: Any) -> None:
    assert sentence in (ROOT / "docs" / f"{page}.md").read_text(), "the page says something else now: mend both"
    assert found() == expected


def attacks(name: str) -> tuple[int, int, int]:
    """What an honest visitor kept (percent), the longest p95 (ms) and the most growth (MB) under any attack."""
    kinds = results(name)["kinds"]
    grown = [kind["memory_mb"]["peak"] - kind["memory_mb"]["before"] for kind in kinds]
    return (
        math.floor(min(kind["results_percent"] for kind in kinds)),
        math.ceil(max(kind["p95_ms"] for kind in kinds)),
        math.ceil(max(grown)),
    )


def results(name: str) -> Any:
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())


def helps() -> list[float]:
    """Seconds of the commands' help texts, from the fastest on."""
    commands = results("startup")["commands"].items()
    return sorted(told["wall_seconds"]["p50"] for name, told in commands if name.endswith(" --help"))


def loss_memory(cells: int, form: str) -> float:
    rows = [row for row in results("training")["loss_memory"] if (row["shape"]["B"], row["shape"]["P"]) == (64, cells)]
    return float(rows[0][form])


def host_times(call: str, class_gates: bool) -> tuple[float, ...]:
    """Microseconds of the host before and after, of a call and of one with its backward."""
    rows = [row for row in results("kernels-host")["rows"] if (row["call"], row["class_gates"]) == (call, class_gates)]
    assert [row["backward"] for row in rows] == [False, True]
    return tuple(row[state] for row in rows for state in ("before_us", "after_us"))


# page, sentence with places for numbers, the numbers as the JSON of a benchmark has them
MEASURED: list[tuple[str, str, Callable[[], tuple[Any, ...]]]] = [
    (
        "live",
        "at least {} % of its results with a p95 of at most {} ms, and the server grew by at most {} MB",
        lambda: attacks("hostile"),
    ),
    ("live", "a minute each: {} %, {} ms, {} MB", lambda: attacks("hostile-minute")),
    (
        "live",
        "one stream at 30 frames/s takes {:.1f} ms in 95 % of cases, two {:.1f} ms, four {:.1f} ms and eight {:.1f} ms",
        lambda: tuple(row["latency_ms"]["p95"] + 1e-9 for row in results("streaming")["live"][:4]),
    ),
    (
        "live",
        "gives {:.2f} times the frames",
        lambda: (results("streaming")["batching"]["batched_over_separate"]["p50"],),
    ),
    (
        "live",
        "with {} faults on UDP (killed senders, garbage) and {} in the program",
        lambda: tuple(sum(kinds.values()) for kinds in results("soak")["faults"].values()),
    ),
    (
        "live",
        "A sound is named {:.2f} s after it begins (median; {:.2f} s for 90 %) and no longer named {:.2f} s after",
        lambda: (
            results("reaction")["onset_seconds"]["p50"],
            results("reaction")["onset_seconds"]["p90"],
            results("reaction")["release_seconds"]["p50"],
        ),
    ),
    (
        "performance",
        "**{:.2f} times the samples a second on one thread, {:.2f} on two",
        lambda: tuple(results("training")["over_plain_wall"][threads]["avgn"]["p50"] for threads in "12"),
    ),
    ("performance", "`benchmarks/results/startup.json`, medians of {} runs", lambda: (results("startup")["runs"],)),
    ("performance", "0.165 s before, {:.2f} s after", lambda: (helps()[0],)),
    ("performance", "{:.2f}-{:.2f} s after, `import` {:.2f} s", lambda: (helps()[1], helps()[-3], helps()[-1])),
    (
        "performance",
        "its peak grows from {:.0f} to {:.0f} MB, of which {:.0f} and {:.0f} MB are the inputs' own gradients",
        lambda: tuple(
            loss_memory(cells, f"{form}_mb") for form in ("chunked_peak", "input_gradients") for cells in (49, 196)
        ),
    ),
    (
        "performance",
        "the reference takes {:.0f} and {:.0f} MB",
        lambda: tuple(loss_memory(cells, "einsum_peak_mb") for cells in (49, 196)),
    ),
    (
        "training",
        "on 2 cores {:.0f} samples a second from jpg and 10-second wav files without workers, {:.0f} with two",
        lambda: tuple(
            results("loader")["loader_samples_per_second"][way] for way in ("files, 0 workers", "memory, 2 workers")
        ),
    ),
    (
        "teach",
        "One class of 10 pictures and 10 sounds takes {:.1f} s",
        lambda: (results("teach")["one_class"]["seconds"],),
    ),
    (
        "teach",
        "and a class was named {:.1f} to {:.1f} s after its name was given",
        lambda: tuple(pick(each["named_seconds"] for each in results("lessons")["lessons"]) for pick in (min, max)),
    ),
    (
        "browser",
        "took {:.0f} to {:.0f} MB",
        lambda: tuple(pick(row["memory_mb"] for row in results("site-soak")["rows"]) for pick in (min, max)),
    ),
    *(
        ("gpu", f"| {name} | {{:.0f}} | {{:.0f}} | {{:.0f}} | {{:.0f}} |", lambda row=row: host_times(*row))
        for name, row in (
            ("grouping attention", ("grouping_attention", False)),
            ("max-pooled cosine, no gates", ("max_pooled_cosine", False)),
            ("max-pooled cosine, class gates", ("max_pooled_cosine", True)),
        )
    ),
    (
        "budget",
        "`make tiny` {:.0f} minutes",
        lambda: (sum(results("recipe")["seconds"].values()) / 60,),
    ),
]


@pytest.mark.parametrize(
    ("page", "sentence", "numbers"), MEASURED, ids=[f"{row[0]}: {row[1][:40]}" for row in MEASURED]
)
def test_a_page_says_what_was_measured(page: str, sentence: str, numbers: Callable[[], tuple[Any, ...]]) -> None:
    text = " ".join((ROOT / "docs" / f"{page}.md").read_text().split())
    assert sentence.format(*numbers()) in text, "the page and the results say two things"


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_options_of_a_system_are_as_its_page_says(system: str) -> None:
    made = find_system(system).options({})
    if made is None:
        assert system in (AVGN, RELEASED), "its options are the configuration's own"
        return
    section = (ROOT / "docs" / "baselines.md").read_text().split(f"\n## {system} ")[1].split("\n## ")[0]
    inherited = {each.name for base in type(made).__mro__[1:] if is_dataclass(base) for each in fields(base)}
    for name, value in asdict(made).items():
        if name in inherited:
            continue
        shown = f'"{value}"' if isinstance(value, str) else f"{value:g}"
        # the name, and its default before the next name
        pattern = rf"`{name}`[^`]*?(?<![\d.]){re.escape(shown)}(?!\.?\d)"
        assert re.search(pattern, section), f"the section of {system} must say that `{name}` is {shown}"


def test_the_front_page_trains_as_the_recipe_of_tiny_does() -> None:
    command = (ROOT / "README.md").read_text().split("avgn train data/train")[1].split("\navgn export")[0]
    options = {name.replace("-", "_"): value for name, value in re.findall(r"--([a-z-]+) (\S+)", command)}
    recipe = {name: value for name, value in tiny.TRAINING.items() if name in options}
    assert {"steps", "batch_size", "learning_rate"} <= recipe.keys()
    for name, value in recipe.items():
        said = options[name]
        assert said == str(value).lower() or float(said) == value, f"--{name}"


def test_the_presets_are_the_methods() -> None:
    paper = asdict(preset("avgn-resnet18"))
    del paper["classes"], paper["options"]
    assert paper == {
        "name": "avgn-resnet18",
        "system": "avgn",
        "encoders": "resnet18",
        "tokens": "learned",
        "sample_rate": 22_050,
        "window_seconds": 3.0,
        "frontend": "paper",
        "spectrogram_mean": 0.0,
        "spectrogram_std": 12.0,
        "image_size": (224, 224),
        "visual_stride": 32,
        "pair_input": "canvas",
        "width_visual": 64,
        "width_audio": 64,
        "dim": 512,
        "depth": 3,
        "heads": 8,
        "mlp_ratio": 4,
        "drop_path": 0.1,
        "attention": "transformer",
        "assignment": "soft",
        "audio_gate": "exact",
        "visual_gate": "grouped",
        "ablation": "both",
        "temperature": 0.03,
        "negatives": "class",
        "symmetric": True,
        "class_reduction": "mean",
    }
    changed = {
        name: {
            key: value
            for key, value in asdict(preset(name)).items()
            if key not in ("classes", "options", "name") and value != paper[key]
        }
        for name in ("avgn-tiny", "avgn-release")
    }
    assert changed["avgn-tiny"] == {
        "window_seconds": 1.0,
        "image_size": (160, 160),
        "visual_stride": 16,
        "width_visual": 16,
        "width_audio": 16,
        "dim": 128,
        "mlp_ratio": 2,
        "spectrogram_mean": -5.0,
        "spectrogram_std": 5.0,
        "class_reduction": "sum",
        "visual_gate": "token",
    }
    assert changed["avgn-release"] == {"frontend": "release", "visual_gate": "none", "system": "avgn-released"}
    assert {field.kw_only for field in Config.__dataclass_fields__.values()} == {True}
