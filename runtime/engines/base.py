"""The contract of every engine, and the checks of what goes in and what the graphs declare.

Shapes: B batch, T samples of a window, K maps, D embedding, H x W the graphs' image size, h x w the map grid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from avgn.runtime.arrays import Floats, Pixels
from avgn.runtime.bundle_schema import BundleInfo
from avgn.runtime.contract import INPUTS, OUTPUTS, PROBABILITIES, STRIDE, TensorSpec, tensors
from avgn.runtime.errors import InputError
from avgn.runtime.patches import cut_patches, pool_patches


@runtime_checkable
class Engine(Protocol):
    """Runs the two halves: numpy in, numpy out, float32, safe to share between threads."""

    @property
    def name(self) -> str: ...

    @property
    def info(self) -> BundleInfo: ...

    def run_audio(self, waveform: Floats) -> dict[str, Floats]:
        """Run the audio half: waveform [B, T] float32 -> {"sources" [B, K, D], "audio_prob" [B, K]}.

        Raises ValueError for other shapes.
        """
        ...

    def run_image(self, image: Pixels, sources: Floats) -> dict[str, Floats]:
        """Run the image half: image [B, H, W, 3] uint8 RGB, sources [B, K, D] -> maps and probabilities.

        These are {"maps" [B, K, h, w], "visual_prob" [B, K]}.
        """
        ...


def check_engine(engine: object) -> None:
    """Raise TypeError for what is no Engine."""
    if not isinstance(engine, Engine):
        way = "its .engine" if hasattr(engine, "engine") else "Localizer.load(bundle).engine"
        raise TypeError(f"engine must run the halves of a bundle, got {type(engine).__name__}: give {way}")


class GraphEngine:
    """What engines of exported graphs share: inputs are checked, `_run` runs a half."""

    def __init__(self, info: BundleInfo) -> None:
        self._info = info

    @property
    def info(self) -> BundleInfo:
        return self._info

    def run_audio(self, waveform: Floats) -> dict[str, Floats]:
        """waveform [B, T] float32 -> {"sources" [B, K, D], "audio_prob" [B, K]} (ones without presence heads)."""
        check_waveform(self._info, waveform)
        if self._info.patches is None:
            return self._run("audio", {"waveform": waveform})
        patches = cut_patches(self._info, waveform)
        heard = self.run_patches(patches.reshape(-1, patches.shape[2]))
        return pool_patches(self._info, heard.reshape(*patches.shape[:2], *heard.shape[1:]))

    def run_patches(self, waveform: Floats) -> Floats:
        """Patches [N, S] float32 of a bundle that hears in patches -> their log-odds [N, K, 1]."""
        return self._run("audio", {"waveform": waveform})["sources"]

    def run_image(self, image: Pixels, sources: Floats) -> dict[str, Floats]:
        """image [B, H, W, 3] uint8, sources [B, K, D] -> {"maps" [B, K, h, w], "visual_prob" [B, K]}."""
        check_image(self._info, image, sources)
        return self._run("image", {"image": image, "sources": sources})

    def _run(self, half: str, feed: dict[str, npt.NDArray[Any]]) -> dict[str, Floats]:
        raise NotImplementedError


def check_waveform(info: BundleInfo, waveform: Floats) -> None:
    """Raise ValueError unless `waveform` is [B, T] float32 with the bundle's window length."""
    expected = f"float32 [B, {info.window_samples}] with B >= 1"
    if (
        waveform.dtype != np.float32
        or waveform.ndim != 2
        or waveform.shape[1] != info.window_samples
        or not len(waveform)
    ):
        raise ValueError(
            f"waveform must be {expected}, got {waveform.dtype} {list(waveform.shape)}: "
            "cut or pad the sound with avgn.runtime.audio.fit_window"
        )


def check_image(info: BundleInfo, image: Pixels, sources: Floats) -> None:
    """Raise ValueError unless image (of any size divisible by 32) and sources fit the bundle and each other."""
    trained = "{}x{}".format(*info.image_size)
    fits = image.ndim == 4 and image.shape[3] == 3 and image.size and not any(s % STRIDE for s in image.shape[1:3])
    if image.dtype != np.uint8 or not fits:
        raise ValueError(
            f"image must be uint8 [B, H, W, 3] with B >= 1 and sides divisible by {STRIDE} ({trained} as trained), "
            f"got {image.dtype} {list(image.shape)}: resize it with avgn.runtime.image.resize"
        )
    if sources.dtype != np.float32 or sources.ndim != 3 or sources.shape[:2] != (len(image), len(info.classes)):
        raise ValueError(
            f"sources must be float32 [{len(image)}, {len(info.classes)}, D] to go with the image, "
            f"got {sources.dtype} {list(sources.shape)}: give what run_audio returned, one row per image"
        )


def check_graph(
    where: str,
    half: str,
    info: BundleInfo,
    declared: Mapping[str, Sequence[TensorSpec]],
    found: Mapping[str, Sequence[TensorSpec]],
) -> None:
    """Raise InputError unless a graph's tensors are those of the contract and of bundle.json.

    `declared` and `found` have the keys "inputs" and "outputs"; axes that either side calls dynamic match anything.
    """
    sizes = tensors(
        batch="B",
        samples=info.graph_samples,
        image_size=info.image_size,
        maps=len(info.classes),
        dim="D",
        grid=info.grid,
    )
    for side, names in (("inputs", INPUTS[half]), ("outputs", OUTPUTS[half])):
        specs = {spec.name: spec for spec in found[side]}
        needed = [name for name in names if info.has_presence or name not in PROBABILITIES]
        if missing := [name for name in needed if name not in specs]:
            raise InputError(
                f"{where}: the {half} graph's {side} are {sorted(specs)}, without {missing[0]!r}: export it again"
            )
        rules: list[tuple[str, str | None, Sequence[int | str], str]]
        rules = [(spec.name, spec.dtype, spec.shape, "bundle.json says") for spec in declared[side]]
        rules += [(name, None, sizes[name].shape, "the bundle's sizes ask for") for name in names if name in specs]
        for name, dtype, shape, who in rules:
            if name not in specs:
                raise InputError(
                    f"{where}: bundle.json lists {half} {side[:-1]} {name!r}, the graph has {sorted(specs)}"
                )
            actual = specs[name]
            if (dtype is not None and actual.dtype != dtype) or not _agree(shape, actual.shape):
                raise InputError(
                    f"{where}: {name!r} of the {half} graph is {actual.dtype} {list(actual.shape)}, "
                    f"{who} {dtype or 'any'} {list(shape)}: export the bundle again"
                )


def _agree(one: Sequence[int | str], other: Sequence[int | str]) -> bool:
    if len(one) != len(other):
        return False
    return all(isinstance(a, str) or isinstance(b, str) or a == b for a, b in zip(one, other, strict=True))


def complete(info: BundleInfo, half: str, found: Mapping[str, Floats], batch: int) -> dict[str, Floats]:
    """Return a half's outputs in order; the probabilities that a bundle without presence heads lacks are ones."""
    ones = np.ones((batch, len(info.classes)), np.float32)
    return {name: found.get(name, ones) if name in PROBABILITIES else found[name] for name in OUTPUTS[half]}
