from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OPTIONAL = ("cv2", "av", "onnxruntime", "openvino", "sounddevice", "nvtx", "torch", "onnx", "scipy")

BLOCK = """
import sys
for name in {names}:
    sys.modules[name] = None
import avgn.runtime as runtime
from avgn.runtime import *
"""

WATCHED = """
import sys
events = []
telling = ("os.fork", "os.posix_spawn", "socket.connect", "socket.getaddrinfo", "subprocess.Popen")
sys.addaudithook(lambda event, _: events.append(event) if event in telling else None)
import numpy as np, time
from avgn.runtime import Localizer
stream = Localizer.load({bundle!r}, backend={engine!r}).open_stream(mode="file")
stream.push_audio(np.zeros(48000, np.float32), 16000, 0.0)
stream.push_frame(np.zeros((64, 64, 3), np.uint8), 0.0)
stream.end_audio()
stream.flush()
# what a thread in the background would tell
time.sleep(1)
print(events)
"""


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_import_needs_numpy_only() -> None:
    done = python(BLOCK.format(names=OPTIONAL))
    assert done.returncode == 0, done.stderr
    done = python(f"from avgn.runtime import *; import sys; print([n for n in {OPTIONAL} if n in sys.modules])")
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("missing", "code", "message"),
    [
        ("av", "runtime.open_media('x.mp4')", "av is not installed: pip install 'avgn[runtime]'"),
        ("cv2", "from avgn.runtime.image import import_cv2; import_cv2()", "opencv is not installed: pip install"),
    ],
)
def test_a_missing_extra_is_named(missing: str, code: str, message: str) -> None:
    done = python(BLOCK.format(names=(missing,)) + code)
    assert done.returncode == 1 and f"MissingExtraError: {message}" in done.stderr


@pytest.mark.parametrize(
    ("module", "code", "name"),
    [
        ("av", "runtime.open_media('x.mp4')", "av"),
        ("cv2", "from avgn.runtime.image import import_cv2; import_cv2()", "opencv"),
    ],
)
def test_a_package_that_can_not_be_loaded_is_not_called_missing(
    tmp_path: Path, module: str, code: str, name: str
) -> None:
    # the wheel with windows in a container without them
    (tmp_path / f"{module}.py").write_text("raise ImportError('libGL.so.1: cannot open\\nshared object file')")
    done = python(f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from avgn import runtime; {code}")
    said = f"{name} can't be loaded (libGL.so.1: cannot open shared object file): pip install --force-reinstall"
    assert done.returncode == 1 and said in done.stderr


def test_missing_engine_is_named(bundle_path: Path) -> None:
    load = f"runtime.Localizer.load({str(bundle_path)!r})"
    done = python(BLOCK.format(names=("onnxruntime",)) + f"print({load}.engine.name)")
    assert done.stdout.strip() == "openvino"
    done = python(BLOCK.format(names=("onnxruntime", "openvino")) + load)
    assert "MissingExtraError: onnxruntime is not installed: pip install 'avgn[cpu]'" in done.stderr


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_an_engine_forks_nothing_and_tells_nobody(bundle_path: Path, tmp_path: Path, engine: str) -> None:
    pytest.importorskip(engine)
    code = WATCHED.format(bundle=str(bundle_path), engine=engine)
    # OpenVINO's telemetry keeps quiet where it sees a CI machine
    told = {name: value for name, value in os.environ.items() if "CI" not in name} | {"HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, env=told)
    assert (done.stdout.strip(), list(tmp_path.glob("intel*"))) == ("[]", []), done.stderr


def test_every_name_is_at_hand_and_none_is_imported_early() -> None:
    code = "import sys, avgn.runtime as r; print('numpy' in sys.modules, [getattr(r, n).__name__ for n in r.__all__])"
    done = python(code + "; r.nothing")
    early, found = done.stdout.split(maxsplit=1)
    assert early == "False" and "'Localizer'" in found and "'write_manifest'" in found
    assert done.stderr.rstrip().endswith("module avgn.runtime has no attribute 'nothing'")
