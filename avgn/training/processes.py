"""The processes that train together, as torchrun or SLURM started them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from avgn.runtime.errors import InputError

# rank, processes, processes of a machine, machines
LAUNCHERS = (
    ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE"),
    ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_NTASKS_PER_NODE", "SLURM_NNODES"),
)


@dataclass(frozen=True, kw_only=True)
class Processes:
    """`rank` of `count` processes, on `machines` machines."""

    rank: int = 0
    count: int = 1
    machines: int = 1

    @classmethod
    def of_environment(cls, environment: Mapping[str, str] | None = None) -> Processes:
        """Return what the launcher says; a single process without one. Raises InputError for what can't be."""
        given = os.environ if environment is None else environment
        for rank, count, local, machines in LAUNCHERS:
            if int(given.get(count, "1")) > 1 and rank in given:
                total = int(given[count])
                found = cls(rank=int(given[rank]), count=total, machines=int(given.get(machines, "1")))
                here = int(given.get(local, total // found.machines))
                if here * found.machines != total:
                    raise InputError(
                        f"{total} processes on {found.machines} machines of {here} processes each don't match: "
                        "start as many processes on every machine"
                    )
                return found
        return cls()

    @property
    def first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def trainer_options(self, *, unused: bool = False) -> dict[str, Any]:
        """Return what Lightning's Trainer is told: one device a process; nccl and joint batch norms on GPUs, else gloo.

        `unused`: some steps leave parameters without a gradient.
        """
        if self.count == 1:
            return {"devices": 1}
        import torch
        from lightning.pytorch.strategies import DDPStrategy

        on_gpu = torch.cuda.is_available()
        return {
            "strategy": DDPStrategy(process_group_backend="nccl" if on_gpu else "gloo", find_unused_parameters=unused),
            "accelerator": "gpu" if on_gpu else "cpu",
            "devices": self.count // self.machines,
            "num_nodes": self.machines,
            "sync_batchnorm": on_gpu,
        }

    def part(self) -> None:
        """End the connections between the processes, once all of them have trained.

        Threads of gloo hold tensors; one that lets go of them while Python ends aborts its process.
        """
        import torch.distributed

        if self.count > 1 and torch.distributed.is_initialized():
            torch.distributed.barrier()
            torch.distributed.destroy_process_group()
