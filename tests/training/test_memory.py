"""Activation checkpointing changes nothing but memory; SpecAugment hides bands; crops are seen one by one."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from avgn.config import Config, preset
from avgn.model import AVGN
from avgn.training.memory import checkpoint_activations
from avgn.training.spec_augment import SpecAugment

SIZES: dict[str, Any] = {
    "classes": ("a", "b", "c"),
    "image_size": (64, 64),
    "width_visual": 8,
    "width_audio": 8,
    "dim": 32,
    "depth": 2,
    "heads": 4,
    "window_seconds": 0.3,
}


def small(**options: Any) -> Config:
    return preset("avgn-tiny", **(SIZES | options))


def test_checkpointed_activations_give_equal_outputs_gradients_and_statistics() -> None:
    torch.manual_seed(0)
    plain = AVGN(small()).train()
    lean = copy.deepcopy(plain)
    checkpoint_activations(lean)
    waveform = 0.1 * torch.randn(3, plain.config.window_samples)
    image = torch.randint(0, 256, (3, 64, 64, 3), dtype=torch.uint8)
    for model in (plain, lean):
        torch.manual_seed(1)
        audio, cells = model(waveform, image)
        assert cells.logit is not None
        (model.localize(audio, cells).sum() + cells.logit.sum()).backward()
    for (name, one), (_, two) in zip(plain.named_parameters(), lean.named_parameters(), strict=True):
        if one.grad is None:
            assert two.grad is None, name
            continue
        torch.testing.assert_close(two.grad, one.grad, rtol=1e-5, atol=1e-5, msg=name)
    for (name, before), (_, after) in zip(plain.named_buffers(), lean.named_buffers(), strict=True):
        torch.testing.assert_close(after, before, msg=name)


def saved_bytes(model: AVGN, waveform: torch.Tensor, image: torch.Tensor) -> int:
    """What the backward pass of a model keeps, parameters left out."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        held = model(waveform, image)
    assert held
    return sum(kept.values())


def test_checkpointed_activations_keep_less() -> None:
    plain = AVGN(small()).train()
    lean = copy.deepcopy(plain)
    checkpoint_activations(lean)
    inputs = (0.1 * torch.randn(4, plain.config.window_samples), torch.zeros(4, 64, 64, 3, dtype=torch.uint8))
    assert saved_bytes(lean, *inputs) < 0.6 * saved_bytes(plain, *inputs)


def test_spec_augment_hides_bands_of_each_spectrogram_by_its_mean() -> None:
    torch.manual_seed(0)
    spectrogram = torch.randn(6, 1, 40, 60) - 5
    hidden = SpecAugment(10, 20)(spectrogram)
    for before, after in zip(spectrogram, hidden, strict=True):
        changed = ~torch.isclose(before, after, atol=1e-4)
        rows, columns = changed[0].all(dim=1), changed[0].all(dim=0)
        assert changed.any() and rows.sum() <= 10 and columns.sum() <= 20
        torch.testing.assert_close(after[changed], before.mean().expand(int(changed.sum())), rtol=1e-3, atol=1e-3)
    assert len({tuple(row.tolist()) for row in (hidden != spectrogram).any(dim=3)[:, 0]}) > 1
    assert SpecAugment(0, 0)(spectrogram) is spectrogram


def test_crops_are_encoded_one_by_one_and_their_cells_lie_side_by_side() -> None:
    torch.manual_seed(0)
    model = AVGN(small(pair_input="crops")).eval()
    left, right = (torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8) for _ in range(2))
    pair = model.encode_image(torch.cat([left, right], dim=2))
    assert pair.grid == (4, 8)
    rows = pair.cells.view(2, 4, 8, -1)
    torch.testing.assert_close(rows[:, :, :4].flatten(1, 2), model.encode_image(left).cells)
    torch.testing.assert_close(rows[:, :, 4:].flatten(1, 2), model.encode_image(right).cells)
    canvas = AVGN(small()).eval()
    canvas.load_state_dict(model.state_dict())
    wide = canvas.encode_image(torch.cat([left, right], dim=2))
    assert wide.grid == (4, 8) and not torch.allclose(wide.cells, pair.cells)
    assert isinstance(model.visual_encoder, nn.Module)


def test_a_pair_input_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="pair_input must be one of canvas, crops"):
        small(pair_input="stacked")
