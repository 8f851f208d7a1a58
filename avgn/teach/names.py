"""The names that the published classifiers know: 521 of AudioSet to hear, 1000 of ImageNet to see.

Any of them becomes a class without an example: its published row is its token.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from avgn.runtime.arrays import Floats
from avgn.runtime.errors import InputError
from avgn.teach.bundles import Taught
from avgn.teach.fitting import NEVER_SEEN
from avgn.teach.tokens import Rows, Token, check_label

# what a class without rows is heard by
NEVER_HEARD = -20.0
HEARD, SEEN = "AudioSet", "ImageNet"


@dataclass(frozen=True, kw_only=True)
class Name:
    """One output of a published classifier."""

    source: str
    text: str
    index: int

    def is_called(self, word: str) -> bool:
        """Whether it is this name, or one of the names that it lists."""
        mine = self.text.casefold()
        return word == mine or word in (part.strip() for part in mine.split(","))


def published_names() -> tuple[list[Name], list[str]]:
    """All names whose lists are installed, and for each list that is not the sentence that says how it comes."""
    names: list[Name] = []
    missing: list[str] = []
    for read in (_audioset, _imagenet):
        try:
            names += read()
        except InputError as error:
            missing.append(str(error))
        except ImportError as error:
            missing.append(f"{error.name} is not installed: pip install 'avgn[train]'")
    return names, missing


def _audioset() -> list[Name]:
    from avgn.world.classes import audioset_names

    return [Name(source=HEARD, text=text, index=at) for at, text in enumerate(audioset_names())]


def _imagenet() -> list[Name]:
    from torchvision.models import ResNet18_Weights

    categories: list[str] = ResNet18_Weights.DEFAULT.meta["categories"]
    return [Name(source=SEEN, text=text, index=at) for at, text in enumerate(categories)]


def label_of(asked: str) -> str:
    """The class that NAME or LABEL=NAME+NAME makes."""
    return asked.partition("=")[0].strip()


def resolve(asked: str, names: Sequence[Name]) -> tuple[str, list[Name]]:
    """Read NAME, or LABEL=NAME+NAME of what it is heard and seen by. Raises InputError for names that nobody knows."""
    label, joined, rest = asked.partition("=")
    label = label.strip()
    check_label(label)
    found: list[Name] = []
    for part in rest.split("+") if joined else [label]:
        word = part.strip().casefold()
        exact = [name for name in names if name.text.casefold() == word]
        hits = exact or [name for name in names if name.is_called(word)]
        if not hits:
            raise InputError(f"no classifier knows the name {part.strip()!r}: {_nearest(word, names)}")
        found += [name for name in hits if name not in found]
    return label, found


def named_tokens(asked: Sequence[str], source: Taught, say: Any) -> list[Token]:
    """Make classes of names. Raises InputError for unknown ones, and where the packages of the weights are missing."""
    names, missing = published_names()
    if missing:
        raise InputError("; ".join(missing))
    from avgn.encoders import efficientnet_lite, yamnet
    from avgn.encoders.packages import EFFICIENTNET, YAMNET, read_onnx_numbers, read_state

    resolved = [resolve(each, names) for each in asked]
    _, heard, heard_bias = yamnet.rename(read_onnx_numbers(YAMNET))
    _, seen, seen_bias = efficientnet_lite.rename(read_state(EFFICIENTNET))
    threshold = float(np.median([token.threshold for token in source.tokens]))
    tokens = []
    for label, found in resolved:
        hear = [name.index for name in found if name.source == HEARD]
        see = [name.index for name in found if name.source == SEEN]
        if not hear:
            say(
                f"{label}: seen, but nothing is heard by that name, so it is never said: join one, {label}={label}+NAME"
            )
        if not see:
            say(f"{label}: heard, but nothing is seen by that name, so it is only said to be off-screen")
        tokens.append(
            Token(
                label=label,
                heard=_rows(heard[hear].numpy(), heard_bias[hear].numpy(), NEVER_HEARD),
                seen=_rows(seen[see].numpy(), seen_bias[see].numpy(), NEVER_SEEN),
                threshold=threshold,
            )
        )
    return tokens


def search(word: str, labels: Sequence[str]) -> tuple[list[dict[str, Any]], list[str]]:
    """Names that hold a word, those of a bundle's classes first, and what was not looked through."""
    names, missing = published_names()
    wanted = word.casefold()
    rows: list[dict[str, Any]] = [{"name": label, "from": "bundle"} for label in labels if wanted in label.casefold()]
    rows += [{"name": name.text, "from": name.source} for name in names if wanted in name.text.casefold()]
    return rows, missing


def _nearest(word: str, names: Sequence[Name]) -> str:
    table = {name.text.casefold(): name.text for name in names}
    near = difflib.get_close_matches(word, table, n=3, cutoff=0.5) or [text for text in table if word in text][:3]
    if near:
        return f"did you mean {' or '.join(repr(table[text]) for text in near)}?"
    return "avgn classes --search WORD finds those that are known"


def _rows(weight: Floats, bias: Floats, never: float) -> Rows:
    if not len(bias):
        return Rows(weight=np.zeros((1, weight.shape[1]), np.float32), bias=np.array([never], np.float32))
    # rounded as the shipped rows are
    return Rows(weight=weight.astype(np.float16).astype(np.float32), bias=bias.astype(np.float32))
