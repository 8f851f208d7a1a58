"""Makes avgn/teach/bank.npz, what a taught class must not fire on: python -m recipes.teach_bank MATERIAL.json

MATERIAL.json: {"root": folder, "sounds": [{"label", "file"}], "pictures": [{"label", "file"}]} of free recordings and
free pictures (cut-outs with alpha are laid over procedural backgrounds). What the shipped file was made of stands in
NOTICE. `--output FILE` writes elsewhere.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from avgn.runtime.bundle import Bundle
from avgn.runtime.patches import cut_patches
from avgn.runtime.reading import read_clip, read_still
from avgn.scenes.backgrounds import draw_background
from avgn.scenes.draw import Draw
from avgn.teach.bank import NAME, Things, pack
from avgn.teach.bundles import probes, read_tokens
from avgn.teach.features import Encoders
from avgn.teach.fitting import length_of

# of a recording, patches; of a class, recordings
PATCHES, MOST = 1, 16
NOISES = 40
# of a picture, cells of the thing and of what is around it; pictures without anything
INSIDE, AROUND, WALLS = 5, 2, 40
SIDE = 320


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("material", type=Path)
    parser.add_argument("--output", type=Path, default=Path("avgn/teach") / NAME)
    args = parser.parse_args()
    material = json.loads(args.material.read_text(encoding="utf-8"))
    root = Path(material["root"])
    encoders = Encoders(read_tokens(Bundle.load("world")))
    sounds = hear(material["sounds"], root, encoders)
    cells = see(material["pictures"], root, encoders)
    args.output.write_bytes(pack({"sounds": sounds, "cells": cells}))
    print(f"{len(sounds.rows)} patches, {len(cells.rows)} cells, {args.output.stat().st_size / 1e3:.0f} kB")


def hear(rows: list[dict[str, Any]], root: Path, encoders: Encoders) -> Things:
    """Compute a loud patch of each recording, and of noises."""
    random = np.random.default_rng(0)
    parts, labels = [], []
    for label in sorted({row["label"] for row in rows}):
        mine = [row for row in rows if row["label"] == label]
        for at in np.linspace(0, len(mine) - 1, min(MOST, len(mine))).round().astype(int).tolist():
            waveform = read_clip(root / mine[at]["file"], encoders.info.sample_rate, encoders.info.window_samples)
            patches = cut_patches(encoders.info, waveform[None])[0]
            loud = np.argsort(-(patches**2).mean(axis=1))[: max(PATCHES, len(patches) // 2)]
            parts.append(encoders.hear(patches[random.permutation(loud)[:PATCHES]]))
            labels.append(label)
    for _ in range(NOISES):
        parts.append(encoders.hear(_noise(random, encoders)[None]))
        labels.append("")
    return _things(parts, labels, encoders.hear(cut_patches(encoders.info, probes(encoders.info)[0])[1][:1]))


def see(rows: list[dict[str, Any]], root: Path, encoders: Encoders) -> Things:
    """Compute cells of things on backgrounds of no meaning, and of backgrounds."""
    parts, labels = [], []
    for number, row in enumerate(rows):
        for take in range(2):
            picture, covered = _compose(root / row["file"], Draw(np.random.default_rng((3, number, take)), "train"))
            cells = encoders.see(picture[None])[0]
            inside = cv2.resize(covered, encoders.info.grid[::-1], interpolation=cv2.INTER_AREA).ravel()
            order = np.argsort(-length_of(cells), kind="stable")
            chosen = [at for at in order if inside[at] > 0.5][:INSIDE] + [at for at in order if inside[at] < 0.05][
                :AROUND
            ]
            if chosen:
                parts.append(cells[chosen])
                labels.append(row["label"])
    for number in range(WALLS):
        _, plain = draw_background(Draw(np.random.default_rng((4, number)), "train"), SIDE, SIDE)
        cells = encoders.see((255 * plain).astype(np.uint8)[None])[0]
        parts.append(cells[np.argsort(-length_of(cells), kind="stable")[:AROUND]])
        labels.append("")
    return _things(parts, labels, encoders.see(probes(encoders.info)[1][:1])[0, ::7])


def _things(parts: list[NDArray[np.float32]], labels: list[str], probe: NDArray[np.float32]) -> Things:
    groups = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    return Things(rows=np.concatenate(parts), groups=groups, labels=tuple(labels), probe=probe)


def _noise(random: np.random.Generator, encoders: Encoders) -> NDArray[np.float32]:
    """A patch of noise of some colour and level, every other one with a hum."""
    assert encoders.info.patches is not None
    count, rate = encoders.info.patches.samples, encoders.info.sample_rate
    spectrum = np.fft.rfft(random.standard_normal(count))
    spectrum[1:] /= np.arange(1, len(spectrum)) ** random.uniform(0, 1)
    spectrum[0] = 0
    sound = np.fft.irfft(spectrum, count)
    sound *= 10 ** random.uniform(-2, -0.5) / np.abs(sound).max()
    if random.random() < 0.5:
        first = random.choice((50, 60)) * np.arange(1, 5)[:, None]
        hum = (np.sin(2 * np.pi * first * np.arange(count) / rate) / np.arange(1, 5)[:, None]).sum(axis=0)
        sound += 10 ** random.uniform(-2, -0.7) * hum
    return sound.astype(np.float32)


def _compose(path: Path, draw: Draw) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """A picture [SIDE, SIDE, 3] and what of it the thing covers [SIDE, SIDE]."""
    image = read_still("picture", path, cv2.IMREAD_UNCHANGED)
    _, plain = draw_background(draw, SIDE, SIDE)
    picture = (255 * plain).astype(np.float32)
    covered = np.zeros((SIDE, SIDE), np.float32)
    share = draw.uniform(0.45, 1.0) * SIDE / max(image.shape[:2])
    size = (max(16, int(image.shape[1] * share)), max(16, int(image.shape[0] * share)))
    shown = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    alpha = shown[..., 3:] / 255 if shown.shape[2] == 4 else np.ones((*shown.shape[:2], 1), np.float32)
    top, left = draw.integer(0, SIDE - size[1]), draw.integer(0, SIDE - size[0])
    rows, columns = slice(top, top + size[1]), slice(left, left + size[0])
    picture[rows, columns] = picture[rows, columns] * (1 - alpha) + shown[..., 2::-1] * alpha
    covered[rows, columns] = alpha[..., 0]
    return picture.astype(np.uint8), covered


if __name__ == "__main__":
    main()
