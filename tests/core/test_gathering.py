"""The global batch in one process: two ranks as threads give the loss and the gradients of the joint batch.

`tests/training/test_processes.py` does the same with real processes; this one is quick enough for each small change.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from avgn.losses import compute_losses, gather_halves, gather_rows, localization_loss
from avgn.types import AudioSources, ImageCells, Labels, Losses
from tests.core.test_losses import config, scene

WORLD = 2


def in_ranks(work: Callable[[int], Any]) -> list[Any]:
    """Run `work(rank)` in WORLD threads that are the ranks of one group; what each gave."""
    internal = pytest.importorskip(
        "torch.testing._internal.distributed.multi_threaded_pg", reason="this PyTorch has no group of threads"
    )
    internal._install_threaded_pg()
    native: Any = torch._C._distributed_c10d
    native._set_thread_isolation_mode(True)
    store, results, errors = native.HashStore(), [None] * WORLD, list[BaseException]()

    def run(rank: int) -> None:
        try:
            dist.init_process_group("threaded", rank=rank, world_size=WORLD, store=store)
            results[rank] = work(rank)
        except BaseException as error:
            errors.append(error)
            internal.ProcessLocalGroup.exception_handle(error)
        finally:
            if dist.is_initialized():
                dist.destroy_process_group()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(WORLD)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    finally:
        internal.ProcessLocalGroup.reset()
        native._set_thread_isolation_mode(False)
        internal._uninstall_threaded_pg()
    if errors:
        raise errors[0]
    return results


def leaves(batch: int = 6) -> tuple[dict[str, Tensor], Labels]:
    audio, image, labels = scene(batch, seed=3)
    assert image.gate is not None
    return {"embedding": audio.embedding, "cells": image.cells, "gate": image.gate}, labels


def shard(labels: Labels, rows: slice) -> Labels:
    """Some of the samples, with as few columns as they need: the ranks have different numbers of sources."""
    most = max(1, int(labels.mask[rows].sum(1).max()))
    parts = {field.name: getattr(labels, field.name)[rows] for field in dataclasses.fields(Labels)}
    return Labels(**(parts | {name: parts[name][:, :most] for name in ("order", "mask")}))


def halves(tensors: dict[str, Tensor], gated: bool) -> tuple[AudioSources, ImageCells]:
    return (
        AudioSources(embedding=tensors["embedding"], logit=None),
        ImageCells(cells=tensors["cells"], gate=tensors["gate"] if gated else None, logit=None, grid=(3, 3)),
    )


# what runs in rank 0 and in rank 1: of unlike sizes
PARTS = (slice(0, 3), slice(3, 6))


@pytest.mark.parametrize(
    ("options", "gated"),
    [({}, True), ({"negatives": "nth"}, True), ({}, False), ({"ablation": "neither", "visual_gate": "none"}, False)],
    ids=["class", "nth", "no gate", "neither"],
)
def test_two_ranks_give_the_loss_and_gradients_of_the_joint_batch(options: dict[str, Any], gated: bool) -> None:
    tensors, labels = leaves()
    chosen = config(**options)
    if options.get("variant") == "neither":
        tensors["embedding"] = tensors["embedding"][:, :1].contiguous()
    assert len({shard(labels, rows).order.shape[1] for rows in PARTS}) == 2
    joint = {name: value.clone().requires_grad_() for name, value in tensors.items()}
    truth = localization_loss(*halves(joint, gated), labels, chosen)
    truth.backward()

    def work(rank: int) -> tuple[float, dict[str, Tensor | None]]:
        mine = {name: value[PARTS[rank]].clone().requires_grad_() for name, value in tensors.items()}
        loss = localization_loss(*halves(mine, gated), shard(labels, PARTS[rank]), chosen)
        loss.backward()
        return float(loss.detach()), {name: value.grad for name, value in mine.items()}

    for rank, (loss, gradients) in enumerate(in_ranks(work)):
        assert loss == pytest.approx(float(truth.detach()), rel=1e-5)
        for name, gradient in gradients.items():
            whole = joint[name].grad
            if whole is None:
                assert gradient is None
                continue
            # both ranks compute the whole loss, so a gradient comes WORLD times; the trainer's mean divides it again
            assert gradient is not None
            torch.testing.assert_close(gradient / WORLD, whole[PARTS[rank]], rtol=1e-4, atol=1e-6)


def test_without_gathering_a_rank_is_alone() -> None:
    tensors, labels = leaves()
    chosen = config()

    def work(rank: int) -> Losses:
        mine = {name: value[PARTS[rank]] for name, value in tensors.items()}
        return compute_losses(*halves(mine, True), shard(labels, PARTS[rank]), None, chosen, gather=False)

    for rank, losses in enumerate(in_ranks(work)):
        mine = {name: value[PARTS[rank]] for name, value in tensors.items()}
        alone = localization_loss(*halves(mine, True), shard(labels, PARTS[rank]), chosen)
        torch.testing.assert_close(losses.localization, alone)

    def joint(rank: int) -> Losses:
        mine = {name: value[PARTS[rank]] for name, value in tensors.items()}
        return compute_losses(*halves(mine, True), shard(labels, PARTS[rank]), None, chosen)

    # by default all are gathered
    whole = localization_loss(*halves(tensors, True), labels, chosen)
    for losses in in_ranks(joint):
        torch.testing.assert_close(losses.localization, whole)


def test_rows_of_all_ranks_are_in_their_order_and_labels_are_padded() -> None:
    tensors, labels = leaves()

    def work(rank: int) -> tuple[Tensor, Labels, ImageCells]:
        mine = {name: value[PARTS[rank]] for name, value in tensors.items()}
        _, image, gathered = gather_halves(*halves(mine, True), shard(labels, PARTS[rank]))
        return gather_rows(mine["embedding"]), gathered, image

    for rows, gathered, image in in_ranks(work):
        assert torch.equal(rows, tensors["embedding"])
        for name in ("sounding", "visible", "mask"):
            assert torch.equal(getattr(gathered, name), getattr(labels, name)), name
        assert torch.equal(
            gathered.order.where(gathered.mask, torch.tensor(-1)), labels.order.where(labels.mask, torch.tensor(-1))
        )
        assert torch.equal(image.cells, tensors["cells"]) and image.gate is not None
        assert torch.equal(image.gate, tensors["gate"]) and image.grid == (3, 3)


def test_a_single_process_keeps_its_rows() -> None:
    tensors, labels = leaves()
    assert gather_rows(tensors["cells"]) is tensors["cells"]
    audio, image = halves(tensors, True)
    assert gather_halves(audio, image, labels) == (audio, image, labels)
