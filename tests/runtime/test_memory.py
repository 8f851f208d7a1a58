"""With too little memory no file is called damaged: a process of its own gets a limit when it has loaded everything."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from avgn.runtime.errors import MissingExtraError
from avgn.runtime.memory import is_short, refuse_shortage
from tests.commands import ENVIRONMENT
from tests.patience import PATIENCE
from tests.runtime.clips import Scene, still_clip

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are Linux's")

LIMITED = r"""
import re, resource, sys
from pathlib import Path
import cv2
from avgn.cli import main
from avgn.runtime.container import decode_frames, open_file
from avgn.runtime.image import decode_still
from avgn.runtime.errors import MissingExtraError
from avgn.runtime.memory import is_short

small, what, path = sys.argv[1:]
data, damaged = Path(path).read_bytes(), []

def frames(name):
    return decode_frames(lambda: open_file(Path(name)), lambda found: found.streams.video[0], lambda: damaged.append(1))

list(frames(small))
main(["localize", "tiny", small, "--threads", "1"])
used = 1024 * int(re.search(r"VmSize:\s+(\d+)", Path("/proc/self/status").read_text())[1])
resource.setrlimit(resource.RLIMIT_AS, (used + (8 << 20), resource.RLIM_INFINITY))
try:
    if what == "picture":
        decode_still(path, data)
    elif what == "frames":
        print(len(list(frames(path))), "frames")
    else:
        sys.exit(main(["localize", "tiny", path, "--threads", "1"]))
except MemoryError:
    print("memory", len(damaged))
"""


def limited(folder: Path, what: str, path: Path) -> subprocess.CompletedProcess[str]:
    small = still_clip(folder / "small.mp4", Scene(seen={0: (0.25, 0.3)}), seconds=0.5)
    command = [sys.executable, "-c", LIMITED, str(small), what, str(path)]
    return subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=PATIENCE)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    scene = Scene(seen={0: (0.25, 0.3)})
    return still_clip(tmp_path_factory.mktemp("large") / "a.mp4", scene, seconds=2.0, size=(2160, 3840))


def test_a_picture_is_not_called_damaged(tmp_path: Path) -> None:
    assert cv2.imwrite(str(tmp_path / "a.png"), np.zeros((6000, 8000, 3), np.uint8))
    done = limited(tmp_path, "picture", tmp_path / "a.png")
    assert done.stdout.splitlines()[-1] == "memory 0", done.stderr


def test_frames_are_not_called_damaged(tmp_path: Path, large: Path) -> None:
    done = limited(tmp_path, "frames", large)
    assert done.stdout.splitlines()[-1] == "memory 0", done.stdout[-200:] + done.stderr


def test_a_command_says_it_in_a_sentence(tmp_path: Path, large: Path) -> None:
    done = limited(tmp_path, "command", large)
    assert done.returncode == 1, done.stderr
    assert done.stderr.splitlines()[-1].startswith("avgn: there is not enough memory here (ulimit -v allows ")
    assert "Traceback" not in done.stderr and not list(tmp_path.glob("*.partial"))


def test_a_file_that_asks_for_too_much_is_no_shortage() -> None:
    """Damaged ones do; here there is memory to spare."""
    for error in (MemoryError("Unable to allocate 8 EiB"), RuntimeError("std::bad_alloc"), ValueError("other")):
        assert not is_short(error)
        refuse_shortage(error)
    assert "force-reinstall" in str(MissingExtraError("av", "runtime", ImportError("failed to map segment")))
