"""Ends from outside: SIGTERM (docker stop, systemctl stop, timeout) and SIGHUP end a command as Ctrl-C does."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

# what announces itself twice, as timeout and systemd do, means one end
ECHO_SECONDS = 2.0
SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")


class Ended(KeyboardInterrupt):
    """The interrupt of a signal other than Ctrl-C."""


class _Listener:
    """Turns signals into interrupts, at most one of a kind at a time and none amid what is shielded."""

    def __init__(self) -> None:
        self.received: int | None = None
        self.shields = 0
        self.waiting = False
        self._pid = os.getpid()
        self._last = float("-inf")

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:
            # a forked worker ends with its parent; whoever insists gets it
            signal.signal(number, signal.SIG_DFL)
            return
        now = time.monotonic()
        is_echo = number != signal.SIGINT and now - self._last < ECHO_SECONDS
        self._last = now
        if is_echo:
            return
        self.received = number
        if self.shields and not self.waiting:
            self.waiting = True
            return
        self.interrupt()

    def interrupt(self) -> None:
        self.waiting = False
        raise KeyboardInterrupt if self.received == signal.SIGINT else Ended


_listener: _Listener | None = None


def listen() -> None:
    """Let SIGINT, SIGTERM and SIGHUP raise KeyboardInterrupt in the main thread; what is ignored (nohup) stays so."""
    global _listener
    if threading.current_thread() is not threading.main_thread():
        return
    _listener = _Listener()
    for name in SIGNALS:
        number = getattr(signal, name, None)
        # None: set by a library, which knows why
        if number is not None and signal.getsignal(number) not in (signal.SIG_IGN, None):
            signal.signal(number, _listener)


def exit_status() -> int:
    """Return what a command returns that was interrupted: 128 and the number of the signal; its echoes change it no
    more."""
    received = None if _listener is None else _listener.received
    if received is None or received == signal.SIGINT:
        return 128 + signal.SIGINT
    # Python gives up its handlers before the process ends
    for name in SIGNALS[1:]:
        if signal.getsignal(getattr(signal, name)) is _listener:
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    return 128 + received


@contextmanager
def shield() -> Iterator[None]:
    """Finish what is inside before an interrupt is raised; a second Ctrl-C is raised at once."""
    listener = _listener
    if listener is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    listener.shields += 1
    try:
        yield
    finally:
        listener.shields -= 1
        if listener.waiting and not listener.shields:
            listener.interrupt()


def leave_to_parent() -> None:
    """In a worker process: whoever ends all processes of a group leaves this one to its parent."""
    for name in SIGNALS:
        with suppress(AttributeError, ValueError):
            signal.signal(getattr(signal, name), signal.SIG_IGN)


def end_with_parent() -> None:
    """In a worker process: end when the parent is gone, however it went; orphans would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        # threads of libraries keep a process from ending in any other way
        os._exit(1)

    threading.Thread(target=watch, name="avgn-parent", daemon=True).start()
