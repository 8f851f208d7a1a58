"""What all tests share: which of them run alone, and Ctrl-C that arrives."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

HERE = Path(__file__).parent
# they measure time, or talk to a browser or a sound server: files, or single tests of them
ALONE = (
    "runtime/test_devices.py::test_a_camera_that_is_not_there_is_tried_again",
    "runtime/test_devices.py::test_a_microphone",
    "runtime/test_live.py",
    "runtime/test_multi.py::test_a_slow_engine",
    "runtime/test_multi_closing.py::test_closing",
    "runtime/test_multi.py::test_frames_do_not_wait",
    "runtime/test_pairing.py::test_a_network_stream",
    "web/",
)

# a shell that starts the tests in the background has them, and all that they start, ignore Ctrl-C
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        name = f"{item.path.relative_to(HERE).as_posix()}::{item.name}"
        if name.startswith(ALONE):
            item.add_marker("alone")
