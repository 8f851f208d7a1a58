"""Plans the rows of a benchmark: every variant of every bundle in every backend, batch size and thread count."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from avgn.machine import usable_cores
from avgn.runtime.bundle import Bundle
from avgn.runtime.contract import PRECISIONS
from avgn.runtime.engines import ENGINES
from avgn.runtime.engines.threads import physical_cores
from avgn.runtime.errors import InputError

TORCH = ("torch", "torch-compile")
BACKENDS = (*TORCH, *ENGINES)
USUAL = (*TORCH, "onnxruntime", "openvino", "tensorrt")
CORE = "core"
LONGEST_VIDEO_SECONDS = 60.0

System = tuple[str, str, str | None, int | None]


@dataclass(frozen=True, kw_only=True)
class BenchmarkOptions:
    """Says what to measure.

    `threads` are those of one engine (None: 1 and all physical cores). Every row is measured in `rounds` processes,
    each time for `seconds`, or (when given) for `repeats` runs. `baseline` is BACKEND or BACKEND/PRECISION.
    A process that takes longer than `timeout` seconds is a failure. `video_seconds` 0 leaves the pipeline out.
    """

    batches: tuple[int, ...] = (1, 4, 16)
    threads: tuple[int, ...] | None = None
    backends: tuple[str, ...] = USUAL
    rounds: int = 3
    seconds: float = 1.0
    repeats: int | None = None
    baseline: str | None = None
    timeout: float = 600.0
    video_seconds: float = 10.0

    def __post_init__(self) -> None:
        for name, values in (("batch", self.batches), ("threads", self.thread_counts), ("backends", self.backends)):
            if not values:
                raise InputError(f"--{name} is empty: name at least one")
        if bad := [batch for batch in self.batches if batch < 1]:
            raise InputError(f"--batch must be at least 1, got {bad[0]}: for example 1,4,16")
        most = usable_cores()
        if bad := [count for count in self.thread_counts if not 1 <= count <= most]:
            raise InputError(
                f"--threads must be from 1 to the {most} cores that this process may use, got {bad[0]}: more threads "
                "than cores would only wait for each other"
            )
        if unknown := [name for name in self.backends if name not in BACKENDS]:
            raise InputError(f"backend {unknown[0]!r} is not known: choose from {', '.join(BACKENDS)}")
        if self.rounds < 1:
            raise InputError(f"--rounds must be at least 1, got {self.rounds}: 3 is the default")
        if not 0 < self.seconds <= 3600:
            raise InputError(f"--seconds must be above 0 and at most 3600, got {self.seconds:g}: 1 is the default")
        if self.repeats is not None and self.repeats < 1:
            raise InputError(f"--repeats must be at least 1, got {self.repeats}: leave it out for --seconds")
        if not self.timeout > 0:
            raise InputError(f"--timeout must be above 0 seconds, got {self.timeout:g}: 600 is the default")
        if not (self.video_seconds == 0 or 1 <= self.video_seconds <= LONGEST_VIDEO_SECONDS):
            raise InputError(
                f"--video-seconds must be 0 (no video) or 1 to {LONGEST_VIDEO_SECONDS:g}, got {self.video_seconds:g}"
            )
        if self.baseline is not None:
            self._check_baseline(self.baseline)

    def _check_baseline(self, baseline: str) -> None:
        backend, _, precision = baseline.partition("/")
        if backend not in self.backends:
            raise InputError(f"--baseline {baseline!r} is not among the backends: {', '.join(self.backends)}")
        known = (CORE,) if backend in TORCH else PRECISIONS
        if precision and precision not in known:
            raise InputError(f"--baseline {baseline!r}: {backend} runs {', '.join(known)}, not {precision!r}")

    @property
    def thread_counts(self) -> tuple[int, ...]:
        return tuple(dict.fromkeys((1, physical_cores()) if self.threads is None else self.threads))


@dataclass(frozen=True, kw_only=True)
class Row:
    """Describes one line of the table. `failure` says why it can't be measured here; `batch` and `threads` are then
    None.

    `precision` is "core" for the model in PyTorch; `variant` is the place in bundle.json. `threads` is None for
    engines on a GPU.
    """

    bundle: str
    backend: str
    precision: str | None = None
    target: str | None = None
    variant: int | None = None
    checkpoint: str | None = None
    batch: int | None = None
    threads: int | None = None
    failure: str | None = None

    @property
    def system(self) -> System:
        """Return the key of what is measured, without batch and threads."""
        return (self.bundle, self.backend, self.precision, self.variant)

    def job(self, kind: str, **facts: Any) -> dict[str, Any]:
        """Return the job as the worker reads it."""
        named = ("bundle", "backend", "variant", "checkpoint", "batch", "threads")
        return {"kind": kind, **{name: getattr(self, name) for name in named}, **facts}


def plan_rows(
    bundles: Sequence[tuple[str, Bundle]], checkpoints: Sequence[str | None], options: BenchmarkOptions
) -> list[Row]:
    """Return all rows; what can't run here is a single row with the reason."""
    rows: list[Row] = []
    for (name, bundle), checkpoint in zip(bundles, checkpoints, strict=True):
        for backend in dict.fromkeys(options.backends):
            systems = _torch(name, backend, checkpoint) if backend in TORCH else _graphs(name, bundle, backend)
            for system in systems:
                if system.failure is not None:
                    rows.append(system)
                    continue
                on_gpu = backend in ENGINES and ENGINES[backend].gpu
                rows += [
                    Row(**{**vars(system), "batch": batch, "threads": threads})
                    for threads in ((None,) if on_gpu else options.thread_counts)
                    for batch in dict.fromkeys(options.batches)
                ]
    return rows


def _torch(name: str, backend: str, checkpoint: str | None) -> Iterator[Row]:
    failure = None
    if importlib.util.find_spec("torch") is None:
        failure = "torch is not installed: pip install 'avgn[train]'"
    elif checkpoint is None:
        failure = "a bundle holds no weights for PyTorch: pass the checkpoint it was exported from with --checkpoint"
    yield Row(bundle=name, backend=backend, precision=CORE, checkpoint=checkpoint, failure=failure)


def _graphs(name: str, bundle: Bundle, backend: str) -> Iterator[Row]:
    entry = ENGINES[backend]
    fitting = [(at, variant) for at, variant in enumerate(bundle.variants) if variant.engine in entry.reads]
    if not fitting:
        failure = entry.obstacle() or f"the bundle holds no variant for it: export it with --format {entry.reads[0]}"
        yield Row(bundle=name, backend=backend, failure=failure)
    for at, variant in fitting:
        yield Row(
            bundle=name,
            backend=backend,
            precision=variant.precision,
            target=variant.target,
            variant=at,
            failure=entry.obstacle(variant.target),
        )
