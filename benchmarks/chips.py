"""What data sheets say of a few GPUs, and what is assumed where they say nothing. Nothing here was measured."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Chip:
    """Dense operations a second by precision, memory and bus bytes a second (one direction), multiprocessors.

    `launch` is what the host needs to start a kernel, `gap` what passes between two kernels of a CUDA graph, `reply`
    what a copy costs however small it is (seconds; assumptions).
    """

    sheet: str
    fp32: float
    tf32: float
    fp16: float
    int8: float
    memory: float
    bus: float
    processors: int
    launch: float = 5e-6
    gap: float = 1.5e-6
    reply: float = 8e-6

    def rate(self, precision: str) -> float:
        """Operations a second of "fp32" (without TF32, which is off everywhere here), "fp16" or "int8"."""
        return {"fp32": self.fp32, "fp16": self.fp16, "int8": self.int8}[precision]

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


# sheets that print sparse operations are halved
CHIPS = {
    # NVIDIA H100 Tensor Core GPU Datasheet (SXM5); multiprocessors: NVIDIA H100 Tensor Core GPU Architecture whitepaper
    "H100 SXM": Chip(
        sheet="NVIDIA H100 Tensor Core GPU Datasheet (SXM5)",
        fp32=67e12,
        tf32=494.7e12,
        fp16=989.4e12,
        int8=1979e12,
        memory=3.35e12,
        bus=64e9,
        processors=132,
    ),
    # NVIDIA A100 Tensor Core GPU Datasheet (80GB SXM)
    "A100 80GB": Chip(
        sheet="NVIDIA A100 Tensor Core GPU Datasheet (80GB SXM)",
        fp32=19.5e12,
        tf32=156e12,
        fp16=312e12,
        int8=624e12,
        memory=2.039e12,
        bus=32e9,
        processors=108,
    ),
    # NVIDIA L4 Tensor Core GPU Datasheet; multiprocessors: 7,424 CUDA cores of 128
    "L4": Chip(
        sheet="NVIDIA L4 Tensor Core GPU Datasheet",
        fp32=30.3e12,
        tf32=60e12,
        fp16=121e12,
        int8=242.5e12,
        memory=300e9,
        bus=32e9,
        processors=58,
    ),
    # NVIDIA Ada GPU Architecture whitepaper, appendix A (GeForce RTX 4090; fp16 with sums in fp32)
    "RTX 4090": Chip(
        sheet="NVIDIA Ada GPU Architecture whitepaper, GeForce RTX 4090",
        fp32=82.6e12,
        tf32=82.6e12,
        fp16=165.2e12,
        int8=660.6e12,
        memory=1.008e12,
        bus=32e9,
        processors=128,
    ),
    # NVIDIA Jetson AGX Orin Series Technical Brief v1.2 (64GB); fp16 and tf32 are a half and a quarter of dense int8,
    # host and GPU share the memory: a copy reads and writes it
    "Jetson AGX Orin 64GB": Chip(
        sheet="NVIDIA Jetson AGX Orin Series Technical Brief v1.2 (64GB, GPU without its accelerators)",
        fp32=5.3e12,
        tf32=21.2e12,
        fp16=42.5e12,
        int8=85e12,
        memory=204.8e9,
        bus=102.4e9,
        processors=16,
        launch=12e-6,
        gap=3e-6,
        reply=15e-6,
    ),
}
