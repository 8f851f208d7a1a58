"""`avgn doctor` in whole and in broken installations: packages that can't be imported, or are not there at all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import ENVIRONMENT, ROOT, avgn

# module: (what its import raises, the step that must be named, the way out)
FAULTS = {
    "av": ("libavcodec.so.61: cannot open shared object file", "encoding", "--force-reinstall 'av"),
    "cv2": ("numpy.core.multiarray failed to import", "pictures", "--force-reinstall 'opencv-python-headless"),
    "openvino": ("libopenvino.so: undefined symbol", "engine openvino", "--force-reinstall 'openvino"),
}


def doctor(folder: Path) -> subprocess.CompletedProcess[str]:
    """The command where modules in `folder` come before those that are installed."""
    path = f"{folder}:{ROOT}"
    command = [sys.executable, "-m", "avgn", "doctor"]
    return subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT | {"PYTHONPATH": path}, timeout=300)


def break_module(folder: Path, name: str, code: str) -> None:
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text(code)


def test_what_works_comes_first_and_is_tried() -> None:
    done = avgn("doctor")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    steps = ("pictures", "encoding", "decoding", "resampling", "engine onnxruntime", "localizing")
    assert [step for step in steps if any(line.startswith(f"ok      {step}: ") for line in lines)] == list(steps)
    assert lines[0].startswith("ok ") and "BROKEN" not in done.stdout
    assert sum("tensorrt" in line and not line.startswith("engines: ") for line in lines) <= 1


@pytest.mark.parametrize("module", FAULTS)
def test_a_package_that_is_broken_is_named_with_the_way_out(module: str, tmp_path: Path) -> None:
    pytest.importorskip(module, reason=f"{module} is not installed")
    reason, step, way_out = FAULTS[module]
    break_module(tmp_path, module, f"raise ImportError({reason!r})")
    done = doctor(tmp_path)
    broken = [line for line in done.stdout.splitlines() if line.startswith("BROKEN")]
    assert done.returncode == 1 and len(broken) == 1, done.stdout + done.stderr
    assert broken[0].startswith(f"BROKEN  {step} fails with ") and reason in broken[0] and way_out in broken[0]
    assert "ok      engine onnxruntime: audio half" in done.stdout
    assert "Traceback" not in done.stderr


def test_a_release_that_lacks_what_is_used_is_named(tmp_path: Path) -> None:
    # the package as it is, but for keywords that its `open` no longer takes
    code = "av.open = lambda file, mode='r', *, options=None: opened(file, mode, options=options)"
    (tmp_path / "sitecustomize.py").write_text(f"import av\nopened = av.open\n{code}\n")
    done = doctor(tmp_path)
    assert done.returncode == 1 and "BROKEN  encoding fails with av " in done.stdout, done.stdout + done.stderr
    assert "unexpected keyword argument 'format'" in done.stdout


def test_without_any_engine(tmp_path: Path) -> None:
    names = ("onnxruntime", "openvino", "tensorrt", "tensorrt_rtx")
    (tmp_path / "sitecustomize.py").write_text(f"import sys\nsys.modules |= dict.fromkeys({names})\n")
    done = doctor(tmp_path)
    assert done.returncode == 1 and "BROKEN  engines: none is installed: pip install 'avgn[cpu]'" in done.stdout
    assert "ok      decoding" in done.stdout
