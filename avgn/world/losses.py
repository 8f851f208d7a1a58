"""The paper's losses on the world model's own quantities (docs/method.md, section 5).

A source's similarity with a picture is the maximum of the class's map there: the log-odds of what is seen and heard,
which need no temperature. Tokens are told apart by themselves: by their cosines.

Legend: B samples of the global batch, N sources of a sample (padded), P cells, K classes, D and E widths of features.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from avgn.config import Config
from avgn.losses import class_negatives, contrast, gather_halves
from avgn.types import AudioSources, ImageCells, Labels


def joint_contrast(
    audio: AudioSources,
    image: ImageCells,
    labels: Labels,
    config: Config,
    *,
    visual_weight: float,
    gather: bool = True,
) -> Tensor:
    """Contrast every source over the pictures, and over the sounds where `config.symmetric` (eq. 10).

    What is heard is the same for all pictures, and what is seen for all sounds: the first direction trains the cells'
    tokens, the second one those of the sound.
    """
    if gather:
        audio, image, labels = gather_halves(audio, image, labels)
    order = labels.order
    seen, heard = visual_weight * image.cells.amax(dim=1), audio.embedding[:, :, 0]
    over_images = seen[:, order].transpose(0, 1) + heard.gather(1, order)[:, None]
    loss = contrast(over_images, class_negatives(labels.visible, order), labels.mask)
    if config.symmetric:
        over_waveforms = heard[:, order].transpose(0, 1) + seen.gather(1, order)[:, None]
        loss = 0.5 * (loss + contrast(over_waveforms, class_negatives(labels.sounding, order), labels.mask))
    return loss


def token_cosines(heard: Tensor, seen: Tensor, counts: tuple[list[int], list[int]]) -> Tensor:
    """Compare class tokens by cosines [K,K]: each is the mean of a class's rows heard [R,D], beside that of those seen
    [S,E].

    `counts`: rows of each class in both; those that faces show have none to be seen by.
    """
    pairs = [
        nn.functional.normalize(_means(rows, count), dim=1) for rows, count in zip((heard, seen), counts, strict=True)
    ]
    unit = nn.functional.normalize(torch.cat(pairs, dim=1), dim=1)
    return unit @ unit.T


def _means(rows: Tensor, counts: list[int]) -> Tensor:
    parts = rows[: sum(counts)].split([*counts])
    return torch.stack([part.mean(dim=0) if len(part) else rows.new_zeros(rows.shape[1]) for part in parts])
