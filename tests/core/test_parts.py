"""The parts of the model, each against its equation in float64: what training would hide for a long time."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from avgn.config import preset
from avgn.encoders import AudioEncoder, ResNet18, VisualEncoder
from avgn.grouping import AUDIO_EPS, Grouping, build_audio_grouping, build_visual_grouping
from avgn.model import AVGN
from avgn.transformer import INIT_STD, Block, SelfAttention, TokenTransformer, build_transformer

DIM, HEADS = 16, 4
SMALL: dict[str, Any] = {"classes": ("a", "b", "c", "d", "e"), "dim": DIM, "heads": HEADS, "depth": 2}


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def lively(module: nn.Module, seed: int = 1) -> nn.Module:
    """In float64, with weights and biases large enough for every one to matter."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.double().parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return module.eval()


def by_hand(grouping: Any, features: Tensor, tokens: Tensor, *, eps: float, hard: bool) -> Tensor:
    """Equations 6-8, one cell and one class at a time."""
    result = tokens.clone()
    for b in range(len(features)):
        query, key = features[b] @ grouping.query.weight.T, tokens[b] @ grouping.key.weight.T
        value = features[b] @ grouping.value.weight.T
        assignment = (query @ key.T / math.sqrt(DIM)).softmax(dim=1)
        if hard:
            assignment = nn.functional.one_hot(assignment.argmax(dim=1), tokens.shape[1]).double()
        for i in range(tokens.shape[1]):
            total = assignment[:, i].sum() + eps
            if total > 0:
                result[b, i] += (assignment[:, i] @ value) / total @ grouping.out.weight.T
    return result


@pytest.mark.parametrize("assignment", ["soft", "hard"])
def test_visual_grouping_is_equations_6_to_8_with_the_assignment_asked_for(assignment: str) -> None:
    grouping = lively(build_visual_grouping(preset("avgn-tiny", **SMALL, assignment=assignment)))
    features, tokens = rand(2, 9, DIM), rand(2, 5, DIM, seed=2)
    with torch.no_grad():
        found = grouping(features, tokens)
        truth = by_hand(grouping, features, tokens, eps=0.0, hard=assignment == "hard")
    torch.testing.assert_close(found, truth)
    # no biases, which the equations have not
    names = {f"{part}.weight" for part in ("query", "key", "value", "out")}
    assert {name for name, _ in grouping.named_parameters()} == names


def test_audio_grouping_with_eps_is_the_released_weighting() -> None:
    grouping = lively(build_audio_grouping(preset("avgn-tiny", **SMALL, audio_gate="eps")))
    assert isinstance(grouping, Grouping)
    features, tokens = rand(2, 1, DIM), rand(2, 5, DIM, seed=2)
    with torch.no_grad():
        torch.testing.assert_close(grouping(features, tokens), by_hand(grouping, features, tokens, eps=1.0, hard=False))
    assert AUDIO_EPS == 1.0


@pytest.mark.parametrize("depth", [1, 3])
def test_literal_attention_is_equations_4_and_5_as_printed(depth: int) -> None:
    transformer = build_transformer(preset("avgn-tiny", **(SMALL | {"depth": depth}), attention="literal"))
    assert not list(transformer.parameters())
    features, tokens = 0.3 * rand(2, 7, DIM), 0.3 * rand(5, DIM, seed=2)
    seen, classes = transformer(features, tokens)
    for b in range(2):
        x = torch.cat([features[b], tokens])
        for _ in range(depth):
            weights = torch.exp(x @ x.T / 4.0)  # sqrt(16)
            x = weights / weights.sum(dim=1, keepdim=True) @ x
        torch.testing.assert_close(seen[b], x[:7])
        torch.testing.assert_close(classes[b], x[7:])


def test_without_transformers_features_and_tokens_pass_through() -> None:
    transformer = build_transformer(preset("avgn-tiny", **SMALL, ablation="grouping"))
    features, tokens = rand(2, 7, DIM), rand(5, DIM, seed=2)
    seen, classes = transformer(features, tokens)
    assert seen is features and torch.equal(classes, torch.stack([tokens, tokens]))


def test_self_attention_is_that_of_pytorch() -> None:
    ours = lively(SelfAttention(DIM, HEADS))
    theirs = nn.MultiheadAttention(DIM, HEADS, batch_first=True).double()
    with torch.no_grad():
        theirs.in_proj_weight.copy_(ours.get_parameter("qkv.weight"))
        theirs.in_proj_bias.copy_(ours.get_parameter("qkv.bias"))
        theirs.out_proj.load_state_dict(ours.get_submodule("project").state_dict())
        x = rand(3, 11, DIM)
        torch.testing.assert_close(ours(x), theirs(x, x, x, need_weights=False)[0])


def test_a_block_is_pre_norm_and_the_transformer_ends_with_a_norm() -> None:
    transformer = lively(build_transformer(preset("avgn-tiny", **SMALL)))
    assert isinstance(transformer, TokenTransformer)
    features, tokens = rand(2, 7, DIM), rand(5, DIM, seed=2)

    def norm(layer: Any, x: Tensor) -> Tensor:
        spread = (x.var(dim=-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
        return (x - x.mean(dim=-1, keepdim=True)) / spread * layer.weight + layer.bias

    with torch.no_grad():
        x = torch.cat([features, tokens.expand(2, -1, -1)], dim=1)
        for block in transformer.blocks:
            assert isinstance(block, Block)
            x = x + block.attention(norm(block.norm1, x))
            first: Any = block.mlp[0]
            last: Any = block.mlp[2]
            hidden = norm(block.norm2, x) @ first.weight.T + first.bias
            x = x + 0.5 * hidden * (1 + torch.erf(hidden / 2**0.5)) @ last.weight.T + last.bias
        x = norm(transformer.norm, x)
        seen, classes = transformer(features, tokens)
    torch.testing.assert_close(seen, x[:, :7])
    torch.testing.assert_close(classes, x[:, 7:])


@pytest.mark.parametrize("norm", [True, False])
def test_transformers_start_with_quiet_branches(norm: bool) -> None:
    """A truncated normal of 0.02 and no biases: louder branches drown which class a token is, and nothing fails."""
    torch.manual_seed(0)
    transformer = TokenTransformer(preset("avgn-resnet18"), norm=norm)
    weights = [module for module in transformer.modules() if isinstance(module, nn.Linear)]
    assert len(weights) == 4 * 3 and INIT_STD == 0.02
    for linear in weights:
        assert float(linear.weight.detach().std()) == pytest.approx(0.02, rel=0.02)
        assert not linear.bias.detach().any()


def test_tokens_start_small_and_the_sizes_are_the_configurations() -> None:
    torch.manual_seed(0)
    model = AVGN(preset("avgn-resnet18", depth=2, mlp_ratio=3, drop_path=0.25))
    assert float(model.tokens.detach().std()) == pytest.approx(0.02, rel=0.02)
    for transformer in (model.audio_transformer, model.visual_transformer):
        blocks = [module for module in transformer.modules() if isinstance(module, Block)]
        assert [block.mlp[0].out_features for block in blocks] == [3 * 512] * 2
        assert [block.attention.heads for block in blocks] == [8] * 2
        assert [(block.drop_path.p, block.drop_path.mode) for block in blocks] == [(0.25, "row")] * 2


def test_both_halves_share_the_tokens_and_nothing_else() -> None:
    torch.manual_seed(0)
    model = AVGN(preset("avgn-tiny", **SMALL, visual_gate="grouped"))
    features, cells = rand(2, 1, DIM).float(), rand(2, 9, DIM).float()
    for part, given in (("audio", features), ("visual", cells)):
        model.zero_grad(set_to_none=True)
        transformer, grouping = getattr(model, f"{part}_transformer"), getattr(model, f"{part}_grouping")
        grouping(*transformer(given, model.tokens)).square().sum().backward()
        moved = {name.split(".")[0] for name, each in model.named_parameters() if each.grad is not None}
        assert moved == {"tokens", f"{part}_transformer", f"{part}_grouping"}


def test_features_have_length_one_and_sound_is_pooled_by_its_maximum() -> None:
    torch.manual_seed(0)
    audio, visual = AudioEncoder(ResNet18(1, 4), DIM).eval(), VisualEncoder(ResNet18(3, 4, 16), DIM).eval()
    spectrogram, pixels = torch.randn(2, 1, 257, 100), torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        heard, (seen, grid) = audio(spectrogram), visual(pixels)
        pooled = audio.project(audio.backbone(spectrogram).amax(dim=(2, 3)))
        projected = visual.project(visual.backbone(pixels))
    assert grid == (4, 6)
    torch.testing.assert_close(heard, pooled / pooled.norm(dim=1, keepdim=True))
    cells = projected / projected.norm(dim=1, keepdim=True)
    # cell p lies in row p // w and column p % w
    for p in (0, 5, 6, 23):
        torch.testing.assert_close(seen[:, p], cells[:, :, p // 6, p % 6])


def test_pictures_are_normalised_with_the_numbers_of_image_net() -> None:
    model = AVGN(preset("avgn-tiny", **SMALL))
    image = torch.tensor([[[[0, 0, 0], [255, 255, 255]], [[10, 120, 250], [51, 102, 204]]]], dtype=torch.uint8)
    found = model.normalize(image)
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    truth = ((image / 255 - mean) / deviation).permute(0, 3, 1, 2)
    torch.testing.assert_close(found, truth)
