"""Signals end a process as Ctrl-C does, once, and not amid what must be finished."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.patience import PATIENCE, bounded, until

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}

RUN = """
import sys, time
from avgn.runtime.interrupts import exit_status, leave_to_parent, listen, shield
listen()
{before}
try:
    print("ready", flush=True)
    {wait}
    print("never")
except KeyboardInterrupt:
    time.sleep(0.5)
    print("ended", flush=True)
    sys.exit(exit_status())
"""


def run(wait: str = "time.sleep(120)", before: str = "", prefix: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    code = RUN.format(wait=wait, before=before)
    process = subprocess.Popen(
        [*prefix, sys.executable, "-c", code],
        env=ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_each_signal_is_an_interrupt(number: signal.Signals, status: int) -> None:
    process = run()
    process.send_signal(number)
    assert process.communicate(timeout=PATIENCE)[0] == "ended\n" and process.returncode == status


def test_what_comes_twice_means_one_end() -> None:
    process = run()
    process.send_signal(signal.SIGTERM)
    time.sleep(0.1)
    # as systemd does with SendSIGHUP, and timeout with its group
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=PATIENCE)[0] == "ended\n" and process.returncode == 143


def test_nohup_stays() -> None:
    process = run("time.sleep(1)", prefix=("nohup",))
    process.send_signal(signal.SIGHUP)
    assert process.communicate(timeout=PATIENCE)[0] == "never\n" and process.returncode == 0


def test_what_is_shielded_is_finished_first() -> None:
    process = run("with shield(): print('within', flush=True); input(); print('done', flush=True)")
    assert process.stdout is not None and process.stdout.readline() == "within\n"
    process.send_signal(signal.SIGTERM)
    # the signal is there before what is waited for
    assert process.communicate("\n", timeout=PATIENCE)[0] == "done\nended\n" and process.returncode == 143


def test_an_impatient_ctrl_c_breaks_the_shield() -> None:
    process = run("with shield(): print('within', flush=True); input()")
    assert process.stdout is not None and process.stdout.readline() == "within\n"
    process.send_signal(signal.SIGINT)
    # two that come before the first was seen are one
    status = Path(f"/proc/{process.pid}/status")
    until(lambda: not status.exists() or "ShdPnd:\t0000000000000000" in status.read_text())
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    with bounded(process):
        assert process.stdout.readline() == "ended\n" and process.wait(PATIENCE) == 130
    process.communicate()


def test_workers_leave_signals_to_their_parent() -> None:
    process = run("time.sleep(1)", before="leave_to_parent()")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        process.send_signal(number)
    assert process.communicate(timeout=PATIENCE)[0] == "never\n"
