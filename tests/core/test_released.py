"""Published checkpoints: names, exact scores against a plain rebuild in float64, and files that are none."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.signal
import torch
from torch import Tensor, nn

from avgn.checkpoint import load_model
from avgn.cli import main
from avgn.convert import classes_of_list, convert_released
from avgn.runtime.errors import InputError
from avgn.scenes import CLASSES

METADATA = Path(__file__).resolve().parents[3] / "shared" / "metadata"
DIM, DEPTH, HEADS, TAU = 512, 3, 8, 0.03
State = dict[str, Tensor]


def released_shapes(classes: int) -> dict[str, list[int]]:
    """Names and shapes of a published checkpoint."""
    shapes: dict[str, list[int]] = {"av_token": [classes, DIM]}
    for net, channels in (("imgnet", 3), ("audnet", 1)):
        shapes[f"{net}.conv1.weight"] = [64, channels, 7, 7]
        norm(shapes, f"{net}.bn1", 64)
        before = 64
        for layer, width in enumerate((64, 128, 256, 512), start=1):
            for block in range(2):
                name = f"{net}.layer{layer}.{block}"
                shapes[f"{name}.conv1.weight"] = [width, before, 3, 3]
                shapes[f"{name}.conv2.weight"] = [width, width, 3, 3]
                norm(shapes, f"{name}.bn1", width)
                norm(shapes, f"{name}.bn2", width)
                if before != width:
                    shapes[f"{name}.downsample.0.weight"] = [width, before, 1, 1]
                    norm(shapes, f"{name}.downsample.1", width)
                before = width
    shapes |= {"img_proj.weight": [DIM, DIM, 1, 1], "img_proj.bias": [DIM]}
    linear(shapes, "aud_proj", DIM, DIM)
    for encoder in ("audio_encoder", "visual_encoder"):
        for index in range(DEPTH):
            block_of(shapes, f"{encoder}.blocks.{index}")
        grouping_of(shapes, f"{encoder}.grouping", classes)
    grouping_of(shapes, "audio_encoder.han_encoder", 10)
    linear(shapes, "fc_prob_a", 1, DIM)
    linear(shapes, "fc_prob_v", 1, DIM)
    linear(shapes, "fc_cls", classes, DIM)
    return shapes


def norm(shapes: dict[str, list[int]], name: str, width: int) -> None:
    shapes |= {f"{name}.{part}": [width] for part in ("weight", "bias", "running_mean", "running_var")}
    shapes[f"{name}.num_batches_tracked"] = []


def linear(shapes: dict[str, list[int]], name: str, out: int, width: int) -> None:
    shapes |= {f"{name}.weight": [out, width], f"{name}.bias": [out]}


def layer_norm(shapes: dict[str, list[int]], name: str) -> None:
    shapes |= {f"{name}.weight": [DIM], f"{name}.bias": [DIM]}


def mlp_of(shapes: dict[str, list[int]], name: str, width: int, hidden: int) -> None:
    linear(shapes, f"{name}.fc1", hidden, width)
    linear(shapes, f"{name}.fc2", width, hidden)


def block_of(shapes: dict[str, list[int]], name: str) -> None:
    layer_norm(shapes, f"{name}.norm1")
    linear(shapes, f"{name}.attn.qkv", 3 * DIM, DIM)
    linear(shapes, f"{name}.attn.proj", DIM, DIM)
    layer_norm(shapes, f"{name}.norm2")
    mlp_of(shapes, f"{name}.mlp", DIM, 4 * DIM)


def grouping_of(shapes: dict[str, list[int]], name: str, classes: int) -> None:
    for part in ("norm_tokens", "norm_post_tokens", "norm_x", "norm_new_x", "pre_assign_attn.norm2"):
        layer_norm(shapes, f"{name}.{part}")
    layer_norm(shapes, f"{name}.pre_assign_attn.norm_post")
    mlp_of(shapes, f"{name}.mlp_inter", classes, DIM // 2)
    for part in ("pre_assign_attn.attn", "assign"):
        for projection in ("q_proj", "k_proj", "v_proj", "proj"):
            linear(shapes, f"{name}.{part}.{projection}", DIM, DIM)
    mlp_of(shapes, f"{name}.pre_assign_attn.mlp", DIM, 4 * DIM)
    mlp_of(shapes, f"{name}.mlp_channels", DIM, 4 * DIM)


def random_state(classes: int, seed: int = 0) -> State:
    generator = torch.Generator().manual_seed(seed)
    state: State = {}
    for name, shape in released_shapes(classes).items():
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(7)
        elif name.endswith("running_var") or (len(shape) == 1 and name.endswith("weight")):
            state[name] = 0.5 + torch.rand(shape, generator=generator)
        else:
            fan = int(np.prod(shape[1:])) if len(shape) > 1 else 100
            state[name] = torch.randn(shape, generator=generator) * fan**-0.5
    return state


class Plain:
    """The published model from its description, in float64, with nothing of this package."""

    def __init__(self, state: State) -> None:
        self.state = {name: value.double() for name, value in state.items()}

    def line(self, name: str, x: Tensor) -> Tensor:
        return x @ self.state[f"{name}.weight"].T + self.state[f"{name}.bias"]

    def layer(self, name: str, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return scaled * self.state[f"{name}.weight"] + self.state[f"{name}.bias"]

    def mlp(self, name: str, x: Tensor) -> Tensor:
        hidden = self.line(f"{name}.fc1", x)
        return self.line(f"{name}.fc2", 0.5 * hidden * (1 + torch.erf(hidden / 2**0.5)))

    def resnet(self, name: str, x: Tensor) -> Tensor:
        def conv(x: Tensor, part: str, stride: int, padding: int) -> Tensor:
            return nn.functional.conv2d(x, self.state[f"{name}.{part}.weight"], stride=stride, padding=padding)

        def bn(x: Tensor, part: str) -> Tensor:
            mean, var, weight, bias = (
                self.state[f"{name}.{part}.{kind}"][:, None, None]
                for kind in ("running_mean", "running_var", "weight", "bias")
            )
            return (x - mean) / (var + 1e-5).sqrt() * weight + bias

        x = nn.functional.max_pool2d(bn(conv(x, "conv1", 2, 3), "bn1").relu(), 3, 2, 1)
        for layer in range(1, 5):
            for block in range(2):
                part, stride = f"layer{layer}.{block}", 2 if layer > 1 and block == 0 else 1
                out = bn(conv(x, f"{part}.conv1", stride, 1), f"{part}.bn1").relu()
                out = bn(conv(out, f"{part}.conv2", 1, 1), f"{part}.bn2")
                if f"{name}.{part}.downsample.0.weight" in self.state:
                    x = bn(conv(x, f"{part}.downsample.0", stride, 0), f"{part}.downsample.1")
                x = (x + out).relu()
        return x

    def heads(self, query: Tensor, key: Tensor, value: Tensor, heads: int, dim: int = -1) -> Tensor:
        outs = []
        width = query.shape[-1] // heads
        for index in range(heads):
            part = slice(index * width, (index + 1) * width)
            scores = query[..., part] @ key[..., part].transpose(-1, -2) * width**-0.5
            weights = scores.softmax(dim)
            if dim == -2:
                weights = weights / (weights.sum(-1, keepdim=True) + 1)
            outs.append(weights @ value[..., part])
        return torch.cat(outs, -1)

    def encoder(self, name: str, features: Tensor) -> Tensor:
        count = features.shape[1]
        tokens = self.state["av_token"].expand(features.shape[0], -1, -1)
        x = torch.cat([features, tokens], 1)
        for index in range(DEPTH):
            block = f"{name}.blocks.{index}"
            query, key, value = self.line(f"{block}.attn.qkv", self.layer(f"{block}.norm1", x)).chunk(3, -1)
            x = x + self.line(f"{block}.attn.proj", self.heads(query, key, value, HEADS))
            x = x + self.mlp(f"{block}.mlp", self.layer(f"{block}.norm2", x))
        features, tokens = x[:, :count], x[:, count:]
        group = f"{name}.grouping"
        t = self.mlp(f"{group}.mlp_inter", self.layer(f"{group}.norm_tokens", tokens).transpose(1, 2)).transpose(1, 2)
        t = self.layer(f"{group}.norm_post_tokens", t)
        x = self.layer(f"{group}.norm_x", features)
        cross = f"{group}.pre_assign_attn"
        query, key, value = (self.line(f"{cross}.attn.{part}_proj", y) for part, y in (("q", t), ("k", x), ("v", x)))
        t = t + self.line(f"{cross}.attn.proj", self.heads(query, key, value, HEADS))
        t = t + self.mlp(f"{cross}.mlp", self.layer(f"{cross}.norm2", t))
        t = self.layer(f"{cross}.norm_post", t)
        query, key, value = (self.line(f"{group}.assign.{part}_proj", y) for part, y in (("q", t), ("k", x), ("v", x)))
        grouped = t + self.line(f"{group}.assign.proj", self.heads(query, key, value, 1, dim=-2))
        return grouped + self.mlp(f"{group}.mlp_channels", self.layer(f"{group}.norm_new_x", grouped))

    def __call__(self, image: Tensor, spectrogram: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        cells = self.resnet("imgnet", image)
        cells = (
            torch.einsum("bchw,dc->bhwd", cells, self.state["img_proj.weight"][:, :, 0, 0])
            + self.state["img_proj.bias"]
        )
        grid = cells.shape[1:3]
        cells = nn.functional.normalize(cells.flatten(1, 2), dim=2)
        sound = self.line("aud_proj", self.resnet("audnet", spectrogram).amax((2, 3)))
        sources = self.encoder("audio_encoder", nn.functional.normalize(sound, dim=1)[:, None])
        seen = self.encoder("visual_encoder", cells)
        scores = torch.einsum("bkd,bpd->bkp", sources, cells).unflatten(2, grid) / TAU
        audio, visual = (
            self.line(f"fc_prob_{half}", g).squeeze(2).sigmoid() for half, g in (("a", sources), ("v", seen))
        )
        return scores, audio, visual


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> tuple[State, Path]:
    """A published checkpoint of ten classes: `module.` prefixes, under "model"."""
    state = random_state(10)
    path = tmp_path_factory.mktemp("released") / "best.pth"
    torch.save({"model": {f"module.{name}": value for name, value in state.items()}, "epoch": 20}, path)
    return state, path


@pytest.mark.skipif(
    not METADATA.is_dir(), reason="the layout of the published checkpoint (../shared/metadata) is not here"
)
def test_the_layout_is_the_published_one() -> None:
    published = json.loads((METADATA / "released_state_dict_37_classes.json").read_text())
    assert released_shapes(37) == published


def test_scores_probabilities_and_spectrogram_are_the_published_ones(
    released: tuple[State, Path], tmp_path: Path
) -> None:
    state, path = released
    model = load_model(convert_released(path, tmp_path / "out", CLASSES))
    generator = torch.Generator().manual_seed(3)
    waveform = 0.1 * torch.randn(2, 66_150, generator=generator)
    spectrogram = model.frontend(waveform)
    _, _, density = scipy.signal.spectrogram(waveform.double().numpy(), 22_050, nperseg=512, noverlap=274)
    truth = np.log(density + 1e-7) / 12
    assert spectrogram.shape == (2, 1, 257, 276)
    assert np.abs(spectrogram[:, 0].numpy() - truth).max() <= 1e-4
    image = torch.randn(2, 3, 224, 224, generator=generator)
    with torch.no_grad():
        found = model.forward_features(image, spectrogram)
        scores, audio, visual = Plain(state)(image.double(), spectrogram.double())
    assert found.scores.shape == scores.shape == (2, 10, 7, 7)
    assert (found.scores - scores).abs().max() <= 1e-5 * scores.abs().max()
    assert found.audio_prob is not None and (found.audio_prob - audio).abs().max() <= 1e-5
    assert found.visual_prob is not None and (found.visual_prob - visual).abs().max() <= 1e-5


def test_a_converted_checkpoint_is_exported_and_streamed(released: tuple[State, Path], tmp_path: Path) -> None:
    from avgn.export.bundle import export_bundle
    from avgn.runtime import Localizer

    checkpoint = convert_released(released[1], tmp_path / "out", CLASSES)
    bundle = export_bundle(checkpoint, tmp_path / "bundle")
    engine = Localizer.load(bundle.path).engine
    rng = np.random.default_rng(0)
    waveform = (0.1 * rng.standard_normal((1, 66_150))).astype(np.float32)
    image = rng.integers(256, size=(1, 224, 224, 3), dtype=np.uint8)
    maps = engine.run_image(image, engine.run_audio(waveform)["sources"])["maps"]
    model = load_model(checkpoint)
    with torch.no_grad():
        audio, seen = model(torch.from_numpy(waveform), torch.from_numpy(image))
        truth = model.localize(audio, seen).numpy()
    assert np.abs(maps - truth).max() <= 1e-5 * np.abs(truth).max()


class Code:
    """Something that would run on loading."""

    def __reduce__(self) -> Any:
        return print, ("loaded",)


def test_files_that_are_no_published_checkpoint(
    released: tuple[State, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state, path = released
    cases: list[tuple[Path, tuple[str, ...] | None, str]] = [(tmp_path / "none.pth", None, "does not exist")]
    for name, content, message in (
        ("other", {"weight": torch.zeros(3)}, "no class tokens"),
        ("list", [1, 2], "holds a list, no state dict"),
        ("short", {name: value for name, value in state.items() if "fc_cls" not in name}, "doesn't fit"),
        ("code", {"model": Code()}, "may run code"),
    ):
        torch.save(content, tmp_path / f"{name}.pth")
        cases.append((tmp_path / f"{name}.pth", None, message))
    (tmp_path / "text.pth").write_text("no checkpoint")
    (tmp_path / "bare.pth").write_bytes(pickle.dumps({"a": Code()}))
    (tmp_path / "cut.pth").write_bytes(path.read_bytes()[:5000])
    cases += [(tmp_path / "text.pth", None, "can't be read|more than weights")]
    cases += [(tmp_path / "bare.pth", None, "more than weights"), (tmp_path / "cut.pth", None, "can't be read")]
    folder, fifo, none = (tmp_path / name for name in ("folder", "fifo", "none"))
    folder.mkdir()
    os.mkfifo(fifo)
    way_out = "give a published checkpoint, as the .pth file that was downloaded"
    cases += [(folder, None, f"^{folder} is a folder, not a file: {way_out}$")]
    cases += [(fifo, None, f"^{fifo} is a FIFO, not a file: {way_out}$")]
    cases += [(none, None, f"^{none} does not exist: {way_out}$")]
    cases += [(path, ("a", "b"), "has 10 classes, 2 names"), (path, ("a",) * 10, "not unique")]
    for file, classes, message in cases:
        with pytest.raises(InputError, match=message):
            convert_released(file, tmp_path / "out", classes)
        assert not (tmp_path / "out").exists()
    assert "loaded" not in capsys.readouterr().out


def test_the_command(released: tuple[State, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listed = tmp_path / "train.txt"
    listed.write_text("".join(f"clip_{k},{name}\n" for k, name in enumerate(reversed(CLASSES))))
    assert classes_of_list(listed) == tuple(sorted(CLASSES))
    assert main(["convert", str(released[1]), str(tmp_path / "out"), "--metadata", str(listed)]) == 0
    assert load_model(tmp_path / "out").config.classes == tuple(sorted(CLASSES))
    assert main(["convert", str(released[1]), str(tmp_path / "out")]) == 2
    assert "not empty" in capsys.readouterr().err
