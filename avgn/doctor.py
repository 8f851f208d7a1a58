"""What is installed here, which engines run, and one test inference."""

from __future__ import annotations

import platform
import sys
import time
from importlib.metadata import PackageNotFoundError, version

import numpy as np

import avgn
from avgn.runtime.bundle import Bundle
from avgn.runtime.engines import ENGINES, check_installation, choose_engine
from avgn.runtime.errors import FailureError, InputError

PACKAGES = {
    "runtime": ("numpy", "opencv-python-headless", "opencv-python", "av", "nvtx"),
    "engines": ("onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt", "tensorrt-rtx"),
    "training": ("torch", "torchvision", "torchaudio", "lightning", "safetensors"),
    "export": ("onnx", "onnxscript"),
}


def examine(bundle: str) -> list[str]:
    """Lines for people. Raises InputError for a bundle that can't be used, FailureError when the inference is wrong."""
    lines = [f"avgn {avgn.__version__}, Python {sys.version.split()[0]}, {platform.platform()}"]
    for group, names in PACKAGES.items():
        found = [f"{name} {found}" for name in names if (found := _version(name))]
        lines.append(f"{group}: {', '.join(found) or 'nothing installed'}")
    check_installation()
    loaded = Bundle.load(bundle)
    lines.append(f"bundle {bundle}: {len(loaded.classes)} classes, {', '.join(v.precision for v in loaded.variants)}")
    for name in ENGINES:
        lines.append(_try_engine(loaded, name))
    if not any(line.endswith("ok") for line in lines):
        raise FailureError("no engine ran: " + "; ".join(lines[-len(ENGINES) :]))
    return lines


def _try_engine(bundle: Bundle, name: str) -> str:
    info = bundle.info
    try:
        engine = choose_engine(bundle, name)
    except InputError as error:
        return f"engine {name}: not usable ({error})"
    height, width = info.image_size
    waveform = np.random.default_rng(0).standard_normal((1, info.window_samples)).astype(np.float32) * 0.1
    image = np.full((1, height, width, 3), 128, np.uint8)
    begin = time.perf_counter()
    heard = engine.run_audio(waveform)
    middle = time.perf_counter()
    maps = engine.run_image(image, heard["sources"])["maps"]
    end = time.perf_counter()
    if not (np.isfinite(maps).all() and np.abs(maps).max() <= 1.001):
        raise FailureError(f"engine {name} gave maps outside of [-1, 1]: export the bundle again")
    return f"engine {name}: audio half {1e3 * (middle - begin):.1f} ms, image half {1e3 * (end - middle):.1f} ms, ok"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
