"""What goes wrong in a process that loads data, said in one sentence: PyTorch hands on a whole traceback as text."""

from __future__ import annotations

import re

from avgn.runtime.errors import FailureError, InputError


def of_worker(error: BaseException) -> InputError | FailureError | None:
    """Return the error of a loader's process in its own words, None for any other error."""
    text = str(error)
    if isinstance(error, InputError) and "in DataLoader worker process" in text:
        return InputError(text.rstrip().rpartition("InputError: ")[2])
    ended = re.search(r"DataLoader worker \(pid\(?s?\)? [\d, ]+\)", text)
    if isinstance(error, RuntimeError) and ended:
        return FailureError(
            "a process that loads data was ended from outside: if memory ran out, use fewer workers; "
            "train with `resume` to go on"
        )
    return None
