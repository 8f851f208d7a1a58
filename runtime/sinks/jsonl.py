"""Results as JSON lines, one frame a line."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt

from avgn.runtime.result import Result
from avgn.runtime.sinks.partial import prepare_output, write_error


class JsonLinesWriter:
    """Writes `result.to_json()` lines; the file appears on close. Raises InputError when it can't be written."""

    def __init__(self, path: str | os.PathLike[str], *inputs: Path) -> None:
        """`inputs`: files that the output must not replace."""
        self.path = Path(path)
        self._partial = prepare_output(path, *inputs)
        self._file = self._partial.open("w", encoding="utf-8")

    def __call__(self, result: Result, rgb: npt.NDArray[np.uint8] | None = None) -> None:
        line = json.dumps(result.to_json(), allow_nan=False) + "\n"
        try:
            self._file.write(line)
        except OSError as error:
            self.abort()
            raise write_error(self.path, error) from None

    def close(self, *, interrupted: bool = False) -> None:
        """Finish the file; what was written before an interrupt is whole lines and stays."""
        if self._file.closed:
            return
        try:
            self._file.close()
            self._partial.replace(self.path)
        except OSError as error:
            self.abort()
            raise write_error(self.path, error) from None

    def abort(self) -> None:
        """Leave nothing behind."""
        # the buffer may not fit on the disk; the file goes anyway
        with suppress(OSError):
            self._file.close()
        self._partial.unlink(missing_ok=True)
