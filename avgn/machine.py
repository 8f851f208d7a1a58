"""What a measurement was made on: the one description that benchmarks, recipes and reports hold."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import avgn
from avgn.runtime.engines.gpu import find_gpu

PACKAGES = (
    "av",
    "numpy",
    "onnxruntime",
    "onnxruntime-gpu",
    "opencv-python-headless",
    "openvino",
    "scipy",
    "tensorrt",
    "tensorrt-rtx",
    "torch",
    "triton",
)


def usable_cores() -> int:
    """Count the logical cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine() -> dict[str, Any]:
    """Describe the processor, its cores, the memory in GB, the GPU (None: there is none) and the system."""
    gpu = find_gpu()
    return {
        "processor": _processor(),
        "cores": os.cpu_count() or 1,
        "usable_cores": usable_cores(),
        "memory_gb": _memory_gb(),
        "gpu": None if isinstance(gpu, str) else gpu.name,
        "system": f"{platform.system()} {platform.machine()}",
    }


def measured_on() -> dict[str, Any]:
    """Describe the machine as it is now: with its load average, the versions and the commit that is measured."""
    return machine() | {"load_average": round(os.getloadavg()[0], 2), "versions": versions(), "commit": commit()}


def resident_mb(process: int | str = "self") -> float:
    """Return the resident memory of a process in MB (10^6 bytes), or this one's peak if the system doesn't report it.

    Raises ProcessLookupError for a process that has ended.
    """
    return _status(process, "VmRSS") or most_resident_mb()


def peak_mb() -> float:
    """Return the peak of the resident memory of this process in MB."""
    # ru_maxrss also counts the process that started this one
    return _status("self", "VmHWM") or most_resident_mb()


def most_resident_mb(usage: Any = None) -> float:
    """Return the peak of the resident memory in MB that `resource` tells: of this process, or of a child's `usage`."""
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    found = resource.getrusage(resource.RUSAGE_SELF) if usage is None else usage
    return float(found.ru_maxrss * unit / 1e6)


def _status(process: int | str, field: str) -> float | None:
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        lines = []
    line = next((line for line in lines if line.startswith(f"{field}:")), None)
    if line is None and process != "self":
        raise ProcessLookupError(f"process {process} has ended")
    return None if line is None else int(line.split()[1]) * 1024 / 1e6


def versions() -> dict[str, str]:
    """List the versions of avgn, Python and what computes, as far as installed."""
    found = {"avgn": avgn.__version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """Name the commit of this checkout, "-dirty" behind it where files differ; "unknown" for what is installed."""
    checkout = Path(avgn.__file__).resolve().parents[1]
    # an environment may lie in the checkout of something else
    if not (checkout / ".git").exists():
        return "unknown"
    asked = ["git", "-C", str(checkout), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def _memory_gb() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    except (AttributeError, ValueError, OSError):
        return None
