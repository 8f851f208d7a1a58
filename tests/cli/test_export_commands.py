"""avgn export, verify and deploy as a user types them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from avgn.checkpoint import save_model
from tests.commands import ENVIRONMENT, forked, refused
from tests.export.models import small_model


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(small_model(), tmp_path_factory.mktemp("checkpoint") / "c")


def test_export_verify_deploy(checkpoint: Path, tmp_path: Path) -> None:
    made = forked("export", checkpoint, tmp_path / "b", "--precision", "fp32,fp16", "--image-size", "96,96")
    assert made.returncode == 0, made.stderr
    assert "million multiply-adds" in made.stderr and "largest_activation" in made.stdout
    found = forked("verify", tmp_path / "b", "--json", tmp_path / "rows.json")
    assert found.returncode == 0, found.stderr
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert {(row["precision"], row["engine"]) for row in rows} >= {("fp32", "onnxruntime"), ("fp16", "openvino")}
    assert "cosine" in found.stdout.splitlines()[0] and len(found.stdout.splitlines()) == 1 + len(rows)
    laid = forked("deploy", "triton-server", tmp_path / "b", tmp_path / "models", "--precision", "fp16")
    assert laid.returncode == 0 and (tmp_path / "models" / "avgn_image" / "config.pbtxt").is_file(), laid.stderr
    assert "fp16" in (tmp_path / "models" / "avgn_image" / "config.pbtxt").read_text()


def test_the_formats_are_listed_in_the_help() -> None:
    text = forked("export", "--help").stdout
    assert "tensorrt-rtx  .engine" in text and "--compute-capability" in text


def test_bad_requests(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "b"
    assert "format onnx takes no --batch: it takes" in refused("export", checkpoint, out, "--batch", "1,2,4")
    assert "--batch must be 3 whole numbers, got '1,x'" in refused("export", checkpoint, out, "--batch", "1,x")
    assert "precision 'fp8' is not known" in refused("export", checkpoint, out, "--precision", "fp8")
    assert "pass --calibration" in refused("export", checkpoint, out, "--precision", "int8-cpu")
    assert "manifest none does not exist" in refused("export", checkpoint, out, "--guard", "none")
    assert "use --format tensorrt-rtx" in refused("export", checkpoint, out, "--format", "tensorrt")
    (tmp_path / "weights.pth").write_bytes(b"\x80\x04.")
    assert "holds no config.json" in refused("export", tmp_path / "weights.pth", out)
    assert "server 'nginx' is not known" in refused("deploy", "nginx", "tiny", out)
    assert "holds no int8-gpu variant" in refused("deploy", "triton-server", "tiny", out, "--precision", "int8-gpu")
    assert "does not exist" in refused("verify", tmp_path / "none")
    assert "is not the model of bundle" in refused("verify", "tiny", "--checkpoint", checkpoint)
    assert [path.name for path in tmp_path.iterdir()] == ["weights.pth"]


def test_an_interrupted_export_leaves_nothing(checkpoint: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "avgn", "export", str(checkpoint), str(tmp_path / "b"), "--precision", "fp32,fp16"]
    process = subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    for _ in range(600):
        if list(tmp_path.glob("b.*.partial/*")) or process.poll() is not None:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and errors.strip().splitlines()[-1] == "avgn: interrupted"
    assert list(tmp_path.iterdir()) == []
