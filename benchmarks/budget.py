"""What a frame would cost on GPUs that nobody here has: predictions from data sheets.

python -m benchmarks.budget --output benchmarks/results/gpu-budget.json && python -m docs.tools.tables
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from avgn.config import Config, preset
from avgn.export.graph_safety import graph_hazards, trace
from avgn.export.graphs import write_graphs
from avgn.export.halves import AudioHalf, ImageHalf
from avgn.export.mixed import to_mixed
from avgn.export.optimize import OptimizedModel, optimize
from avgn.export.quantize import calibrate, quantize
from avgn.machine import measured_on
from avgn.model import build_model
from avgn.runtime import Localizer
from avgn.scenes import CLASSES
from benchmarks import layers
from benchmarks.chips import CHIPS, Chip
from benchmarks.kernels.roofline import predict_kernels

MODELS: dict[str, dict[str, Any]] = {"avgn-tiny": {"classes": CLASSES}, "avgn-resnet18": {}}
PRECISIONS = ("fp32", "fp16", "int8-gpu")
BATCHES = (1, 16)
FPS, HOP_SECONDS = 30.0, 0.2
# frames of 640x360 that the CPU's stages are measured on, after the first few
MEASURED_FRAMES, WARM_UP_FRAMES = 60, 5
WARNING = "predicted from data sheets and assumptions; nothing of it was measured on a GPU"
STAGES = ("copy_in", "image_half", "copy_out", "audio_half_share", "resize", "decide")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    record = predict()
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(record, indent=1) + "\n")


def predict() -> dict[str, Any]:
    """Kernels, times and the budget of a frame for both presets on every chip."""
    cpu = measure_cpu()
    record: dict[str, Any] = {
        "label": WARNING,
        "chips": {name: chip.record() for name, chip in CHIPS.items()},
        "assumptions": {
            "share_of_peak_operations": layers.COMPUTE_SHARE,
            "share_of_memory_bandwidth": layers.MEMORY_SHARE,
            "block_of_results": layers.TILE_SIDE,
            "frames_per_second": FPS,
            "audio_hop_seconds": HOP_SECONDS,
        },
        "measured_cpu_ms": cpu | {"machine": measured_on()},
        "models": {},
        "training_step_kernels": predict_kernels(CHIPS),
        "kernels_without_gates": predict_kernels(CHIPS, b=256, p=196, c=0),
    }
    for name, options in MODELS.items():
        print(name, flush=True)
        torch.manual_seed(0)
        record["models"][name] = _model(preset(name, **options), cpu)
    return record


def measure_cpu() -> dict[str, float]:
    """Median milliseconds of what stays on the CPU: resizing a frame of 640x360, deciding."""
    stream = Localizer.load("tiny", threads=1).open_stream(mode="file")
    rate = stream.info.sample_rate
    rng = np.random.default_rng(0)
    stream.push_audio(0.1 * rng.standard_normal(int(rate * (MEASURED_FRAMES / FPS + 4))).astype(np.float32), rate, 0.0)
    picture = rng.integers(0, 256, (360, 640, 3), dtype=np.uint8)
    results = [
        result for at in range(MEASURED_FRAMES) for result in stream.push_frame(picture, at / FPS)
    ] + stream.flush()
    return {
        stage: round(float(np.median([result.ms[stage] for result in results[WARM_UP_FRAMES:]])), 4)
        for stage in ("resize", "decide")
    }


def _model(config: Config, cpu: dict[str, float]) -> dict[str, Any]:
    model = build_model(config).eval()
    optimized, framed = optimize(model), optimize(model, front_end="framed")
    found: dict[str, Any] = {"graph_hazards": _safety(optimized), "halves": {}, "frame_ms": {}}
    sizes = _sizes(config, 1)
    with tempfile.TemporaryDirectory() as folder:
        files = _graphs(optimized, framed, Path(folder))
        for precision, halves in files.items():
            for half, file in halves.items():
                graph = onnx.load(file)
                found["graph_hazards"][f"{half}, {precision} graph"] = list(graph_hazards(graph, sizes[half]))
                for batch in BATCHES:
                    made = layers.count(graph, _sizes(config, batch)[half])
                    found["halves"].setdefault(precision, {}).setdefault(half, {})[str(batch)] = half_record(made)
    for precision, halves in found["halves"].items():
        found["frame_ms"][precision] = {name: _frame(config, chip, name, halves, cpu) for name, chip in CHIPS.items()}
    return found


def half_record(made: Sequence[layers.Kernel]) -> dict[str, Any]:
    """Sums of a half's kernels, and its microseconds on every chip."""
    record: dict[str, Any] = {
        "kernels": len(made),
        "operations": sum(kernel.operations for kernel in made),
        "bytes": sum(kernel.bytes for kernel in made),
        "predicted_us": {},
    }
    for name, chip in CHIPS.items():
        busy = [kernel.expected(chip) for kernel in made]
        record["predicted_us"][name] = {
            "roofline": round(1e6 * sum(kernel.least(chip) for kernel in made), 1),
            "cuda_graph": round(1e6 * (chip.launch_seconds + sum(busy) + len(busy) * chip.gap_seconds), 1),
            # a kernel that is shorter than its launch waits for the next
            "one_by_one": round(1e6 * sum(max(one + chip.gap_seconds, chip.launch_seconds) for one in busy), 1),
        }
    return record


def _frame(config: Config, chip: Chip, name: str, halves: dict[str, Any], cpu: dict[str, float]) -> dict[str, float]:
    """Milliseconds of the stages of one frame."""
    height, width = config.image_size
    rows, columns = config.grid
    count = config.num_maps

    def copies(*sizes: int) -> float:
        return 1e3 * sum(chip.reply_seconds + size / chip.bus_bytes_per_second for size in sizes)

    def graph(half: str) -> float:
        return halves[half]["1"]["predicted_us"][name]["cuda_graph"] / 1e3

    sound = copies(4 * config.window_samples, 4 * count * config.source_dim, 4 * count) + graph("audio")
    values = (
        copies(height * width * 3, 4 * count * config.source_dim),
        graph("image"),
        copies(4 * count * rows * columns, 4 * count),
        sound / (HOP_SECONDS * FPS),
        cpu["resize"],
        cpu["decide"],
    )
    return {stage: round(value, 4) for stage, value in zip(STAGES, values, strict=True)} | {
        "together": round(sum(values), 4)
    }


def _safety(optimized: OptimizedModel) -> dict[str, Any]:
    config = optimized.model.config
    image = torch.zeros(1, *config.image_size, 3, dtype=torch.uint8)
    sources = torch.zeros(1, config.num_maps, config.source_dim)
    return {
        "image, torch": list(trace(ImageHalf(optimized).eval(), (image, sources)).hazards),
        "audio, torch": list(trace(AudioHalf(optimized).eval(), (torch.zeros(1, config.window_samples),)).hazards),
    }


def _sizes(config: Config, batch: int) -> dict[str, dict[str, tuple[int, ...]]]:
    height, width = config.image_size
    return {
        "image": {"image": (batch, height, width, 3), "sources": (batch, config.num_maps, config.source_dim)},
        "audio": {"waveform": (batch, config.window_samples)},
    }


def _graphs(optimized: OptimizedModel, framed: OptimizedModel, folder: Path) -> dict[str, dict[str, Path]]:
    files = {
        "fp32": write_graphs(optimized, folder, opset=18, facts={}),
        "fp16": write_graphs(to_mixed(framed), folder, opset=18, facts={}, suffix=".fp16"),
        "int8-gpu": {},
    }
    rng = np.random.default_rng(0)
    for half, sizes in _sizes(optimized.model.config, 1).items():
        feed: dict[str, Any] = {name: rng.standard_normal(size).astype(np.float32) for name, size in sizes.items()}
        if half == "image":
            feed["image"] = rng.integers(0, 256, sizes["image"], dtype=np.uint8)
        out = files["int8-gpu"][half] = folder / f"{half}.int8-gpu.onnx"
        quantize(files["fp32"][half], out, "int8-gpu", calibrate(files["fp32"][half], [feed], "percentile"))
    return files


if __name__ == "__main__":
    main()
