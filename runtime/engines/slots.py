"""A few equal resources that threads take turns with: buffers of a GPU, each with a queue of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

T = TypeVar("T")


class Slots(Generic[T]):
    """Lend at most `count` things, each made when first needed; a thread that finds all of them taken waits.

    The one given back last is taken first, so a single caller works with one, and its buffers stay warm.
    """

    def __init__(self, make: Callable[[], T], count: int) -> None:
        self._make = make
        self._unmade = count
        self._free: list[T] = []
        self._changed = threading.Condition()

    @contextmanager
    def take(self) -> Iterator[T]:
        """Yield a thing for the caller alone until the block ends. What `make` raises is passed on, and made anew
        later."""
        with self._changed:
            while not self._free and not self._unmade:
                self._changed.wait()
            made = self._free.pop() if self._free else None
            if made is None:
                self._unmade -= 1
        if made is None:
            try:
                made = self._make()
            except BaseException:
                with self._changed:
                    self._unmade += 1
                    self._changed.notify()
                raise
        try:
            yield made
        finally:
            with self._changed:
                self._free.append(made)
                self._changed.notify()
