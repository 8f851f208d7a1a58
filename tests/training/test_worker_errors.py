"""What goes wrong in a loader's process reaches the user as one sentence."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from avgn.runtime.errors import FailureError, InputError
from avgn.training.worker_errors import of_worker
from tests.squares import write_squares

ROOT = Path(__file__).resolve().parents[2]


def command(folder: Path, *more: str) -> list[str]:
    small = ("--model.width-visual=4", "--model.width-audio=4", "--model.dim=16", "--model.heads=4", "--model.depth=1")
    return [
        *(
            sys.executable,
            "-m",
            "avgn",
            "train",
            str(folder / "set" / "manifest.jsonl"),
            "--output",
            str(folder / "out"),
        ),
        *("--preset", "avgn-tiny", *small, "--model.image-size=[64,64]", "--model.window-seconds=0.3"),
        *("--visual-weights", "random", "--threads", "1", "--batch-size", "4", "--workers", "1", *more),
    ]


def test_a_broken_picture_is_named(tmp_path: Path) -> None:
    manifest = write_squares(tmp_path / "set", 8, seconds=0.4)
    broken = tmp_path / "set" / "train-0-0003.png"
    broken.write_bytes(broken.read_bytes()[:60])
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command(tmp_path, "--steps", "6"), env=environment, capture_output=True, text=True)
    assert manifest.is_file() and done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith(f"avgn: frame {broken} ")
    assert "Traceback" not in done.stderr and not (tmp_path / "out").exists()


def test_a_killed_loader_says_how_to_go_on(tmp_path: Path) -> None:
    write_squares(tmp_path / "set", 8, seconds=0.4)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        command(tmp_path, "--steps", "100000", "--checkpoint-steps", "2"),
        env=environment,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    last = tmp_path / "out" / "checkpoints" / "last.ckpt"
    deadline = time.monotonic() + 300
    while not last.is_file():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.1)
    # every epoch has a loader of its own: one that is just leaving is not missed
    while process.poll() is None and time.monotonic() < deadline:
        for loader in loaders(process.pid):
            with suppress(ProcessLookupError):
                os.kill(loader, signal.SIGKILL)
        time.sleep(0.5)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 1 and "Traceback" not in said
    assert "a process that loads data was ended from outside" in said.strip().splitlines()[-1] and "--resume" in said


def loaders(parent: int) -> list[int]:
    """The processes of a run that load data."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stat = (folder / "stat").read_text().rpartition(")")[2].split()
            name = (folder / "comm").read_text()
        except OSError:
            continue
        if int(stat[1]) == parent and "resource" not in name:
            found.append(int(folder.name))
    return found


def test_a_loader_killed_while_it_hands_over_a_batch_is_told_from_other_errors() -> None:
    context = torch.multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=announce_and_end, args=(queue,))
    process.start()
    process.join(60)
    with pytest.raises(OSError) as lost:
        queue.get(timeout=60)
    assert isinstance(of_worker(lost.value), FailureError)
    # so do errors of the thread that copies batches for a GPU: PyTorch makes them anew from their text
    copied = type(lost.value)(
        "Caught ConnectionRefusedError in pin memory thread for device 0.\n"
        + "".join(traceback.format_exception(lost.value))
    )
    assert isinstance(of_worker(copied), FailureError)
    with pytest.raises(OSError) as full:
        Path("/dev/full").write_text("losses", encoding="utf-8")
    assert of_worker(full.value) is None


def announce_and_end(queue: Any) -> None:
    queue.put(torch.ones(3))
    queue.close()
    queue.join_thread()
    os._exit(0)


def test_other_errors_stay_as_they_are() -> None:
    assert of_worker(InputError("frame x can't be read")) is None
    assert of_worker(RuntimeError("out of memory")) is None
    wrapped = (
        "Caught InputError in DataLoader worker process 0.\nOriginal Traceback:\n  x\navgn.runtime.InputError: a: b\n"
    )
    found = of_worker(InputError(wrapped))
    assert isinstance(found, InputError) and str(found) == "a: b"
    assert isinstance(of_worker(RuntimeError("DataLoader worker (pid 12) is killed by signal: Killed.")), FailureError)
    with pytest.raises(FailureError, match="fewer workers"):
        raise of_worker(RuntimeError("DataLoader worker (pid(s) 1, 2) exited unexpectedly"))  # type: ignore[misc]
