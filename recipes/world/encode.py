"""Mixtures as YAMNet's features, in several processes.

Legend: N windows, T samples of a window, P patches, K classes of the world model.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from avgn.encoders import yamnet
from avgn.encoders.packages import YAMNET, read_onnx_numbers
from avgn.world.model import PatchEncoder
from avgn.world.settings import PATCH_HOP
from recipes.world.mix import Plan, Waveforms, mix

# windows that a process mixes at a time
AT_ONCE = 50
State = dict[str, torch.Tensor]
# a plan, its first window and the samples of each; their features and what is heard in each
Part = tuple[Plan, int, int]
Encoded = tuple[NDArray[np.float16], list[set[str]]]


@dataclass(frozen=True)
class Examples:
    """Holds the features [N,P,1024] float16 of windows, and which classes are heard in each: [N,K]."""

    features: NDArray[np.float16]
    heard: NDArray[np.bool_]


def make_examples(
    waveforms: Waveforms,
    plans: Sequence[Plan],
    classes: Sequence[str],
    samples: int,
    report: Callable[[str], None],
    workers: int = 1,
) -> Examples:
    """Mix and encode all plans, the same whatever `workers`. Raises InputError where YAMNet's package is missing."""
    state = yamnet.rename(read_onnx_numbers(YAMNET))[0]
    parts = [(plan, first, samples) for plan in plans for first in range(0, plan.count, AT_ONCE)]
    features, heard = [], []
    for encoded, labels in _encode_all(parts, (waveforms, state), workers):
        features.append(encoded)
        heard += [[label in each for label in classes] for each in labels]
        if len(features) % 20 == 1:
            report(f"mixed {len(heard)} of {sum(plan.count for plan in plans)} windows")
    return Examples(np.concatenate(features), np.array(heard, bool))


def _encode_all(parts: list[Part], tools: tuple[Waveforms, State], workers: int) -> Iterator[Encoded]:
    """Encode the parts, in their order, in so many processes; one means this process."""
    if workers == 1:
        _prepare(*tools)
        yield from map(_encode_part, parts)
        return
    # processes begin as new ones: a fork of one with torch's threads may stand still
    spawned = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, spawned, _begin, tools) as pool:
        yield from pool.map(_encode_part, parts)


class Encoder:
    """Encodes windows [B,T] as features [B,P,1024] of the patches that the model hears."""

    def __init__(self, state: State) -> None:
        """`state`: YAMNet's published weights, as `yamnet.rename` gives them."""
        self.front_end = yamnet.LogMel()
        self.patches = PatchEncoder().eval()
        self.patches.backbone.load_state_dict(state)
        # a third less time on a CPU
        self.patches.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.inference_mode()
    def __call__(self, waves: NDArray[np.float32]) -> NDArray[np.float16]:
        patches = yamnet.cut_patches(self.front_end(torch.from_numpy(waves)), PATCH_HOP // yamnet.HOP)
        return self.patches(patches.flatten(0, 1)).unflatten(0, patches.shape[:2]).numpy().astype(np.float16)


_worker: dict[str, Any] = {}


def _begin(waveforms: Waveforms, state: State) -> None:
    torch.set_num_threads(1)
    _prepare(waveforms, state)


def _prepare(waveforms: Waveforms, state: State) -> None:
    _worker.update(waveforms=waveforms, encoder=Encoder(state))


def _encode_part(part: Part) -> Encoded:
    plan, first, samples = part
    drawn = [mix(_worker["sounds"], plan, n, samples) for n in range(first, min(plan.count, first + AT_ONCE))]
    encoder: Encoder = _worker["encoder"]
    return np.concatenate([encoder(wave[None]) for wave, _ in drawn]), [labels for _, labels in drawn]
