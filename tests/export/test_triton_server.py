"""The model repository of a server: its text parses as the server's own message, and its files are the bundle's."""

from __future__ import annotations

from pathlib import Path

import pytest

from avgn.export.triton_server import write_repository
from avgn.runtime import Bundle, InputError

protobuf = pytest.importorskip("google.protobuf.text_format")
messages = pytest.importorskip("tritonclient.grpc.model_config_pb2")


def test_the_shipped_bundle_as_a_repository(tmp_path: Path) -> None:
    bundle = Bundle.load("tiny")
    folders = write_repository("tiny", tmp_path / "models", max_batch=8)
    assert [folder.name for folder in folders] == ["avgn_audio", "avgn_image"]
    for folder, half in zip(folders, ("audio", "image"), strict=True):
        config = protobuf.Parse((folder / "config.pbtxt").read_text(), messages.ModelConfig())
        assert config.name == folder.name and config.backend == "onnxruntime" and config.max_batch_size == 8
        assert config.HasField("dynamic_batching")
        variant = bundle.variants[0]
        assert (folder / "1" / "model.onnx").read_bytes() == bundle.graph(variant, half).read_bytes()
        for tensors, specs in ((config.input, variant.inputs[half]), (config.output, variant.outputs[half])):
            assert [tensor.name for tensor in tensors] == [spec.name for spec in specs]
            for tensor, spec in zip(tensors, specs, strict=True):
                assert list(tensor.dims) == [axis if isinstance(axis, int) else -1 for axis in spec.shape[1:]]
        assert (folder / "classes.txt").read_text().split() == list(bundle.classes)
        assert config.parameters["sample_rate"].string_value == "22050"


def test_bad_requests(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="engine 'tensorrt-rtx' is not run by"):
        write_repository("tiny", tmp_path / "m", engine="tensorrt-rtx")
    with pytest.raises(InputError, match="holds no int8-cpu variant for onnxruntime: it holds fp32 for onnxruntime"):
        write_repository("tiny", tmp_path / "m", precision="int8-cpu")
    with pytest.raises(InputError, match="--max-batch must be at least 1"):
        write_repository("tiny", tmp_path / "m", max_batch=0)
    assert not (tmp_path / "m").exists()
    write_repository("tiny", tmp_path / "m")
    with pytest.raises(InputError, match="exists already"):
        write_repository("tiny", tmp_path / "m")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="can't be written"):
        write_repository("tiny", tmp_path / "file" / "m")
