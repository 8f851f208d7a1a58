"""Lists what data sheets say about a few GPUs, and assumptions where they say nothing; nothing was measured."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Chip:
    """Describes a GPU: dense operations a second by precision, bytes a second of memory and (in one direction) bus.

    `launch_seconds` is what the host needs to start a kernel, `gap_seconds` what passes between two kernels of a CUDA
    graph, `reply_seconds` what a copy costs however small it is: assumptions, since data sheets don't say.
    """

    sheet: str
    fp32_ops_per_second: float
    tf32_ops_per_second: float
    fp16_ops_per_second: float
    int8_ops_per_second: float
    memory_bytes_per_second: float
    bus_bytes_per_second: float
    num_multiprocessors: int
    launch_seconds: float = 5e-6
    gap_seconds: float = 1.5e-6
    reply_seconds: float = 8e-6

    def rate(self, precision: str) -> float:
        """Return the operations a second in "fp32" (without TF32, which is off everywhere here), "fp16" or "int8"."""
        return {"fp32": self.fp32_ops_per_second, "fp16": self.fp16_ops_per_second, "int8": self.int8_ops_per_second}[
            precision
        ]

    def record(self) -> dict[str, Any]:
        """Return the chip as JSON."""
        return asdict(self)


# sheets that print sparse operations are halved
CHIPS = {
    # NVIDIA H100 Tensor Core GPU Datasheet (SXM5); multiprocessors: NVIDIA H100 Tensor Core GPU Architecture whitepaper
    "H100 SXM": Chip(
        sheet="NVIDIA H100 Tensor Core GPU Datasheet (SXM5)",
        fp32_ops_per_second=67e12,
        tf32_ops_per_second=494.7e12,
        fp16_ops_per_second=989.4e12,
        int8_ops_per_second=1979e12,
        memory_bytes_per_second=3.35e12,
        bus_bytes_per_second=64e9,
        num_multiprocessors=132,
    ),
    # NVIDIA A100 Tensor Core GPU Datasheet (80GB SXM)
    "A100 80GB": Chip(
        sheet="NVIDIA A100 Tensor Core GPU Datasheet (80GB SXM)",
        fp32_ops_per_second=19.5e12,
        tf32_ops_per_second=156e12,
        fp16_ops_per_second=312e12,
        int8_ops_per_second=624e12,
        memory_bytes_per_second=2.039e12,
        bus_bytes_per_second=32e9,
        num_multiprocessors=108,
    ),
    # NVIDIA L4 Tensor Core GPU Datasheet; multiprocessors: 7,424 CUDA cores of 128
    "L4": Chip(
        sheet="NVIDIA L4 Tensor Core GPU Datasheet",
        fp32_ops_per_second=30.3e12,
        tf32_ops_per_second=60e12,
        fp16_ops_per_second=121e12,
        int8_ops_per_second=242.5e12,
        memory_bytes_per_second=300e9,
        bus_bytes_per_second=32e9,
        num_multiprocessors=58,
    ),
    # NVIDIA Ada GPU Architecture whitepaper, appendix A (GeForce RTX 4090; fp16 with sums in fp32)
    "RTX 4090": Chip(
        sheet="NVIDIA Ada GPU Architecture whitepaper, GeForce RTX 4090",
        fp32_ops_per_second=82.6e12,
        tf32_ops_per_second=82.6e12,
        fp16_ops_per_second=165.2e12,
        int8_ops_per_second=660.6e12,
        memory_bytes_per_second=1.008e12,
        bus_bytes_per_second=32e9,
        num_multiprocessors=128,
    ),
    # NVIDIA Jetson AGX Orin Series Technical Brief v1.2 (64GB); fp16 and tf32 are a half and a quarter of dense int8,
    # host and GPU share the memory: a copy reads and writes it
    "Jetson AGX Orin 64GB": Chip(
        sheet="NVIDIA Jetson AGX Orin Series Technical Brief v1.2 (64GB, GPU without its accelerators)",
        fp32_ops_per_second=5.3e12,
        tf32_ops_per_second=21.2e12,
        fp16_ops_per_second=42.5e12,
        int8_ops_per_second=85e12,
        memory_bytes_per_second=204.8e9,
        bus_bytes_per_second=102.4e9,
        num_multiprocessors=16,
        launch_seconds=12e-6,
        gap_seconds=3e-6,
        reply_seconds=15e-6,
    ),
}
