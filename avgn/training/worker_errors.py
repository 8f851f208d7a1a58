"""What goes wrong in a process that loads data, said in one sentence: PyTorch hands on a whole traceback as text."""

from __future__ import annotations

import multiprocessing
import pickle
import re
import traceback
from pathlib import Path

from avgn.runtime.errors import FailureError, InputError

# its modules hand batches from process to process
_HANDING_OVER = Path(multiprocessing.__file__).parent


def of_worker(error: BaseException) -> InputError | FailureError | None:
    """Return the error of a loader's process in its own words, None for any other error."""
    text = str(error)
    if isinstance(error, InputError) and "in DataLoader worker process" in text:
        return InputError(text.rstrip().rpartition("InputError: ")[2])
    ended = re.search(r"DataLoader worker \(pid\(?s?\)? [\d, ]+\)", text)
    if (isinstance(error, RuntimeError) and ended) or _was_handed_over(error):
        return FailureError(
            "a process that loads data was ended from outside: if memory ran out, use fewer workers; "
            "train with `resume` to go on"
        )
    return None


def _was_handed_over(error: BaseException) -> bool:
    """Whether a batch was lost on its way: a process can be killed between announcing tensors and handing them over,
    which is noticed before its end is."""
    if not isinstance(error, OSError | EOFError | pickle.UnpicklingError):
        return False
    # of the thread that copies to page-locked memory comes only the text
    if "in pin memory thread" in str(error):
        return str(_HANDING_OVER) in str(error)
    return any(Path(frame.filename).parent == _HANDING_OVER for frame in traceback.extract_tb(error.__traceback__))
