"""The fused kernels on this GPU beside plain, einsum and compiled forms, and nothing that a CPU could measure.

python -m benchmarks.gpu_kernels --output FILE.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from benchmarks.kernels.gpu import measure_gpu
from benchmarks.measuring import machine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    record = {"machine": machine() | {"gpu": torch.cuda.get_device_name()}, "rows": measure_gpu()}
    args.output.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
