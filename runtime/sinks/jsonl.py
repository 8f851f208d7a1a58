"""Results as JSON lines, one frame a line."""

from __future__ import annotations

import json

import numpy as np
import numpy.typing as npt

from avgn.runtime.outputs import TextOutput
from avgn.runtime.result import Result


class JsonLinesWriter(TextOutput):
    """Writes `result.to_json()` lines; a file appears on close. Raises InputError when it can't be written."""

    def __call__(self, result: Result, rgb: npt.NDArray[np.uint8] | None = None) -> None:
        self.write(json.dumps(result.to_json(), allow_nan=False) + "\n")
