"""What differs between PyAV's releases, asked of the release at hand and never of its version number."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from avgn.runtime.errors import MissingExtraError


def import_av() -> ModuleType:
    """PyAV; raises MissingExtraError when it is not installed.

    Never set PyAV's log level: with a Python log callback, FFmpeg's decoding threads deadlock on the interpreter lock.
    """
    try:
        import av
    except ImportError as error:
        raise MissingExtraError("av", "runtime", error) from None
    module: ModuleType = av
    return module


def open_input(address: str, **options: Any) -> Any:
    """Open media for reading, as `av.open` does; names and comments in it that are no UTF-8 stop nothing.

    Releases that take no `metadata_errors` never stop at them.
    """
    av = import_av()
    try:
        return av.open(address, metadata_errors="replace", **options)
    except TypeError as error:
        if "metadata_errors" not in str(error):
            raise
        return av.open(address, **options)


def disposition(stream: Any) -> int:
    """FFmpeg's AV_DISPOSITION bits of a stream: a plain number in some releases, an enumeration of flags in others."""
    bits = stream.disposition
    return int(getattr(bits, "value", bits))


def side_data(frame: Any) -> Any:
    """Return what lies beside a decoded picture, by kind.

    PyAV stops at kinds that it has no name for, as the notes of a photograph: they are named by their number.
    """
    from av.sidedata.sidedata import Type

    try:
        return frame.side_data
    except ValueError:
        # what an enumeration is asked for a value that it lacks
        type.__setattr__(Type, "_missing_", classmethod(_numbered))
        return frame.side_data


def _numbered(kinds: Any, number: int) -> Any:
    kind = object.__new__(kinds)
    vars(kind).update(_name_=f"KIND_{number}", _value_=number)
    return kind
