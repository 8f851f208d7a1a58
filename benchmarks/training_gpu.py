"""A training step of avgn-resnet18 on a GPU, change by change: where its time goes, and that losses stay equal.

python -m benchmarks.training_gpu --output FILE.json [--batch 256] [--seconds 55] [--changes before products ...]

Exit status: 1 when a row failed, or its losses aren't those of the first row.

Each row adds one change to the row above it. A step is what `avgn train` does with a batch: the copy from pinned
memory, both halves, the losses, backward, clipping and AdamW. Data is random and the same for every row. Rows that no
longer fit into the time are left out, and named.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from avgn.config import preset
from avgn.frontend import Spectrogram
from avgn.machine import measured_on
from avgn.model import build_model
from avgn.runtime.errors import FailureError
from avgn.training import TrainConfig
from avgn.training.module import AVGNModule
from avgn.training.prefetch import OnDevice
from avgn.types import Batch, Labels

NUM_CLASSES, NUM_SOURCES = 37, 2
WARM_UP_STEPS, TIMED_STEPS, LISTED_KERNELS = 4, 10, 14
# of a loss: steps that differ by roundings of bf16
ALLOWED_DIFFERENCE = 0.02
SECONDS_TO_COMPILE = 30.0


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What a row switches on."""

    products: bool = False
    fused: bool = False
    copies: bool = False
    compile: bool = False
    graph: bool = False


ROWS = {
    "before": Changes(),
    "products": Changes(products=True),
    "fused": Changes(products=True, fused=True),
    "copies": Changes(products=True, fused=True, copies=True),
    "compiled": Changes(products=True, fused=True, copies=True, compile=True),
    "graph": Changes(products=True, fused=True, copies=True, compile=True, graph=True),
}
MEANINGS = {
    "before": "front-end by convolutions, AdamW not fused, two norms, the copy waited for, nothing compiled",
    "products": "the front-end as matrix products of cut frames",
    "fused": "AdamW fused, and one norm for clipping and for the check",
    "copies": "the next batch is copied on a stream of its own",
    "compiled": "torch.compile of both halves",
    "graph": 'torch.compile with mode="reduce-overhead": CUDA graphs of both directions',
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=55.0)
    parser.add_argument("--changes", nargs="+", choices=ROWS, default=list(ROWS))
    args = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("a training step on a GPU needs one: see python -m benchmarks.training for the CPU's")
    begin = time.perf_counter()
    record: dict[str, Any] = {
        "machine": measured_on(),
        "model": "avgn-resnet18, 3 s windows, 224 x 224, bf16, channels-last",
        "batch": args.batch,
        "rows": [],
        "left_out": [],
    }
    for name in args.changes:
        left = args.seconds - (time.perf_counter() - begin)
        if left < (SECONDS_TO_COMPILE if ROWS[name].compile else 4.0):
            record["left_out"].append(name)
        else:
            record["rows"].append(_row(name, args.batch))
            print(json.dumps({key: value for key, value in record["rows"][-1].items() if key != "kernels"}), flush=True)
        record["wrong"] = wrong_rows(record["rows"])
        args.output.write_text(json.dumps(record, indent=1) + "\n")
    if record["wrong"]:
        sys.exit("; ".join(record["wrong"]))


def wrong_rows(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say of each row that failed, or whose losses differ from those of the first, what is wrong."""
    said = [f"{row['row']}: {row['error']}" for row in rows if "error" in row]
    measured = [row for row in rows if "error" not in row]
    for row in measured[1:]:
        pairs = zip(row["first_losses"], measured[0]["first_losses"], strict=True)
        # a maximum would hide NaN
        if not all(abs(one / other - 1) <= ALLOWED_DIFFERENCE for one, other in pairs):
            said.append(f"{row['row']}: losses {row['first_losses']} aren't those of {measured[0]['row']}")
    return said


def _row(name: str, batch: int) -> dict[str, Any]:
    begin = time.perf_counter()
    row: dict[str, Any] = {"row": name, "change": MEANINGS[name], **asdict(ROWS[name])}
    try:
        row |= _measure(ROWS[name], batch)
    except Exception as error:  # one row that fails leaves the others
        row["error"] = f"{type(error).__name__}: {error}"[:500]
    torch.cuda.empty_cache()
    row["seconds"] = round(time.perf_counter() - begin, 1)
    return row


def _measure(changes: Changes, batch: int) -> dict[str, Any]:
    step, batches = _prepare(changes, batch)
    losses = [float(step(next(batches))) for _ in range(WARM_UP_STEPS)]
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    times = []
    for _ in range(TIMED_STEPS):
        start = time.perf_counter()
        step(next(batches))
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    middle = sorted(times)[TIMED_STEPS // 2]
    return {
        "ms": {
            "p20": _ms(sorted(times)[TIMED_STEPS // 5]),
            "p50": _ms(middle),
            "p80": _ms(sorted(times)[4 * TIMED_STEPS // 5]),
        },
        "samples_per_second": round(batch / middle),
        "peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2),
        "first_losses": losses,
        "kernels": _kernels(lambda: step(next(batches))),
    }


def _prepare(changes: Changes, batch: int) -> tuple[Callable[[Batch], torch.Tensor], Iterator[Batch]]:
    torch.manual_seed(0)
    torch._dynamo.reset()
    config = preset("avgn-resnet18", classes=tuple(f"class {at}" for at in range(NUM_CLASSES)), drop_path=0.0)
    model = build_model(config).cuda().train().to(memory_format=torch.channels_last)
    module = AVGNModule(model, TrainConfig(precision="bf16-mixed", compile=False), 1000)
    if changes.compile:
        module.halves = torch.compile(module._encode, mode="reduce-overhead" if changes.graph else None)
    if not changes.products:
        setattr(model.frontend, "_by_products", _exact_convolution(model.frontend))  # noqa: B010 - another form of it
    optimizer = module.configure_optimizers()["optimizer"]
    if not changes.fused:
        groups = [{name: group[name] for name in ("params", "weight_decay")} for group in optimizer.param_groups]
        optimizer = torch.optim.AdamW(groups, lr=1e-4, weight_decay=0.0)

    def compute(given: Batch) -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cuda", torch.bfloat16):
            total = module._losses(given).total
        total.backward()
        return total

    def step(given: Batch) -> torch.Tensor:
        given = given.to(torch.device("cuda"))
        if not changes.copies:
            torch.cuda.current_stream().synchronize()
        total = compute(given)
        if not changes.fused:
            norms = [p.grad.norm() for p in model.parameters() if p.grad is not None]
            assert torch.isfinite(torch.stack(norms)).all()
        try:
            module.configure_gradient_clipping(optimizer, 1.0)
        except FailureError as error:
            # clipping has spread it over all of them
            compute(given)
            grads = [(name, p.grad) for name, p in model.named_parameters() if p.grad is not None]
            bad = [name for name, grad in grads if not torch.isfinite(grad).all()]
            raise FailureError(f"{error}; {len(bad)} of {len(grads)} gradients, among them {bad[:6]}") from None
        optimizer.step()
        return total.detach()

    batches = _Forever(_batch(batch, config.window_samples, config.image_size))
    return step, iter(OnDevice(batches) if changes.copies else batches)


def _exact_convolution(frontend: Spectrogram) -> Callable[[torch.Tensor], list[torch.Tensor]]:
    """Return what `Spectrogram` does on a CPU, without TF32."""

    def sums(signal: torch.Tensor) -> list[torch.Tensor]:
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            return frontend._by_convolution(signal)

    return sums


class _Forever:
    """The same batch in pinned memory, again and again."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch

    def __iter__(self) -> Iterator[Batch]:
        while True:
            yield replace(self._batch)


def _batch(count: int, samples: int, size: tuple[int, int]) -> Batch:
    draw = torch.Generator().manual_seed(1)
    order = torch.stack([torch.randperm(NUM_CLASSES, generator=draw)[:NUM_SOURCES] for _ in range(count)])
    hot = torch.zeros(count, NUM_CLASSES).scatter_(1, order, 1.0)
    return Batch(
        image=torch.randint(0, 256, (count, *size, 3), dtype=torch.uint8, generator=draw),
        waveform=0.1 * torch.randn(count, samples, generator=draw),
        labels=Labels(sounding=hot, visible=hot.clone(), order=order, mask=torch.ones(count, NUM_SOURCES).bool()),
    ).pin_memory()


def _kernels(step: Callable[[], object]) -> dict[str, Any]:
    """One step under the profiler: the kernels that take most of the device's time, and their sum."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as profiler:
        step()
        torch.cuda.synchronize()
    on_device = [event for event in profiler.key_averages() if str(event.device_type).endswith("CUDA")]
    on_device.sort(key=lambda event: -event.self_device_time_total)
    return {
        "together_ms": _ms(sum(event.self_device_time_total for event in on_device) / 1e6),
        "launches": sum(event.count for event in on_device),
        "most": [
            {"kernel": event.key[:110], "ms": _ms(event.self_device_time_total / 1e6), "launches": event.count}
            for event in on_device[:LISTED_KERNELS]
        ],
    }


def _ms(seconds: float) -> float:
    return round(1e3 * seconds, 3)


if __name__ == "__main__":
    main()
