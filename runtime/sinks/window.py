"""A window on the desktop that shows results as they come."""

from __future__ import annotations

import os
import sys
import threading
from typing import Any

import numpy as np

from avgn.runtime.arrays import Pixels
from avgn.runtime.errors import InputError
from avgn.runtime.image import import_cv2
from avgn.runtime.result import Result

CLOSING = (27, ord("q"))


class Window:
    """Takes results from any thread and draws the newest one in `update`, which the main thread calls.

    Desktops want their windows served by the main thread. Escape, q and the window's own button close it.
    """

    def __init__(self, title: str) -> None:
        """Raises InputError where OpenCV has no windows, or where there is no desktop to show them on."""
        self._cv2 = import_cv2()
        if not has_windows(self._cv2):
            raise InputError(
                "--show needs an OpenCV with windows: pip uninstall opencv-python-headless, then "
                "pip install opencv-python"
            )
        if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            raise InputError("--show needs a desktop and neither DISPLAY nor WAYLAND_DISPLAY is set: use --output")
        self._title = title
        self._lock = threading.Lock()
        self._newest: tuple[Result, Pixels] | None = None
        self._open = False

    def __call__(self, result: Result, rgb: Pixels) -> None:
        with self._lock:
            self._newest = (result, rgb)

    def update(self) -> bool:
        """Show what is new; False once the user has closed the window."""
        cv2 = self._cv2
        with self._lock:
            newest, self._newest = self._newest, None
        if newest is not None:
            if not self._open:
                cv2.namedWindow(self._title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
                cv2.resizeWindow(self._title, newest[1].shape[1], newest[1].shape[0])
                self._open = True
            cv2.imshow(self._title, np.ascontiguousarray(newest[0].plot(newest[1])[..., ::-1]))
        if not self._open:
            return True
        key = cv2.waitKey(1)
        return key not in CLOSING and cv2.getWindowProperty(self._title, cv2.WND_PROP_VISIBLE) >= 1

    def close(self) -> None:
        """Take the window away."""
        if self._open:
            self._open = False
            self._cv2.destroyWindow(self._title)
            self._cv2.waitKey(1)


def has_windows(cv2: Any) -> bool:
    """Return whether this OpenCV was built with a GUI."""
    lines = [line.strip() for line in cv2.getBuildInformation().splitlines()]
    at = next((at for at, line in enumerate(lines) if line.startswith("GUI")), None)
    if at is None:
        return False
    return lines[at].partition(":")[2].strip().upper() not in ("NONE", "NO")
