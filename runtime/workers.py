"""Two threads that overlap decoding and encoding with inference; order and results stay the same."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")

POLL_SECONDS = 0.1


def prefetch(items: Iterator[T], size: int) -> Iterator[T]:
    """Iterate `items` in a thread of its own, at most `size` items ahead; errors arrive here.

    Closing the generator stops the thread.
    """
    ready: queue.Queue[tuple[str, T | BaseException | None]] = queue.Queue(maxsize=size)
    stop = threading.Event()

    def offer(entry: tuple[str, T | BaseException | None]) -> bool:
        while not stop.is_set():
            try:
                ready.put(entry, timeout=POLL_SECONDS)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for item in items:
                if not offer(("item", item)):
                    return
            offer(("end", None))
        except BaseException as error:
            offer(("error", error))
        finally:
            if hasattr(items, "close"):
                items.close()

    thread = threading.Thread(target=work, name="avgn-decode", daemon=True)
    thread.start()
    try:
        while True:
            kind, value = ready.get()
            if kind == "end":
                return
            if kind == "error":
                assert isinstance(value, BaseException)
                raise value
            yield value  # type: ignore[misc]
    finally:
        stop.set()
        thread.join()


class Worker(Generic[T]):
    """Calls a function for every item in a thread of its own, at most `size` items behind."""

    def __init__(self, work: Callable[[T], None], size: int) -> None:
        self._work = work
        self._queue: queue.Queue[T | None] = queue.Queue(maxsize=size)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="avgn-encode", daemon=True)
        self._thread.start()

    def put(self, item: T) -> None:
        """Hand over an item; waits when the queue is full, raises what the function raised before."""
        if self._error is not None:
            raise self._error
        self._queue.put(item)

    def finish(self) -> None:
        """Wait until all items are done; raises what the function raised."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            if self._error is None:
                try:
                    self._work(item)
                except BaseException as error:
                    self._error = error
