"""The losses against loops, the leak of the printed form, and the absence of a short cut in the presets' choice."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from avgn.config import Config, preset
from avgn.losses import compute_losses, localization_loss
from avgn.model import AVGN
from avgn.types import AudioSources, ImageCells, Labels, Losses

CLASSES = tuple("abcdef")
DIM = 16


def config(**options: Any) -> Config:
    return preset("avgn-tiny", **({"classes": CLASSES, "dim": DIM, "heads": 4} | options))


def scene(batch: int = 5, seed: int = 0) -> tuple[AudioSources, ImageCells, Labels]:
    g = torch.Generator().manual_seed(seed)
    num = len(CLASSES)
    sounding = torch.rand(batch, num, generator=g) < 0.4
    visible = torch.rand(batch, num, generator=g) < 0.5
    sounding[0, 1] = visible[0, 1] = True
    sounding[1] = False
    both = [torch.nonzero(row).flatten().tolist() for row in sounding & visible]
    most = max(len(row) for row in both)
    order = torch.zeros(batch, most, dtype=torch.int64)
    mask = torch.zeros(batch, most, dtype=torch.bool)
    for b, row in enumerate(both):
        order[b, : len(row)] = torch.tensor(row, dtype=torch.int64)
        mask[b, : len(row)] = True
    audio = AudioSources(
        embedding=torch.randn(batch, num, DIM, generator=g), logit=torch.randn(batch, num, generator=g)
    )
    image = ImageCells(
        cells=torch.nn.functional.normalize(torch.randn(batch, 9, DIM, generator=g), dim=2),
        gate=torch.randn(batch, num, DIM, generator=g),
        logit=torch.randn(batch, num, generator=g),
        grid=(3, 3),
    )
    return audio, image, Labels(sounding=sounding.float(), visible=visible.float(), order=order, mask=mask)


def best(audio: Tensor, cells: Tensor, gate: Tensor | None) -> float:
    modulated = cells if gate is None else cells * gate
    return float(torch.nn.functional.cosine_similarity(audio[None], modulated, dim=1).max())


def test_class_negatives_are_equation_10_with_the_sources_own_class_as_gate() -> None:
    audio, image, labels = scene()
    assert image.gate is not None
    terms = []
    for b in range(5):
        for k in range(len(CLASSES)):
            if not (labels.sounding[b, k] and labels.visible[b, k]):
                continue
            sims = {
                m: best(audio.embedding[b, k], image.cells[m], image.gate[m, k]) / 0.03
                for m in range(5)
                if m == b or not labels.visible[m, k]
            }
            terms.append(-sims[b] + math.log(sum(math.exp(s) for s in sims.values())))
    truth = sum(terms) / len(terms)
    assert float(localization_loss(audio, image, labels, config())) == pytest.approx(truth, rel=1e-4)


def test_nth_negatives_are_the_printed_indices() -> None:
    audio, image, labels = scene(seed=3)
    assert image.gate is not None
    rows = [
        [int(k) for k, keep in zip(o, m, strict=True) if keep] for o, m in zip(labels.order, labels.mask, strict=True)
    ]
    terms = []
    for b, mine in enumerate(rows):
        for n, k in enumerate(mine):
            sims = {
                m: best(audio.embedding[b, k], image.cells[m], image.gate[m, theirs[n]]) / 0.03
                for m, theirs in enumerate(rows)
                if len(theirs) > n and (m == b or theirs[n] != k)
            }
            terms.append(-sims[b] + math.log(sum(math.exp(s) for s in sims.values())))
    truth = sum(terms) / len(terms)
    chosen = config(negatives="nth", symmetric=False)
    assert float(localization_loss(audio, image, labels, chosen)) == pytest.approx(truth, rel=1e-4)


def test_the_second_direction_of_nth_negatives_is_that_of_the_images_over_the_sounds() -> None:
    audio, image, labels = scene(seed=3)
    assert image.gate is not None
    rows = [
        [int(k) for k, keep in zip(o, m, strict=True) if keep] for o, m in zip(labels.order, labels.mask, strict=True)
    ]
    terms = []
    for m, mine in enumerate(rows):
        for n, k in enumerate(mine):
            sims = {
                b: best(audio.embedding[b, theirs[n]], image.cells[m], image.gate[m, k]) / 0.03
                for b, theirs in enumerate(rows)
                if len(theirs) > n and (m == b or theirs[n] != k)
            }
            terms.append(-sims[m] + math.log(sum(math.exp(s) for s in sims.values())))
    backward = sum(terms) / len(terms)
    forward = float(localization_loss(audio, image, labels, config(negatives="nth", symmetric=False)))
    assert abs(forward - backward) > 0.1
    both = float(localization_loss(audio, image, labels, config(negatives="nth", symmetric=True)))
    assert both == pytest.approx((forward + backward) / 2, rel=1e-4)


@pytest.mark.parametrize("symmetric", [True, False])
def test_without_labels_the_loss_is_the_contrast_of_ez_vsl(symmetric: bool) -> None:
    """One shared map, no class is a negative of none; both directions unless one is asked for."""
    chosen = config(ablation="neither", visual_gate="none", symmetric=symmetric, temperature=0.07)
    everything, seen, labels = scene(seed=3)
    audio = AudioSources(embedding=everything.embedding[:, :1], logit=None)
    image = ImageCells(cells=seen.cells, gate=None, logit=None, grid=seen.grid)
    similarity = [[best(audio.embedding[b, 0], image.cells[m], None) / 0.07 for m in range(5)] for b in range(5)]

    def contrast(rows: list[list[float]]) -> float:
        return sum(-row[b] + math.log(sum(math.exp(s) for s in row)) for b, row in enumerate(rows)) / 5

    forward, backward = contrast(similarity), contrast([list(column) for column in zip(*similarity, strict=True)])
    assert abs(forward - backward) > 0.02
    truth = (forward + backward) / 2 if symmetric else forward
    assert float(localization_loss(audio, image, labels, chosen)) == pytest.approx(truth, rel=1e-4)


def test_without_a_gate_class_negatives_have_both_directions_and_with_one_they_have_not() -> None:
    audio, gated, labels = scene(seed=4)
    image = ImageCells(cells=gated.cells, gate=None, logit=gated.logit, grid=gated.grid)

    def loss(seen: ImageCells, **options: Any) -> float:
        return float(localization_loss(audio, seen, labels, config(**options)))

    assert loss(gated, symmetric=True) == loss(gated, symmetric=False)
    forward, backward = [], []
    for b in range(5):
        for n, k in enumerate(labels.order[b].tolist()):
            if not labels.mask[b, n]:
                continue
            seen = {
                m: best(audio.embedding[b, k], image.cells[m], None) / 0.03
                for m in range(5)
                if m == b or not labels.visible[m, k]
            }
            forward.append(-seen[b] + math.log(sum(math.exp(s) for s in seen.values())))
            # the n-th sources of the other sounds, where they aren't visible in this image
            heard = {
                o: best(audio.embedding[o, int(labels.order[o, n])], image.cells[b], None) / 0.03
                for o in range(5)
                if labels.mask[o, n] and (o == b or not labels.visible[b, int(labels.order[o, n])])
            }
            backward.append(-heard[b] + math.log(sum(math.exp(s) for s in heard.values())))
    one, other = sum(forward) / len(forward), sum(backward) / len(backward)
    assert loss(image, symmetric=False) == pytest.approx(one, rel=1e-4)
    assert loss(image, symmetric=True) == pytest.approx((one + other) / 2, rel=1e-4) and abs(one - other) > 0.05


def test_a_single_source_of_a_batch_counts_whole() -> None:
    audio, image, labels = scene(seed=2)
    assert int(labels.mask.sum()) == 1 and image.gate is not None and labels.order[0, 0] == 1
    sims = [
        best(audio.embedding[0, 1], image.cells[m], image.gate[m, 1]) / 0.03
        for m in range(5)
        if m == 0 or not labels.visible[m, 1]
    ]
    assert len(sims) > 1
    truth = -sims[0] + math.log(sum(math.exp(s) for s in sims))
    assert float(localization_loss(audio, image, labels, config())) == pytest.approx(truth, rel=1e-4)


def test_what_a_batch_is_made_of_is_frozen_and_named() -> None:
    kinds: tuple[Any, ...] = (Labels, Losses, AudioSources, ImageCells)
    for kind in kinds:
        assert kind.__dataclass_params__.frozen
        assert all(each.kw_only for each in dataclasses.fields(kind))


def test_labels_keep_their_places_on_the_way_to_a_device() -> None:
    _, _, labels = scene()
    moved = labels.to(torch.device("cpu"))
    for name in ("sounding", "visible", "order", "mask"):
        assert torch.equal(getattr(moved, name), getattr(labels, name))
        assert getattr(labels.to(torch.device("meta")), name).device.type == "meta"


def test_absent_heads_add_nothing_and_losses_have_their_own_targets() -> None:
    audio, image, labels = scene()
    bare = compute_losses(
        AudioSources(embedding=audio.embedding, logit=None),
        ImageCells(cells=image.cells, gate=image.gate, logit=None, grid=image.grid),
        labels,
        None,
        config(),
    )
    assert float(bare.token) == float(bare.audio) == float(bare.visual) == 0.0
    assert float(bare.total) == float(bare.localization) > 0


def test_group_losses_are_cross_entropies() -> None:
    audio, image, labels = scene()
    token_logits = torch.randn(6, 6)
    assert audio.logit is not None and image.logit is not None
    for reduction, factor in (("mean", 1.0), ("sum", 6.0)):
        losses = compute_losses(audio, image, labels, token_logits, config(class_reduction=reduction))
        bce = torch.nn.functional.binary_cross_entropy_with_logits
        torch.testing.assert_close(losses.audio, bce(audio.logit, labels.sounding) * factor)
        torch.testing.assert_close(losses.visual, bce(image.logit, labels.visible) * factor)
        token = torch.nn.functional.cross_entropy(token_logits, torch.arange(6)) * factor
        torch.testing.assert_close(losses.token, token)
        total = losses.localization + losses.token + losses.audio + losses.visual
        torch.testing.assert_close(losses.total, total)


def test_a_batch_without_a_visible_sounding_source_gives_zero_not_nan() -> None:
    audio, image, labels = scene()
    cells = image.cells.clone().requires_grad_()
    quiet = Labels(
        sounding=labels.sounding,
        visible=torch.zeros_like(labels.visible),
        order=torch.zeros(5, 1, dtype=torch.int64),
        mask=torch.zeros(5, 1, dtype=torch.bool),
    )
    image = ImageCells(cells=cells, gate=image.gate, logit=image.logit, grid=image.grid)
    for negatives in ("class", "nth"):
        loss = localization_loss(audio, image, quiet, config(negatives=negatives))
        assert float(loss.detach()) == 0.0
    loss.backward()
    assert cells.grad is not None and torch.isfinite(cells.grad).all()


def noise_training(negatives: str, visual_gate: str, steps: int = 250) -> float:
    """L_loc over chance after training everything behind the encoders on features that are pure noise."""
    torch.manual_seed(0)
    classes = tuple("abcdefghij")
    chosen = config(classes=classes, negatives=negatives, visual_gate=visual_gate, symmetric=False, drop_path=0.0)
    model = AVGN(chosen)
    trained = [p for name, p in model.named_parameters() if "encoder" not in name]
    optimizer = torch.optim.Adam(trained, lr=2e-3)
    # encoders give features around a common mean, which is what the leak lives on
    common = torch.randn(DIM)
    ratios = []
    for step in range(steps):
        order = torch.stack([torch.randperm(10)[:2] for _ in range(32)])
        present = torch.zeros(32, 10).scatter(1, order, 1.0)
        labels = Labels(sounding=present, visible=present, order=order, mask=torch.ones(32, 2, dtype=torch.bool))
        sound = torch.nn.functional.normalize(torch.randn(32, 1, DIM), dim=2)
        cells = torch.nn.functional.normalize(common + torch.randn(32, 25, DIM), dim=2)
        heard = model.audio_grouping(*model.audio_transformer(sound, model.tokens))
        seen = model.visual_grouping(*model.visual_transformer(cells, model.tokens))
        audio = AudioSources(embedding=heard, logit=model.audio_presence(heard).squeeze(2))
        gate = model._gate(seen)
        image = ImageCells(cells=cells, gate=gate, logit=model.visual_presence(seen).squeeze(2), grid=(5, 5))
        losses = compute_losses(audio, image, labels, model.token_logits(), chosen)
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
        if step >= steps - 30:
            if negatives == "class":
                allowed = 1 + (1 - present[:, order]).sum(0).mean()
            else:
                allowed = 1 + (order[:, None] != order[None]).sum(1).float().mean()
            ratios.append(float(losses.localization.detach()) / math.log(float(allowed)))
    return sum(ratios) / len(ratios)


@pytest.mark.slow
@pytest.mark.parametrize("visual_gate", ["grouped", "token", "none"])
def test_class_negatives_have_no_short_cut(visual_gate: str) -> None:
    assert noise_training("class", visual_gate) >= 0.9


@pytest.mark.slow
def test_the_printed_form_leaks_the_class() -> None:
    assert noise_training("nth", "grouped") <= 0.5
