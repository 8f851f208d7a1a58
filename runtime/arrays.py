"""The kinds of arrays that pass between modules, by what they hold; shapes stand in docstrings."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

# of any type, where it does not matter
Array = npt.NDArray[Any]
# waveforms, maps, probabilities
Floats = npt.NDArray[np.float32]
# images, red green blue
Pixels = npt.NDArray[np.uint8]
