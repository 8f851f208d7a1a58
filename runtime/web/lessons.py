"""What a teacher is asked for visitors who teach, and what it answers. Who it is comes from outside: this room knows
no way to teach."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from avgn.runtime.arrays import Pixels
from avgn.runtime.localizer import Localizer
from avgn.runtime.regions import Box

Facts = Mapping[str, Any]


class LessonError(Exception):
    """A lesson that comes to nothing; the page has words for each `code`, with `facts` in them."""

    def __init__(self, code: str, **facts: Any) -> None:
        super().__init__(code)
        self.code = code
        self.facts = facts


@dataclass(frozen=True, kw_only=True, eq=False)
class Recording:
    """What came while a visitor held the button: PCM [T] int16 at `rate` Hz, and pictures [H, W, 3] RGB.

    The last picture is the one that the visitor looks at, and says where the thing is.
    """

    samples: npt.NDArray[np.int16]
    rate: int
    pictures: tuple[Pixels, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Looked:
    """A recording as an example: the teacher's own, where it is hottest in the last picture (None: nowhere), and more
    that a page may show."""

    example: Any
    box: Box | None
    facts: Facts = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Taught:
    """What the engine is to be now, the number of examples of each class that was taught, and what is said of one."""

    localizer: Localizer
    facts: Facts = field(default_factory=dict)


class Teacher(Protocol):
    """Teaches the server's bundle. Its methods are called from one thread, one at a time, but for `taught`.

    All of them raise LessonError for what comes to nothing; everything is then as it was before.
    """

    @property
    def taught(self) -> Mapping[str, int]:
        """The number of examples of each class that was taught here."""
        ...

    @property
    def known(self) -> tuple[str, ...]:
        """All classes that there are now."""
        ...

    def look(self, recording: Recording) -> Looked:
        """Make an example of a recording."""
        ...

    def learn(self, name: str, looked: Looked, box: Box | None, *, replace: bool) -> Taught:
        """Add an example to a class, which may be new; `box`: where it is in the last picture (None: anywhere).

        `replace`: the class that has this name goes.
        """
        ...

    def forget(self, name: str) -> Taught:
        """Take back what was taught of a class."""
        ...

    def keep(self, taught: Taught) -> None:
        """Take what was learnt or forgotten for good: everybody has it now."""
        ...

    def pack(self) -> Path:
        """Return a .zip of the bundle as it is now; it stays until the next change."""
        ...
