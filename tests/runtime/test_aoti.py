"""AOTInductor packages, built here for this processor: the contract of engines, equality, and who may run them.

Without optimization, which takes the compiler half as long and changes no rounding that matters; a package of the same
sources is kept in pytest's cache.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from avgn.checkpoint import save_model
from avgn.export import aoti
from avgn.export.bundle import ExportOptions, export_bundle
from avgn.export.recheck import recheck
from avgn.runtime import Bundle, InputError
from avgn.runtime.bundle import Variant
from avgn.runtime.engines import ENGINES, Engine, choose_engine, load_engine, trust
from avgn.runtime.engines.aoti_engine import AotiEngine
from avgn.runtime.engines.first_load import parent_of
from tests.export.kept import kept_graphs  # noqa: F401
from tests.export.models import small_model

# the contract's tests, with the fixtures of this file
from tests.runtime.test_engine_contract import (  # noqa: F401
    test_a_batch_is_its_items,
    test_inputs_in_any_layout,
    test_it_agrees_with_the_graphs,
    test_names_shapes_and_dtypes,
    test_other_sizes_come_and_go,
    test_results_are_the_callers_own,
    test_the_same_input_gives_the_same_output_whatever_came_before,
    test_threads_share_it,
    test_what_does_not_fit_is_refused,
)

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("model.py", "encoders/*.py", "frontend.py", "transformer.py", "grouping.py")

pytestmark = [
    pytest.mark.skipif(shutil.which("g++") is None, reason="packages need a C++ compiler, there is no g++"),
    pytest.mark.usefixtures("kept_graphs"),
]


@pytest.fixture(scope="module")
def kept(request: pytest.FixtureRequest) -> Iterator[Path]:
    """The folder of a small model's bundle, and the marks of what was built."""
    assert request.config.cache is not None
    model = [file for part in PARTS for file in sorted((ROOT / "avgn").glob(part))]
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in [*model, *sorted((ROOT / "export").glob("*.py"))]))
    digest.update(f"{torch.__version__} {trust.cpu_target()}".encode())
    folder = request.config.cache.mkdir("aoti") / digest.hexdigest()[:16]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AVGN_CACHE", str(folder / "cache"))
        patch.setitem(aoti.SETTINGS, "aot_inductor.debug_compile", True)
        patch.setattr(aoti, "find_gpu", lambda: "packages of this test are for the CPU")
        if not (folder / "bundle" / "bundle.json").is_file():
            shutil.rmtree(folder.parent)
            folder.mkdir(parents=True)
            save_model(small_model(), folder / "checkpoint")
            options = ExportOptions(formats=("onnx", "aoti"))
            export_bundle(folder / "checkpoint", folder / "bundle", options)
        yield folder


@pytest.fixture(scope="module")
def bundle(kept: Path) -> Bundle:
    return Bundle.load(kept / "bundle")


@pytest.fixture(scope="module")
def packages(bundle: Bundle) -> Variant:
    return next(variant for variant in bundle.variants if variant.engine == "aoti")


@pytest.fixture(scope="module")
def reference(bundle: Bundle, packages: Variant) -> Engine:
    return load_engine(bundle, parent_of(bundle, packages), "onnxruntime")


@pytest.fixture(scope="module")
def engine(bundle: Bundle, packages: Variant) -> Engine:
    return AotiEngine(bundle, packages)


@pytest.fixture
def untrusted(kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    """The bundle as another machine sees it."""
    monkeypatch.setenv("AVGN_CACHE", str(tmp_path / "cache"))
    shutil.copytree(kept / "bundle", tmp_path / "bundle")
    return Bundle.load(tmp_path / "bundle")


def test_they_were_verified_against_the_model(packages: Variant) -> None:
    assert packages.target == trust.cpu_target() and packages.verified is not None
    worst = max(value for name, value in packages.verified.items() if name.startswith("max_abs"))
    assert worst <= 1e-5


def test_verify_runs_them(kept: Path) -> None:
    found = {row["engine"]: row for row in recheck(kept / "bundle", checkpoint=str(kept / "checkpoint"))}
    assert found["aoti"]["failure"] is None and found["aoti"]["metrics"]["max_abs_maps"] <= 1e-5


def test_threads_are_what_was_asked_for(bundle: Bundle, packages: Variant) -> None:
    with pytest.raises(InputError, match="threads must be at least 1, got 0"):
        AotiEngine(bundle, packages, threads=0)


# machine code of others does not run


def test_loading_one_tries_no_vector_instructions(
    bundle: Bundle, packages: Variant, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """PyTorch compiles and runs a program for each, which imports it: seconds at every start."""
    from torch._inductor import cpu_vec_isa

    tried: list[object] = []
    monkeypatch.setattr(cpu_vec_isa.VecISA, "check_build", lambda self, code: tried.append(self))
    with caplog.at_level("WARNING"):
        load_engine(bundle, packages, "aoti")
    assert tried == [] and "mismatch" not in caplog.text
    # what this program compiles itself is tried
    for isa in cpu_vec_isa.supported_vec_isa_list:
        type(isa).__bool__(isa)
    assert tried


def test_code_of_others_is_refused_before_it_is_loaded(untrusted: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("avgn.runtime.engines.aoti_engine._load", lambda *_: pytest.fail("it was loaded"))
    variant = next(variant for variant in untrusted.variants if variant.engine == "aoti")
    for load in (
        lambda: choose_engine(untrusted, "aoti"),
        lambda: load_engine(untrusted, variant, "aoti"),
        lambda: AotiEngine(untrusted, variant),
    ):
        with pytest.raises(InputError, match="hold machine code that this machine has not built: avgn trust"):
            load()
    # nor by auto, whose engine is another
    assert choose_engine(untrusted).name != "aoti"
    assert all(row["engine"] != "aoti" for row in recheck(untrusted.path))


def test_a_user_can_vouch_for_it_and_take_that_back(untrusted: Bundle) -> None:
    def avgn(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "avgn", "trust", str(untrusted.path), *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    done = avgn()
    assert done.returncode == 0 and "1 variant of machine code may run here" in done.stdout, done.stderr
    assert choose_engine(untrusted, "aoti").name == "aoti"
    done = avgn("--forget")
    assert done.returncode == 0 and "1 variant of machine code is refused again" in done.stdout
    with pytest.raises(InputError, match="avgn trust"):
        choose_engine(untrusted, "aoti")


def test_other_code_under_a_trusted_name_is_refused(untrusted: Bundle) -> None:
    """What was vouched for are bytes, not a file: one that is changed after the bundle was loaded is not run."""
    variant = next(variant for variant in untrusted.variants if variant.engine == "aoti")
    trust.trust(untrusted.variants)
    untrusted.graph(variant, "audio").write_bytes(b"not what it was")
    with pytest.raises(InputError, match="was changed after the bundle was loaded"):
        AotiEngine(untrusted, variant)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"target": "cpu-x86_64-avx512"}, "built for cpu-x86_64-avx512, this processor is cpu-x86_64-plain"),
        ({"target": "cpu-riscv64-plain"}, "built for cpu-riscv64-plain, this processor is cpu-x86_64-plain"),
        ({"torch": "1.13.1"}, "built by PyTorch 1.13.1, this is "),
    ],
    ids=["level", "machine", "torch"],
)
def test_what_was_built_for_others_is_refused(
    bundle: Bundle, packages: Variant, monkeypatch: pytest.MonkeyPatch, change: dict[str, str], reason: str
) -> None:
    monkeypatch.setattr(trust, "CPU_INFO", Path("/nonexistent"))
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    target = change.get("target", "cpu-x86_64-plain")
    info = bundle.info
    if "torch" in change:
        info = replace(info, provenance=info.provenance | {"torch": change["torch"]})
    other = replace(bundle, info=info)
    assert reason in str(trust.native_obstacle(other, replace(packages, target=target)))


def test_bytes_that_are_no_package_are_one_sentence(untrusted: Bundle) -> None:
    variant = next(variant for variant in untrusted.variants if variant.engine == "aoti")
    untrusted.graph(variant, "audio").write_bytes(b"PK, but no package")
    changed = {"audio": hashlib.sha256(b"PK, but no package").hexdigest(), "image": variant.sha256["image"]}
    broken = replace(variant, sha256=changed)
    trust.trust([broken])
    with pytest.raises(InputError, match=r"package .*pt2 can't be loaded \(.*\): export the bundle here"):
        AotiEngine(untrusted, broken)


def test_a_gpu_s_package_says_why_it_can_not_run(bundle: Bundle, packages: Variant) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    assert "no NVIDIA" in str(ENGINES["aoti"].obstacle("sm_90"))
    names = json.loads((bundle.path / "bundle.json").read_text())["variants"]
    assert {variant["engine"] for variant in names} == {"onnxruntime", "aoti"}
