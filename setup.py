"""Build script: kernels/, export/ and runtime/ lie beside avgn/ and ship inside it."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
BESIDE = ("export", "kernels", "runtime")

# the libraries that read strangers' files begin at releases without known faults: docs/security.md
RUNTIME = ["opencv-python-headless>=4.12.0.88", "av>=14.1", "nvtx>=0.2.10", "pillow>=12.3"]
TORCH = ["torch>=2.10", "torchvision>=0.25", "torchaudio>=2.10"]
EXPORT = [*TORCH, "safetensors>=0.4", "onnx>=1.21", "onnxscript>=0.5", "onnxruntime>=1.20", *RUNTIME]
TRAIN = [
    *TORCH,
    "lightning>=2.6.6",
    "tensorboard>=2.14",
    "pyyaml>=6.0.1",
    "safetensors>=0.4",
    "scipy>=1.13",
    "scikit-learn>=1.5",
    "filelock>=3.20.3",
    *RUNTIME,
]
# what strangers talk to: the oldest releases without known faults (starlette before 1.3.1, h11 before 0.16)
SERVE = ["starlette>=1.3.1", "uvicorn>=0.40", "websockets>=15.0.1", "h11>=0.16", "prometheus-client>=0.20", *RUNTIME]
CLUSTER = ["ray[data]>=2.54", "pyarrow>=23.0.1", *RUNTIME]
FIGURES = ["matplotlib>=3.9", "scikit-learn>=1.5", *RUNTIME]
EXTRAS = {
    "runtime": RUNTIME,
    "cpu": ["onnxruntime>=1.20"],
    "gpu": ["onnxruntime-gpu[cuda,cudnn]>=1.21", "tensorrt>=10", "cuda-python>=12.6"],
    "rtx": ["tensorrt-rtx>=1.1", "cuda-python>=12.6"],
    "openvino": ["openvino>=2025.0"],
    "live": ["sounddevice>=0.4.6"],
    "serve": SERVE,
    "train": TRAIN,
    "export": EXPORT,
    "cluster": CLUSTER,
    "figures": FIGURES,
    "mutate": ["cosmic-ray>=8.4"],
    "docs": ["mkdocs>=1.6", "mkdocs-material>=9.6", "mkdocstrings[python]>=1.0", "ruff>=0.6"],
    "dev": [
        *TRAIN,
        *EXPORT,
        *SERVE,
        *CLUSTER,
        *FIGURES,
        "hypothesis>=6.100",
        "openvino>=2025.0",
        "tensorrt-rtx>=1.1",
        "tritonclient[grpc]>=2.50",
        "mypy>=1.10",
        "playwright>=1.45",
        "pytest>=8",
        "pytest-timeout>=2.3",
        "pytest-xdist>=3.6",
        "ruff>=0.6",
        "setuptools>=77",
        "sounddevice>=0.4.6",
        "webdataset>=0.2.100",
    ],
}


def packages_and_dirs() -> tuple[list[str], dict[str, str]]:
    # the links avgn/export, avgn/kernels and avgn/runtime serve the checkout alone: what ships comes from here
    names = find_packages(include=["avgn", "avgn.*"], exclude=[f"avgn.{name}*" for name in BESIDE])
    dirs = {"avgn": "avgn"}
    for name in BESIDE:
        dirs[f"avgn.{name}"] = name
        names += [f"avgn.{found}" for found in find_packages(include=[name, f"{name}.*"])]
    return names, dirs


def version() -> str:
    found = re.search(r'__version__ = "([^"]+)"', (ROOT / "avgn" / "__init__.py").read_text())
    assert found
    return found.group(1)


PACKAGES, PACKAGE_DIR = packages_and_dirs()

setup(
    name="avgn",
    version=version(),
    description="Audio-visual grouping network: which things sound in a video, and where each is in the picture",
    long_description=(ROOT / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE", "NOTICE"],
    packages=PACKAGES,
    package_dir=PACKAGE_DIR,
    package_data={
        "avgn": ["py.typed", "models/*/*", "recipes/*.yaml"],
        "avgn.reproduce": ["published.json"],
        "avgn.world": ["classes.json"],
        "avgn.runtime.web": ["page/*"],
    },
    python_requires=">=3.10",
    install_requires=["numpy>=2.0", "jsonargparse>=4.30"],
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["avgn = avgn.cli:main"]},
)
