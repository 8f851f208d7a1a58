"""The kernels' references against loops in float64, and their gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from avgn.kernels import cosine_maps, grouping_attention, max_pooled_cosine


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def attend(query: Tensor, key: Tensor, value: Tensor, **options: object) -> Tensor:
    found = grouping_attention(query, key, value, scale=0.3, **options)  # type: ignore[call-overload]
    assert isinstance(found, Tensor)
    return found


@pytest.mark.parametrize("eps", [0.0, 1.0])
@pytest.mark.parametrize(("cells", "classes", "width"), [(49, 37, 16), (1, 5, 8), (7, 1, 3)])
def test_grouping_attention_is_equations_6_to_8(cells: int, classes: int, width: int, eps: float) -> None:
    query, key, value = rand(2, cells, width), rand(2, classes, width, seed=1), rand(2, cells, width, seed=2)
    found = attend(query, key, value, eps=eps)
    for b in range(2):
        scores = 0.3 * query[b].numpy() @ key[b].numpy().T
        assignment = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
        for i in range(classes):
            truth = (assignment[:, i : i + 1] * value[b].numpy()).sum(0) / (assignment[:, i].sum() + eps)
            np.testing.assert_allclose(found[b, i].numpy(), truth, rtol=1e-10, atol=1e-12)


def test_hard_assignment_averages_the_cells_that_a_class_wins_and_gives_zero_for_none() -> None:
    query, key, value = rand(3, 20, 8), rand(3, 6, 8, seed=1), rand(3, 20, 8, seed=2)
    key[:, 4] = -100 * query.mean(dim=1)
    found = attend(query, key, value, hard=True)
    winners = (query @ key.transpose(1, 2)).argmax(dim=2)
    some_class_without_cells = False
    for b in range(3):
        for i in range(6):
            mine = value[b][winners[b] == i]
            some_class_without_cells |= len(mine) == 0
            truth = mine.mean(0) if len(mine) else torch.zeros(8, dtype=torch.float64)
            torch.testing.assert_close(found[b, i], truth)
    assert some_class_without_cells


def test_hard_gradient_passes_straight_through_the_soft_assignment() -> None:
    query = rand(1, 9, 4).requires_grad_()
    key, value = rand(1, 3, 4, seed=1), rand(1, 9, 4, seed=2)
    attend(query, key, value, hard=True).sum().backward()
    soft = query.detach().clone().requires_grad_()
    scores = 0.3 * soft @ key.transpose(1, 2)
    count = torch.nn.functional.one_hot(scores.argmax(2), 3).sum(1, keepdim=True).clamp_min(1)
    ((scores.softmax(2) / count).transpose(1, 2) @ value).sum().backward()
    torch.testing.assert_close(query.grad, soft.grad)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_large_logits_stay_finite_in_half_precision(dtype: torch.dtype) -> None:
    query, key = (50 * rand(1, 49, 8)).to(dtype), rand(1, 5, 8, seed=1).to(dtype)
    found = attend(query, key, rand(1, 49, 8, seed=2).to(dtype))
    assert found.dtype == dtype
    assert torch.isfinite(found).all()


@pytest.mark.parametrize("options", [{}, {"eps": 1.0}], ids=["exact", "eps"])
def test_grouping_attention_gradients(options: dict[str, float]) -> None:
    inputs = [rand(2, 7, 4).requires_grad_(), rand(2, 3, 4, seed=1).requires_grad_(), rand(2, 7, 4).requires_grad_()]
    assert torch.autograd.gradcheck(lambda q, k, v: attend(q, k, v, **options), inputs)


def test_grouping_attention_refuses_shapes_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="must agree in batch and width"):
        grouping_attention(rand(2, 7, 4), rand(1, 3, 4), rand(2, 7, 4), scale=1.0)


def brute_cosine(audio: Tensor, visual: Tensor, gate: Tensor | None, index: Tensor | None) -> np.ndarray:
    sounds, sources = audio.shape[:2]
    truth = np.zeros((sounds, visual.shape[0], sources, visual.shape[1]))
    for b, m, n, p in np.ndindex(*truth.shape):
        cell = visual[m, p].numpy()
        if gate is not None:
            cell = cell * gate[m, int(index[b, n]) if index is not None else n].numpy()
        sound = audio[b, n].numpy()
        truth[b, m, n, p] = sound @ cell / (np.linalg.norm(sound) * np.linalg.norm(cell))
    return truth


@pytest.mark.parametrize("form", ["none", "own", "class"])
def test_max_pooled_cosine_is_the_largest_cosine(form: str) -> None:
    audio, visual = rand(4, 3, 6), rand(5, 11, 6, seed=1)
    gate = None if form == "none" else rand(5, 7 if form == "class" else 3, 6, seed=2)
    index = torch.tensor([[0, 3, 6], [1, 1, 1], [5, 4, 2], [6, 0, 0]]) if form == "class" else None
    similarity, argmax = max_pooled_cosine(audio, visual, gate, gate_index=index)
    truth = brute_cosine(audio, visual, gate, index)
    np.testing.assert_allclose(similarity.numpy(), truth.max(axis=3), rtol=1e-9)
    np.testing.assert_array_equal(argmax.numpy(), truth.argmax(axis=3))


def test_masked_pairs_are_minus_infinity_and_give_no_gradient() -> None:
    audio = rand(2, 2, 4).requires_grad_()
    mask = torch.tensor([[True, False], [True, True]])
    seen = torch.tensor([[True, True], [False, True], [True, True]])
    similarity, argmax = max_pooled_cosine(audio, rand(3, 5, 4), audio_mask=mask, visual_mask=seen)
    assert torch.isneginf(similarity[0, :, 1]).all() and (argmax[0, :, 1] == -1).all()
    assert torch.isneginf(similarity[:, 1, 0]).all()
    similarity[torch.isfinite(similarity)].sum().backward()
    assert audio.grad is not None and torch.isfinite(audio.grad).all() and (audio.grad[0, 1] == 0).all()


def test_max_pooled_cosine_gradients() -> None:
    inputs = [rand(2, 2, 4).requires_grad_(), rand(3, 5, 4).requires_grad_(), rand(3, 6, 4, seed=3).requires_grad_()]
    index = torch.tensor([[0, 5], [2, 3]])
    assert torch.autograd.gradcheck(lambda a, v, g: max_pooled_cosine(a, v, g, gate_index=index)[0], inputs)


def test_ties_go_to_the_lowest_cell() -> None:
    visual = rand(1, 1, 4).expand(1, 6, 4).contiguous()
    assert max_pooled_cosine(rand(1, 1, 4), visual)[1].item() == 0


@pytest.mark.parametrize("gated", [True, False])
def test_cosine_maps_are_cosines_of_gated_cells(gated: bool) -> None:
    audio, visual = rand(2, 5, 6), rand(2, 9, 6, seed=1)
    gate = rand(2, 5, 6, seed=2) if gated else None
    found = cosine_maps(audio, visual, gate)
    for b, k, p in np.ndindex(2, 5, 9):
        cell = visual[b, p] if gate is None else visual[b, p] * gate[b, k]
        truth = torch.nn.functional.cosine_similarity(audio[b, k], cell, dim=0)
        torch.testing.assert_close(found[b, k, p], truth)


def test_cosine_maps_of_a_zero_cell_are_zero_not_nan() -> None:
    visual = torch.zeros(1, 4, 6)
    found = cosine_maps(rand(1, 2, 6).float(), visual, rand(1, 2, 6).float())
    assert (found == 0).all()
