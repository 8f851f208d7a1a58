from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import avgn
from avgn.runtime import Bundle, InputError, Localizer, write_bundle_info
from avgn.runtime.bundle import BUNDLE_FILE, from_json, to_json
from avgn.runtime.decision import DecisionConfig
from avgn.runtime.engines.gpu import find_gpu
from tests.runtime.graphs import CLASSES, GRID, IMAGE_SIZE, bundle_info, write_bundle


@pytest.fixture
def folder(bundle_path: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle_path, tmp_path / "copy"))


def edit(folder: Path, *keys: Any, value: Any) -> None:
    """Change one field of bundle.json."""
    file = folder / BUNDLE_FILE
    raw = json.loads(file.read_text())
    place = raw
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    file.write_text(json.dumps(raw))


def refused(folder: Path | str) -> str:
    with pytest.raises(InputError) as caught:
        Bundle.load(folder)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_round_trip_and_attributes(folder: Path) -> None:
    bundle = Bundle.load(folder)
    assert from_json(to_json(bundle.info)) == bundle.info
    assert (bundle.classes, bundle.image_size, bundle.grid) == (CLASSES, IMAGE_SIZE, GRID)
    assert (bundle.sample_rate, bundle.window_seconds) == (22050, 1.0)
    assert bundle.info.window_samples == 22050 and bundle.info.hop_samples == 4410


def test_missing_folder_and_file(tmp_path: Path) -> None:
    assert refused(tmp_path / "none") == (
        f"bundle {tmp_path / 'none'} does not exist: give a folder made by avgn export, or the name world"
    )
    assert refused(tmp_path) == (f"bundle {tmp_path / 'bundle.json'} does not exist: give a folder made by avgn export")
    file = tmp_path / "file"
    file.write_text("x")
    assert refused(file) == f"bundle {file} is not a folder: give the folder that holds bundle.json"


def test_wrong_hash(folder: Path) -> None:
    graph = folder / "image.onnx"
    graph.write_bytes(graph.read_bytes() + b"x")
    assert "graph 'image.onnx' of bundle" in (message := refused(folder)) and "it was changed or cut off" in message


def test_missing_graph(folder: Path) -> None:
    (folder / "audio.onnx").unlink()
    assert f"graph 'audio.onnx' of bundle {folder} is missing" in refused(folder)


@pytest.mark.parametrize("version", [2, 0, "1", None, True, 1.0])
def test_unknown_version(folder: Path, version: Any) -> None:
    edit(folder, "version", value=version)
    assert f"bundle version {version} is not known: this avgn reads version 1" in refused(folder)


@pytest.mark.parametrize("name", ["/etc/passwd", "C:\\x.onnx", "C:x.onnx", "\\\\host\\x.onnx"])
def test_absolute_path(folder: Path, name: str) -> None:
    edit(folder, "variants", 0, "audio", value=name)
    assert "is absolute: a bundle names files in its folder" in refused(folder)


@pytest.mark.parametrize("name", ["../copy/audio.onnx", "a/../../copy/audio.onnx", "..\\audio.onnx"])
def test_path_that_leaves(folder: Path, name: str) -> None:
    edit(folder, "variants", 0, "audio", value=name)
    assert "leaves the folder" in refused(folder)


def test_link_that_leaves(folder: Path, bundle_path: Path) -> None:
    (folder / "audio.onnx").unlink()
    (folder / "audio.onnx").symlink_to(bundle_path / "audio.onnx")
    assert "is a link that leaves the folder: copy the file into it" in refused(folder)


def test_link_inside_is_fine(folder: Path) -> None:
    (folder / "audio.onnx").rename(folder / "real.onnx")
    (folder / "audio.onnx").symlink_to("real.onnx")
    Bundle.load(folder)


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (("thresholds", "audio"), [0.5], "thresholds.audio must list one value for each of the 3 classes, got 1"),
        (("classes",), ["a", "a", "b"], "classes must be unique names"),
        (("image_size",), [224], "image_size must be [height, width]"),
        (("sample_rate",), -1, "sample_rate must be a whole number"),
        (("window_seconds",), "1", "window_seconds must be a number"),
        (("color_order",), "BGR", "color_order must be RGB"),
        (("variants",), [], "variants must be a list"),
        (("variants", 0, "sha256", "audio"), "xyz", "must be 64 hexadecimal digits"),
        (("decision",), {"release": "high"}, "decision.release must be a number"),
        (("format",), "other", 'not a bundle: "format" must be "avgn-bundle"'),
    ],
)
def test_bad_fields(folder: Path, keys: tuple[Any, ...], value: Any, message: str) -> None:
    edit(folder, *keys, value=value)
    assert message in refused(folder)


def test_shape_mismatch_with_the_graphs(folder: Path) -> None:
    edit(folder, "grid", value=[7, 7])
    with pytest.raises(InputError, match=r"'maps' of the image graph is float32 .*6, 8\], the bundle's sizes ask for"):
        Localizer.load(folder)


def test_declared_tensors_must_be_the_graphs(folder: Path) -> None:
    edit(folder, "variants", 0, "inputs", "audio", 0, "dtype", value="float16")
    with pytest.raises(InputError, match="'waveform' of the audio graph is float32 .*bundle.json says float16"):
        Localizer.load(folder)


def test_graph_that_is_no_graph(folder: Path) -> None:
    from avgn.runtime.bundle import file_sha256

    (folder / "audio.onnx").write_bytes(b"no graph")
    edit(folder, "variants", 0, "sha256", "audio", value=file_sha256(folder / "audio.onnx"))
    with pytest.raises(
        InputError, match=r"'audio.onnx' of bundle .* is no ONNX graph .*, so export it again$"
    ) as caught:
        Localizer.load(folder)
    assert "\n" not in str(caught.value)


def test_unknown_decision_override(folder: Path) -> None:
    edit(folder, "decision", value={"magic": 1.0})
    with pytest.raises(InputError, match="bundle decision 'magic' is not known"):
        Localizer.load(folder).open_stream()
    edit(folder, "decision", value={"min_on": 0.3})
    assert Localizer.load(folder).open_stream().rules.config == DecisionConfig(min_on=0.3)


def test_unknown_backend_and_precision(folder: Path) -> None:
    with pytest.raises(InputError, match="backend 'magic' is not known: choose auto or one of tensorrt, "):
        Localizer.load(folder, backend="magic")
    with pytest.raises(InputError, match="holds no variant with fp16 for auto: choose one of these: fp32 for"):
        Localizer.load(folder, precision="fp16")


def test_write_refuses_bad_facts(tmp_path: Path) -> None:
    write_bundle(tmp_path / "b")
    info = bundle_info(tmp_path / "b", window=1.0, hop=0.2, has_presence=True)
    with pytest.raises(InputError):
        write_bundle_info(tmp_path / "b", replace(info, window_seconds=float("nan")))
    with pytest.raises(InputError, match="can't be written"):
        write_bundle_info(tmp_path / "nowhere", info)
    assert sorted(p.name for p in (tmp_path / "b").iterdir()) == ["audio.onnx", "bundle.json", "image.onnx"]


def test_engine_refuses_wrong_arguments(localizer: Localizer) -> None:
    engine = localizer.engine
    with pytest.raises(ValueError, match=r"waveform must be float32 \[B, 22050\].*got float32 \[1, 100\]"):
        engine.run_audio(np.zeros((1, 100), np.float32))
    with pytest.raises(ValueError, match=r"waveform must be float32"):
        engine.run_audio(np.zeros((1, 22050)))  # type: ignore[arg-type]
    sources = engine.run_audio(np.zeros((2, 22050), np.float32))["sources"]
    with pytest.raises(ValueError, match=r"divisible by 32 \(96x128 as trained\), got uint8 \[2, 100, 96, 3\]"):
        engine.run_image(np.zeros((2, 100, 96, 3), np.uint8), sources)
    with pytest.raises(ValueError, match=r"sources must be float32 \[1, 3, D\] to go with the image"):
        engine.run_image(np.zeros((1, 96, 128, 3), np.uint8), sources)


def test_engine_is_safe_to_share(localizer: Localizer) -> None:
    rng = np.random.default_rng(0)
    sounds = rng.normal(0, 0.1, (8, 1, 22050)).astype(np.float32)
    expected = [localizer.engine.run_audio(sound)["sources"] for sound in sounds]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda n: localizer.engine.run_audio(sounds[n % 8])["sources"], range(64)))
    assert all(np.array_equal(value, expected[n % 8]) for n, value in enumerate(found))


def test_the_choice_of_engine_is_one_log_line(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "avgn.runtime"):
        Localizer.load(folder)
    (record,) = caplog.records
    said = record.message
    if isinstance(missing := find_gpu(), str):
        assert said.startswith(f"engine openvino with fp32 graphs of {folder} (the first that can run here; ")
        assert f"onnxruntime-cuda: {missing}" in said
    else:
        assert "fp32 graphs of" in said


def test_the_shipped_name() -> None:
    shipped = Path(avgn.__file__).parent / "models" / "tiny"
    if shipped.is_dir():
        assert Bundle.load("tiny").path == shipped
    else:
        assert refused("tiny").startswith("bundle 'tiny' is not part of this installation")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value inside a JSON document."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [p for key, child in inner for p in [(*path, key), *places(child, (*path, key))]]


@settings(max_examples=250, deadline=None)
@given(data=st.data())
def test_mutated_json_never_raises_anything_else(bundle_path: Path, data: st.DataObject) -> None:
    raw = json.loads((bundle_path / BUNDLE_FILE).read_text())
    for _ in range(data.draw(st.integers(1, 3))):
        *keys, last = data.draw(st.sampled_from(places(raw)))
        place = raw
        for key in keys:
            place = place[key]
        if data.draw(st.booleans()):
            place[last] = data.draw(json_values)
        else:
            del place[last]
        if not places(raw):
            break
    text = json.dumps(raw)
    try:
        info = from_json(text)
    except InputError as error:
        assert "\n" not in str(error)
        return
    assert from_json(to_json(info)) == info


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_mutated_text_never_raises_anything_else(bundle_path: Path, data: st.DataObject) -> None:
    text = (bundle_path / BUNDLE_FILE).read_text()
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 40)))
    try:
        from_json(text[:start] + data.draw(st.text(max_size=10)) + text[end:])
    except InputError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize("text", ["[" * 100000, "9" * 5000, '{"a": NaN}', "", "null", '"\\ud800"', "{" * 3])
def test_hostile_text(text: str) -> None:
    with pytest.raises(InputError):
        from_json(text)
