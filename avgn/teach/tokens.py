"""Class tokens of a bundle of real things as numbers, and what can be done with them without any example.

A class is heard by the largest of its rows over a sound's features, and seen by the log-sum-exp of its rows over a
cell's; a class that is a person has no rows to be seen by but the face detector.

Legend: R rows, D width of features.
"""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from avgn.runtime.arrays import Floats
from avgn.runtime.bundle_schema import LONGEST_NAME
from avgn.runtime.errors import InputError
from avgn.runtime.limits import MOST_CLASSES
from avgn.runtime.texts import is_name, is_text


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Rows of a classifier: weight [R, D] and bias [R], float32."""

    weight: Floats
    bias: Floats

    def __post_init__(self) -> None:
        assert self.weight.ndim == 2 and self.bias.shape == self.weight.shape[:1]

    def __len__(self) -> int:
        return len(self.bias)

    def __call__(self, features: Floats) -> Floats:
        """Logits [..., R] of features [..., D]."""
        return np.asarray(features @ self.weight.T + self.bias, np.float32)


@dataclass(frozen=True, kw_only=True)
class Token:
    """One class: its name, the rows that it is heard by and seen by (none: faces), and its threshold of log-odds.

    `origin`: the index of the class in the bundle that it comes from unchanged, None for others.
    """

    label: str
    heard: Rows
    seen: Rows
    threshold: float
    origin: int | None = None

    @property
    def by_face(self) -> bool:
        return not len(self.seen)


def merge(tokens: Sequence[Token], names: Sequence[str], label: str) -> list[Token]:
    """Make one class of several: heard and seen where any of them was. It stands where the first one stood.

    Raises InputError for unknown names, fewer than two, and faces together with other things.
    """
    if len(set(names)) < 2:
        raise InputError(f"--merge needs two classes or more to make {label!r} of, got {', '.join(names) or 'none'}")
    parts = [_find(tokens, name) for name in dict.fromkeys(names)]
    if len({part.by_face for part in parts}) > 1:
        faces = ", ".join(part.label for part in parts if part.by_face)
        raise InputError(f"can't merge {', '.join(names)}: {faces} is seen by a face, the others are not; leave it out")
    made = Token(
        label=label,
        heard=_together([part.heard for part in parts]),
        seen=_together([part.seen for part in parts]),
        threshold=min(part.threshold for part in parts),
    )
    at = min(tokens.index(part) for part in parts)
    rest = [None if token in parts else token for token in tokens]
    rest[at] = made
    return _checked([token for token in rest if token is not None])


def rename(tokens: Sequence[Token], names: Mapping[str, str]) -> list[Token]:
    """Give classes other names ({old: new}), all at once. Raises InputError for unknown or doubled names."""
    found = {_find(tokens, old).label: new for old, new in names.items()}
    return _checked([replace(token, label=found.get(token.label, token.label)) for token in tokens])


def keep(tokens: Sequence[Token], names: Iterable[str]) -> list[Token]:
    """Leave all others out; the order stays. Raises InputError for unknown names and for none."""
    wanted = {_find(tokens, name).label for name in names}
    if not wanted:
        raise InputError("--keep needs at least one class: name those that the bundle shall know")
    return [token for token in tokens if token.label in wanted]


def remove(tokens: Sequence[Token], names: Iterable[str]) -> list[Token]:
    """Leave classes out. Raises InputError for unknown names, and where nothing would be left."""
    unwanted = {_find(tokens, name).label for name in names}
    left = [token for token in tokens if token.label not in unwanted]
    if not left:
        raise InputError("--remove would leave no class: a bundle knows at least one")
    return left


def add(tokens: Sequence[Token], new: Sequence[Token], *, replacing: bool = False) -> list[Token]:
    """Append classes; with `replacing` those of the same name stand in the old ones' places.

    Raises InputError for a class that is there, without `replacing`.
    """
    found = list(tokens)
    for token in new:
        same = [at for at, each in enumerate(found) if each.label == token.label]
        if same and not replacing:
            raise taken(token.label)
        if same:
            found[same[0]] = token
        else:
            found.append(token)
    return _checked(found)


def taken(label: str) -> InputError:
    return InputError(f"class {label!r} is in the bundle already: pass --replace to teach it anew, or another name")


def check_label(label: str) -> None:
    """Raise InputError for a name that a bundle can't hold."""
    if not label or len(label) > LONGEST_NAME or not is_name(label) or not is_text(label) or label != label.strip():
        raise InputError(
            f"class name {label[:80]!r} can't be used: take 1 to {LONGEST_NAME} letters that can be shown, without "
            "spaces at its ends"
        )


def composed(label: str) -> str:
    """A name in one spelling: a letter and its mark are one character where Unicode has one (macOS parts them)."""
    return unicodedata.normalize("NFC", label)


def _find(tokens: Sequence[Token], label: str) -> Token:
    for token in tokens:
        if composed(token.label) == composed(label):
            return token
    labels = [token.label for token in tokens]
    near = difflib.get_close_matches(label, labels, n=3, cutoff=0.5)
    hint = (
        f"did you mean {' or '.join(near)}?" if near else f"it has {', '.join(labels[:8])}" + " ..." * (len(labels) > 8)
    )
    raise InputError(f"class {label!r} is not in the bundle: {hint}")


def _together(rows: Sequence[Rows]) -> Rows:
    return Rows(
        weight=np.concatenate([each.weight for each in rows]), bias=np.concatenate([each.bias for each in rows])
    )


def _checked(tokens: list[Token]) -> list[Token]:
    for token in tokens:
        check_label(token.label)
    labels = [composed(token.label) for token in tokens]
    double = next((label for label in labels if labels.count(label) > 1), None)
    if double is not None:
        raise InputError(f"two classes would be called {double!r}: choose other names")
    if len(labels) > MOST_CLASSES:
        raise InputError(f"a bundle knows at most {MOST_CLASSES} classes, these would be {len(labels)}: remove some")
    return tokens
