"""How many threads an engine should use on this machine."""

from __future__ import annotations

import os
from pathlib import Path

CPUS = Path("/sys/devices/system/cpu")
QUOTA = Path("/sys/fs/cgroup/cpu.max")


def physical_cores() -> int:
    """Return the physical cores that this process may use (affinity and container quota respected), at least 1."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    cores = {_core(cpu) for cpu in allowed}
    return max(1, min(len(cores), _quota()))


def _core(cpu: int) -> tuple[str, str]:
    topology = CPUS / f"cpu{cpu}" / "topology"
    try:
        return (topology / "physical_package_id").read_text().strip(), (topology / "core_id").read_text().strip()
    except OSError:
        return ("", str(cpu))


def _quota() -> int:
    try:
        quota, period = QUOTA.read_text().split()
        return max(1, round(int(quota) / int(period)))
    except (OSError, ValueError):
        return os.cpu_count() or 1
