"""One step of a joint batch, alone or by several processes: prints nothing, writes losses and gradients.

python joint.py OUT, or: python -m torch.distributed.run --nproc-per-node 2 joint.py OUT
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from avgn.config import preset
from avgn.losses import compute_losses
from avgn.model import AVGN
from avgn.types import Labels

SIZES: dict[str, Any] = {
    "image_size": (64, 64),
    "visual_stride": 16,
    "width_visual": 8,
    "width_audio": 8,
    "dim": 32,
    "depth": 1,
    "heads": 4,
    "window_seconds": 0.3,
    "drop_path": 0.0,
}
CASES: dict[str, dict[str, Any]] = {
    "class": {},
    "grouped": {"visual_gate": "grouped", "temperature": 0.1},
    "nth": {"visual_gate": "grouped", "negatives": "nth", "temperature": 0.1},
    "none": {"visual_gate": "none"},
    "neither": {"visual_gate": "none", "ablation": "neither"},
    "mean": {"class_reduction": "mean"},
}
BATCH = 8
# sources of each sample: none in two, and more in the first half than in the second
SOURCES = ((0, 1, 2), (3,), (), (1, 4), (2,), (0,), (), (4,))


class Step(nn.Module):
    """The training loss of a batch, as a module that DDP can wrap."""

    def __init__(self, model: AVGN) -> None:
        super().__init__()
        self.model = model

    def forward(self, waveform: Tensor, image: Tensor, labels: Labels) -> Tensor:
        audio, cells = self.model(waveform, image)
        return compute_losses(audio, cells, labels, self.model.token_logits(), self.model.config).total


def joint_batch(samples: int) -> tuple[Tensor, Tensor, list[set[int]]]:
    """(waveform, image, extra visible classes) of the joint batch."""
    generator = torch.Generator().manual_seed(0)
    waveform = 0.1 * torch.randn(BATCH, samples, generator=generator)
    image = torch.randint(0, 256, (BATCH, 64, 64, 3), generator=generator, dtype=torch.uint8)
    return waveform, image, [{(n + 2) % 5} if n % 3 == 0 else set() for n in range(BATCH)]


def labels_of(rows: range, extra: list[set[int]]) -> Labels:
    """The labels of some samples, padded to the most sources among these."""
    most = max(1, *(len(SOURCES[n]) for n in rows))
    sounding, visible = torch.zeros(len(rows), 5), torch.zeros(len(rows), 5)
    order, mask = torch.zeros(len(rows), most, dtype=torch.int64), torch.zeros(len(rows), most, dtype=torch.bool)
    for row, n in enumerate(rows):
        chosen = SOURCES[n]
        sounding[row, list(chosen)] = 1
        visible[row, sorted({*chosen, *extra[n]})] = 1
        order[row, : len(chosen)] = torch.tensor(chosen, dtype=torch.int64)
        mask[row, : len(chosen)] = True
    return Labels(sounding=sounding, visible=visible, order=order, mask=mask)


def main(out: Path) -> None:
    torch.set_num_threads(1)
    world = int(os.environ.get("WORLD_SIZE", "1"))
    rank = int(os.environ.get("RANK", "0"))
    if world > 1:
        dist.init_process_group("gloo")
    results: dict[str, Any] = {}
    for name, options in CASES.items():
        torch.manual_seed(1)
        model = AVGN(preset("avgn-tiny", classes=tuple("abcde"), **(SIZES | options))).eval()
        waveform, image, extra = joint_batch(model.config.window_samples)
        share = BATCH // world
        rows = range(rank * share, (rank + 1) * share)
        step: nn.Module = Step(model)
        if world > 1:
            step = DistributedDataParallel(step)
        loss = step(waveform[rows.start : rows.stop], image[rows.start : rows.stop], labels_of(rows, extra))
        loss.backward()
        total = loss.detach().clone()
        if world > 1:
            dist.all_reduce(total)
        gradients = {key: p.grad.clone() for key, p in model.named_parameters() if p.grad is not None}
        results[name] = {"loss": total / world, "gradients": gradients}
    if rank == 0:
        torch.save(results, out)
    if world > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
