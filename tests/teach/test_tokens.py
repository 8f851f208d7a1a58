"""What can be done with class tokens without any example."""

from __future__ import annotations

import numpy as np
import pytest

from avgn.runtime.errors import InputError
from avgn.teach import Changes
from avgn.teach.tokens import Rows, Token, add, keep, merge, remove, rename


def token(label: str, *, heard: int = 1, seen: int = 1, threshold: float = 0.5) -> Token:
    def rows(count: int, width: int) -> Rows:
        return Rows(weight=np.full((count, width), ord(label[0]), np.float32), bias=np.zeros(count, np.float32))

    return Token(label=label, heard=rows(heard, 4), seen=rows(seen, 6), threshold=threshold, origin=0)


TOKENS = [token("dog", heard=2, seen=3), token("cat"), token("speech", seen=0), token("violin", threshold=0.2)]


def labels(tokens: list[Token]) -> list[str]:
    return [each.label for each in tokens]


def test_merged_classes_are_heard_and_seen_by_all_their_rows() -> None:
    made = merge(TOKENS, ["violin", "dog"], "noisy")
    assert labels(made) == ["noisy", "cat", "speech"]
    assert (len(made[0].heard), len(made[0].seen), made[0].threshold, made[0].origin) == (3, 4, 0.2, None)
    assert len(TOKENS[0].heard) == 2


def test_keep_remove_and_rename_leave_the_order() -> None:
    assert labels(keep(TOKENS, ["violin", "dog"])) == ["dog", "violin"]
    assert labels(remove(TOKENS, ["cat"])) == ["dog", "speech", "violin"]
    assert labels(rename(TOKENS, {"dog": "cat", "cat": "dog"})) == ["cat", "dog", "speech", "violin"]
    assert rename(TOKENS, {"dog": "Rex"})[0].origin == 0


def test_a_class_that_is_there_is_replaced_only_when_asked() -> None:
    with pytest.raises(InputError, match=r"class 'dog' is in the bundle already: pass --replace"):
        add(TOKENS, [token("dog")])
    assert len(add(TOKENS, [token("dog")], replacing=True)[0].heard) == 1
    assert labels(add(TOKENS, [token("kettle")])) == [*labels(TOKENS), "kettle"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda: keep(TOKENS, ["violine"]), r"class 'violine' is not in the bundle: did you mean violin"),
        (lambda: keep(TOKENS, []), "--keep needs at least one class"),
        (lambda: remove(TOKENS, labels(TOKENS)), "--remove would leave no class"),
        (lambda: merge(TOKENS, ["dog"], "x"), "--merge needs two classes or more"),
        (lambda: merge(TOKENS, ["dog", "speech"], "x"), "speech is seen by a face"),
        (lambda: merge(TOKENS, ["dog", "violin"], "cat"), "two classes would be called 'cat'"),
        (lambda: rename(TOKENS, {"dog": "cat"}), "two classes would be called 'cat'"),
        (lambda: rename(TOKENS, {"dog": "a\nb"}), "can't be used"),
        (lambda: Changes(), "nothing to teach"),
        (lambda: Changes(keep=["dog"], remove=["cat"]), "--keep and --remove say the same"),
        (lambda: Changes(classes={" x": "f"}), "can't be used"),
        (lambda: Changes(classes={"zebra": "f"}, names=["zebra=Neigh, whinny+zebra"]), "'zebra' is asked for by"),
    ],
)
def test_what_makes_no_sense_is_refused(change: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        change()  # type: ignore[operator]
