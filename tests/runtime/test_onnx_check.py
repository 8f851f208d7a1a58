"""What a bundle's graphs may hold: attacks by files that onnx itself writes, and files that are nearly ONNX."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from avgn.runtime import Bundle, InputError, Localizer
from avgn.runtime.bundle import BUNDLE_FILE, file_sha256
from avgn.runtime.onnx_check import OPERATORS, check_onnx_bytes
from tests.commands import refused as refused_by_command
from tests.runtime.graphs import audio_graph

LENGTH = 64


@pytest.fixture
def folder(bundle_path: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle_path, tmp_path / "copy"))


def put(folder: Path, data: bytes, name: str = "audio.onnx") -> None:
    """Make `data` the bundle's audio graph, with its right hash."""
    (folder / name).write_bytes(data)
    raw = json.loads((folder / BUNDLE_FILE).read_text())
    raw["variants"][0]["audio"] = name
    raw["variants"][0]["sha256"]["audio"] = file_sha256(folder / name)
    (folder / BUNDLE_FILE).write_text(json.dumps(raw))


def refused(data: bytes) -> str:
    with pytest.raises(InputError) as caught:
        check_onnx_bytes(data)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def outside(tensor: Any, location: str = "*/_ORT_MEM_ADDR_/*") -> Any:
    """Let a tensor's data lie elsewhere: by default in the memory of the process, where some engines look."""
    count = int(np.prod(tensor.dims)) * 4
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "4096"), ("length", str(count))):
        tensor.external_data.add(key=key, value=value)
    return tensor


def branch() -> Any:
    one = helper.make_node("Constant", [], ["one"], value=numpy_helper.from_array(np.float32(1)))
    return helper.make_graph([one], "b", [], [helper.make_tensor_value_info("one", TensorProto.FLOAT, [])])


def external(model: Any) -> None:
    outside(model.graph.initializer[0])


def external_file(model: Any) -> None:
    outside(model.graph.initializer[0], "secret.bin")


def external_without_location(model: Any) -> None:
    model.graph.initializer[0].external_data.add(key="location", value="/etc/passwd")


def external_constant(model: Any) -> None:
    tensor = outside(numpy_helper.from_array(np.zeros(4, np.float32)))
    model.graph.node.append(helper.make_node("Constant", [], ["c"], value=tensor))


def external_list(model: Any) -> None:
    node = helper.make_node("Relu", ["waveform"], ["c"])
    attribute = node.attribute.add(name="x", type=onnx.AttributeProto.TENSORS)
    attribute.tensors.append(outside(numpy_helper.from_array(np.zeros(4, np.float32))))
    model.graph.node.append(node)


def external_sparse(model: Any) -> None:
    values = outside(numpy_helper.from_array(np.zeros(4, np.float32), "s"))
    model.graph.sparse_initializer.append(
        helper.make_sparse_tensor(values, numpy_helper.from_array(np.arange(4)), [100])
    )


def sparse_attribute(model: Any) -> None:
    values = numpy_helper.from_array(np.zeros(4, np.float32), "s")
    sparse = helper.make_sparse_tensor(values, numpy_helper.from_array(np.arange(4)), [100])
    model.graph.node.append(helper.make_node("Constant", [], ["c"], sparse_value=sparse))


def external_in_a_branch(model: Any) -> None:
    inner = branch()
    inner.initializer.append(outside(numpy_helper.from_array(np.zeros(4, np.float32), "x")))
    model.graph.node.append(helper.make_node("If", ["a"], ["b"], then_branch=inner, else_branch=branch()))


def loop(model: Any) -> None:
    model.graph.node.append(helper.make_node("Loop", ["", "true"], ["b"], body=branch()))


def scan(model: Any) -> None:
    model.graph.node.append(helper.make_node("Scan", ["a"], ["b"], body=branch(), num_scan_inputs=1))


def graph_under_another_name(model: Any) -> None:
    model.graph.node.append(helper.make_node("Relu", ["a"], ["b"], body=branch()))


def function(model: Any) -> None:
    node = helper.make_node("Relu", ["x"], ["y"])
    model.functions.append(helper.make_function("local", "F", ["x"], ["y"], [node], [helper.make_opsetid("", 18)]))


def training(model: Any) -> None:
    model.training_info.add().algorithm.CopyFrom(branch())


def custom_domain(model: Any) -> None:
    model.graph.node[0].domain = "com.evil"


def contrib_domain(model: Any) -> None:
    model.graph.node[0].domain = "com.microsoft"


def custom_import(model: Any) -> None:
    model.opset_import.append(helper.make_opsetid("com.evil", 1))


def unknown_operator(model: Any) -> None:
    model.graph.node[0].op_type = "PyOp"


def no_operator(model: Any) -> None:
    model.graph.node[0].ClearField("op_type")


def too_short(model: Any) -> None:
    tensor = model.graph.initializer[0]
    tensor.raw_data = tensor.raw_data[:-4]


def too_large(model: Any) -> None:
    del model.graph.initializer[0].dims[:]
    model.graph.initializer[0].dims.extend([1 << 40, 1 << 40])


def negative(model: Any) -> None:
    model.graph.initializer[0].dims[0] = -1


def short_floats(model: Any) -> None:
    tensor = helper.make_tensor("t", TensorProto.FLOAT, [4], [1.0, 2.0, 3.0, 4.0])
    del tensor.float_data[-1]
    model.graph.initializer.append(tensor)


def short_integers(model: Any) -> None:
    tensor = helper.make_tensor("t", TensorProto.INT64, [4], [1, 300, -1, 4])
    del tensor.int64_data[-1]
    model.graph.initializer.append(tensor)


def strings(model: Any) -> None:
    model.graph.initializer.append(helper.make_tensor("t", TensorProto.STRING, [1], [b"x"]))


def overloaded(model: Any) -> None:
    model.graph.node[0].overload = "x"


def referred(model: Any) -> None:
    model.graph.node[0].attribute.add(name="axis", ref_attr_name="x", type=onnx.AttributeProto.INT)


ATTACKS: dict[Callable[[Any], None], str] = {
    external: "outside of its file",
    external_file: "outside of its file",
    external_without_location: "outside of its file",
    external_constant: "outside of its file",
    external_list: "outside of its file",
    external_sparse: "sparse",
    sparse_attribute: "sparse",
    external_in_a_branch: "the operator 'If'",
    loop: "the operator 'Loop'",
    scan: "the operator 'Scan'",
    graph_under_another_name: "loops or branches",
    function: "functions of its own",
    training: "training steps",
    custom_domain: "an operator of 'com.evil'",
    contrib_domain: "an operator of 'com.microsoft'",
    custom_import: "the operators of 'com.evil'",
    unknown_operator: "the operator 'PyOp'",
    no_operator: "without an operator",
    too_short: "not as many as its shape says",
    too_large: "a size that can't be",
    negative: "a size that can't be",
    short_floats: "not as many as its shape says",
    short_integers: "not as many as its shape says",
    strings: "unknown field (6) of a tensor",
    overloaded: "overloaded",
    referred: "unknown field (21) of an attribute",
}


@pytest.mark.parametrize("change", ATTACKS, ids=lambda change: change.__name__)
def test_graphs_that_are_more_than_arithmetic(change: Callable[[Any], None]) -> None:
    model = audio_graph(LENGTH, True)
    check_onnx_bytes(model.SerializeToString())
    change(model)
    assert ATTACKS[change] in refused(model.SerializeToString())


@pytest.mark.parametrize("backend", ["auto", "onnxruntime", "openvino"])
def test_no_engine_sees_a_graph_that_reads_memory(folder: Path, backend: str) -> None:
    model = audio_graph(22050, True)
    external(model)
    put(folder, model.SerializeToString())
    with pytest.raises(InputError, match="graph 'audio.onnx' of bundle .* keeps data outside of its file"):
        Localizer.load(folder, backend)


def test_the_command_says_it_in_a_sentence(folder: Path) -> None:
    model = audio_graph(22050, True)
    external_file(model)
    (folder / "secret.bin").write_bytes(bytes(1 << 20))
    put(folder, model.SerializeToString())
    said = refused_by_command("localize", folder, "no-video.mp4")
    assert "keeps data outside of its file: a bundle holds self-contained graphs" in said


def test_other_formats_that_engines_know_by_name_are_no_graphs(folder: Path) -> None:
    good = (folder / "audio.onnx").read_bytes()
    for name in ("audio.xml", "audio.ort", "audio.pb", "audio.tflite", "audio.pdmodel", "audio", "audio.ONNX"):
        put(folder, good, name)
        with pytest.raises(InputError, match=r"not \*\.onnx"):
            Bundle.load(folder)
    put(folder, b"<?xml version='1.0'?><net name='x' version='11'><layers/></net>")
    with pytest.raises(InputError, match="is no ONNX graph"):
        Bundle.load(folder)
    put(folder, b"")
    with pytest.raises(InputError, match="is empty"):
        Bundle.load(folder)


def test_files_that_the_bundle_does_not_list_are_never_read(folder: Path) -> None:
    for name in ("audio.bin", "audio.onnx.data", "audio.onnx_data", "custom_ops.so", "weights.safetensors"):
        # whoever opens one waits for ever
        os.mkfifo(folder / name)
    engine = Localizer.load(folder, "onnxruntime", threads=1).engine
    assert engine.run_audio(np.zeros((1, 22050), np.float32))["audio_prob"].shape == (1, 3)


def test_merged_messages_do_not_hide_a_shape() -> None:
    """Parsers merge a field that is given twice: two small tensors become one that claims their product."""
    model = audio_graph(LENGTH, True)
    node = helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.zeros(4, np.float32)))
    attribute = node.attribute[0].SerializeToString()
    again = onnx.AttributeProto(t=numpy_helper.from_array(np.zeros(4, np.float32))).SerializeToString()
    merged = onnx.AttributeProto.FromString(attribute + again)
    assert list(merged.t.dims) == [4, 4] and len(merged.t.raw_data) == 16
    whole = model.SerializeToString()
    assert "two graphs" in refused(whole + onnx.ModelProto(graph=branch()).SerializeToString())
    node.attribute[0].CopyFrom(merged)
    model.graph.node.append(node)
    assert "not as many" in refused(model.SerializeToString())
    raw = _field(1, _field(4, b"Constant") + _field(5, attribute + again))
    assert "two tensors" in refused(_field(7, raw))


def _field(number: int, data: bytes) -> bytes:
    length, size = b"", len(data)
    while size > 127:
        length, size = length + bytes([size & 127 | 128]), size >> 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + data


def test_what_is_no_protocol_buffer() -> None:
    good = audio_graph(LENGTH, True).SerializeToString()
    for data in (b"", b"\x00", b"\xff" * 100, b"\x3a\xff\xff\xff\xff\x0f", b"\x3b\x3c", b"\x3a", b"torn" * 1000):
        refused(data)
    for cut in range(0, len(good), 37):
        refused(good[:cut])
    assert "500000 fields" in refused(_field(7, b"\x12\x00" * 600_000))
    assert "unknown field (9)" in refused(b"\x4a\x00" + good)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_nothing_but_a_refusal_leaves_the_check(data: st.DataObject) -> None:
    """Mutated graphs are refused or read; what is read, onnx reads as a graph of the default domain without more."""
    raw = bytearray(SMALL)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw) - 1))
        how = data.draw(st.sampled_from(["set", "cut", "insert", "double"]))
        if how == "set":
            raw[at] = data.draw(st.integers(0, 255))
        elif how == "cut":
            del raw[at : at + data.draw(st.integers(1, 20))]
        elif how == "insert":
            raw[at:at] = data.draw(st.binary(min_size=1, max_size=12))
        else:
            raw[at:at] = raw[at : at + data.draw(st.integers(1, 200))]
        if not raw:
            return
    begin = time.process_time()
    try:
        check_onnx_bytes(bytes(raw))
    except InputError:
        return
    finally:
        assert time.process_time() - begin < 1.0
    try:
        model = onnx.ModelProto.FromString(bytes(raw))
    except (DecodeError, UnicodeDecodeError):
        # a name that is no UTF-8, for one: engines refuse it, too
        return
    assert not model.functions and not model.training_info and not model.graph.sparse_initializer
    for node in model.graph.node:
        assert node.domain in ("", "ai.onnx") and node.op_type in OPERATORS
        assert not any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute)
    for tensor in model.graph.initializer:
        assert not tensor.external_data and not tensor.data_location
        if tensor.HasField("raw_data"):
            itemsize = helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
            assert len(tensor.raw_data) == int(np.prod(tensor.dims, dtype=object)) * itemsize


SMALL = audio_graph(8, True).SerializeToString()


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=4000))
def test_any_bytes_are_refused_in_a_moment(data: bytes) -> None:
    begin = time.process_time()
    with pytest.raises(InputError):
        check_onnx_bytes(data)
    assert time.process_time() - begin < 1.0


def test_the_shipped_graphs_pass_in_a_few_milliseconds() -> None:
    folder = Path(str(Bundle.load("tiny").path))
    graphs = [(folder / f"{half}.onnx").read_bytes() for half in ("audio", "image")]
    taken = []
    for _ in range(5):
        begin = time.perf_counter()
        for data in graphs:
            check_onnx_bytes(data)
        taken.append(time.perf_counter() - begin)
    assert min(taken) < 0.05, taken
