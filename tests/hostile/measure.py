"""Runs every attack as a process of its own and writes what each cost: python -m tests.hostile.measure --output FILE.

Idle is the same command refusing a file that does not exist, so that what remains is the attack's.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.commands import ENVIRONMENT
from tests.hostile.attacks import ATTACKS, Arguments, Attack

# what one may cost above idle
MOST_SECONDS = 5.0
MOST_MB = 500.0
LIMIT = 60
IDLE: dict[str, Arguments] = {
    "localize": ["localize", "tiny", "none.mp4"],
    "inspect": ["inspect", "none.jsonl"],
    "export": ["export", "none", "out"],
    "convert": ["convert", "none.pth", "out"],
    "train": ["train", "none.jsonl", "--output", "out"],
    "reproduce": ["reproduce", "none.yaml", "--data", "synthetic", "--output", "out"],
}


@dataclass(frozen=True, kw_only=True)
class Cost:
    """How a command ended: its status and words, processor seconds, seconds, and the most memory it had in MB."""

    status: int
    said: str
    cpu: float
    wall: float
    megabytes: float


def run(arguments: Arguments, folder: Path) -> Cost:
    """Run a command to its end, at most LIMIT seconds."""
    begin = time.monotonic()
    with tempfile.TemporaryFile() as words:
        child = subprocess.Popen(
            [sys.executable, "-m", "avgn", *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=words,
            env=ENVIRONMENT,
            cwd=folder,
        )
        while True:
            pid, status, usage = os.wait4(child.pid, os.WNOHANG)
            if pid:
                break
            if time.monotonic() - begin > LIMIT:
                child.kill()
            time.sleep(0.01)
        child.returncode = os.waitstatus_to_exitcode(status)
        words.seek(0)
        said = words.read().decode("utf-8", "replace").strip()
    return Cost(
        status=child.returncode,
        said=said,
        cpu=usage.ru_utime + usage.ru_stime,
        wall=time.monotonic() - begin,
        megabytes=usage.ru_maxrss / 1024,
    )


@cache
def idle(command: str) -> Cost:
    """What a command costs that refuses a missing file."""
    with tempfile.TemporaryDirectory() as folder:
        return run(IDLE[command], Path(folder))


def measure(attack: Attack) -> tuple[Cost, Cost]:
    """(cost of an attack, cost of its command idle)."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = attack.make(Path(folder))
        return run(arguments, Path(folder)), idle(str(arguments[0]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    rows = []
    for attack in ATTACKS:
        cost, rest = measure(attack)
        rows.append(
            {
                "attack": attack.name,
                "status": cost.status,
                "seconds": round(cost.wall, 2),
                "cpu seconds above idle": round(max(0.0, cost.cpu - rest.cpu), 2),
                "MB above idle": round(max(0.0, cost.megabytes - rest.megabytes), 1),
                "held": cost.status == 2
                and cost.cpu - rest.cpu <= MOST_SECONDS
                and cost.megabytes - rest.megabytes <= MOST_MB,
            }
        )
        print(rows[-1], flush=True)
    args.output.write_text(json.dumps({"attacks": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
