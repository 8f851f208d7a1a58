"""Links, import arrows, and what an installation holds."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from recipes import tiny

ROOT = Path(__file__).resolve().parents[1]
ALONE = """
import importlib, pkgutil, sys
blocked, package, skipped = sys.argv[1].split(","), sys.argv[2], sys.argv[3].split(",")
sys.modules.update(dict.fromkeys(blocked))
module = importlib.import_module(package)
for info in pkgutil.walk_packages(module.__path__, package + "."):
    if not any(info.name == s or info.name.startswith(s + ".") for s in skipped):
        importlib.import_module(info.name)
print("ok")
"""
HEAVY = "torch,torchvision,torchaudio,triton,lightning,onnx,onnxscript,scipy,sklearn,safetensors"


def import_alone(blocked: str, package: str, skipped: str = "-") -> None:
    out = subprocess.run(
        [sys.executable, "-c", ALONE, blocked, package, skipped], cwd=ROOT, capture_output=True, text=True
    )
    assert out.stdout == "ok\n", out.stderr


@pytest.mark.parametrize("name", ["export", "kernels", "runtime"])
def test_link_points_at_top_level_folder(name: str) -> None:
    assert (ROOT / "avgn" / name).resolve() == ROOT / name


@pytest.mark.parametrize("name", ["export", "kernels", "runtime"])
def test_rooms_refuse_their_bare_names(name: str) -> None:
    out = subprocess.run([sys.executable, "-c", f"import {name}"], cwd=ROOT, capture_output=True, text=True)
    assert out.returncode and f"import this package as avgn.{name}" in out.stderr


def test_runtime_imports_nothing_of_ours_and_no_library_but_numpy() -> None:
    lazily = "cv2,av,onnxruntime,openvino,nvtx,sounddevice,cuda,tensorrt,tensorrt_rtx,starlette,uvicorn"
    ours = "avgn.kernels,avgn.export,avgn.model,avgn.scenes,avgn.evaluation,avgn.training,avgn.cli"
    # what the server imports only once it serves
    names = ("app", "archive", "files", "protocols", "running", "session")
    serving = ",".join(f"avgn.runtime.web.{name}" for name in names)
    import_alone(f"{HEAVY},{lazily},{ours}", "avgn.runtime", f"avgn.runtime.sinks.drawing,{serving}")


def test_kernels_import_nothing_of_ours() -> None:
    ours = "avgn.runtime,avgn.export,avgn.model,avgn.config,avgn.scenes,avgn.evaluation,avgn.training,avgn.cli"
    import_alone(f"lightning,onnx,onnxruntime,cv2,av,{ours}", "avgn.kernels")


def test_the_core_does_not_import_export_or_the_command_line() -> None:
    import_alone("onnx,onnxscript,onnxruntime,avgn.export", "avgn", "avgn.export,avgn.cli,avgn.__main__")


def test_scenes_demo_and_command_line_need_no_torch() -> None:
    import_alone(HEAVY, "avgn.scenes")
    code = f"import sys; sys.argv=['x']; {''.join(f'sys.modules[{m!r}]=None;' for m in HEAVY.split(','))} " + (
        "import avgn.demo, avgn.doctor, avgn.cli; print('ok')"
    )
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert out.stdout == "ok\n", out.stderr


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what an installation is made of: building leaves its folders behind."""
    copy = tmp_path_factory.mktemp("copy")
    for name in ("avgn", "export", "kernels", "runtime"):
        links = ("export", "kernels", "runtime") if name == "avgn" else ()
        ignored = shutil.ignore_patterns("__pycache__", "node_modules", *links)
        shutil.copytree(ROOT / name, copy / name, ignore=ignored)
    for name in ("setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, copy)
    return copy


def test_a_source_distribution_holds_none_of_the_tests(tree: Path, tmp_path: Path) -> None:
    (tree / "tests").mkdir()
    shutil.copy(__file__, tree / "tests")
    code = f"from setuptools import build_meta; print(build_meta.build_sdist({str(tmp_path)!r}))"
    subprocess.run([sys.executable, "-c", code], cwd=tree, capture_output=True, check=True)
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    assert {"LICENSE", "NOTICE", "runtime/localizer.py", "avgn/models/world/bundle.json"} <= held
    assert not any(name.startswith("tests") for name in held)


def test_a_wheel_holds_what_is_not_code(tree: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "-w", str(tmp_path), "."], cwd=tree, check=True, capture_output=True)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        held = set(wheel.namelist())
    folders = ("avgn/models/tiny", "avgn/models/world", "avgn/demo/material")
    for folder, inside in (("runtime/web/page", "avgn/runtime/web/page"), *((folder, folder) for folder in folders)):
        assert {f"{inside}/{file.name}" for file in (ROOT / folder).iterdir()} <= held
    recipes = {f"avgn/recipes/{file.name}" for file in (ROOT / "avgn" / "recipes").glob("*.yaml")}
    assert recipes and recipes <= held and "avgn/reproduce/published.json" in held
    assert {"avgn/world/classes.json", "avgn/world/refit.npz", "avgn/teach/bank.npz"} <= held
    # what the page without a server is made of, without its sources
    client = {f"client/built/{name}.js" for name in ("local", "worker")} | {"client/site/sw.js", "client/runtime.json"}
    assert {f"avgn/runtime/web/{name}" for name in (*client, "client/package-lock.json")} <= held
    assert not any("/client/src/" in name for name in held)
    assert "avgn/py.typed" in held and "avgn/export/bundle.py" in held


def test_a_tiny_that_is_made_anew_takes_the_place_of_the_shipped_one() -> None:
    for path in (tiny.SHIPPED / "bundle.json", tiny.KEPT / "model.safetensors", tiny.KEPT / "config.json", tiny.RECORD):
        assert path.is_file() and path.is_relative_to(ROOT), f"make tiny would write {path}, which nothing reads"


def test_setup_lists_every_package_once() -> None:
    code = (
        "import setuptools; setuptools.setup = lambda **k: print('\\n'.join(sorted(k['packages'])));"
        "exec(open('setup.py').read())"
    )
    code = code.replace("exec(open('setup.py').read())", "exec(open('setup.py').read(), {'__file__': 'setup.py'})")
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    found = out.stdout.split()
    expected = {"avgn"}
    for folder in ("avgn", "export", "kernels", "runtime"):
        for file in (ROOT / folder).rglob("__init__.py"):
            parts = file.parent.relative_to(ROOT).parts
            if len(parts) > 1 and parts[0] == "avgn" and parts[1] in ("export", "kernels", "runtime"):
                continue
            expected.add(".".join(parts if parts[0] == "avgn" else ("avgn", *parts)))
    assert found == sorted(expected)
