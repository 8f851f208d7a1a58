"""Runs attacks as processes and measures them: python -m tests.hostile.measure --output FILE writes what each cost.

A helper imports what all commands need, once, and forks for every attack. Idle is a fork with the same command that
refuses a missing file: what a process takes beyond it is what the attack asked for.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from types import TracebackType

from avgn.machine import most_resident_mb
from tests.commands import ENVIRONMENT
from tests.hostile.attacks import ATTACKS

# what one may cost
MOST_SECONDS = 5.0
MOST_MB = 500.0
LIMIT = 60.0
IDLE = {
    "localize": "localize tiny none.mp4",
    "inspect": "inspect none.jsonl",
    "export": "export none out",
    "convert": "convert none.pth out",
    "train": "train none.jsonl --output out",
    "reproduce": "reproduce none.yaml --data synthetic --output out",
}
LIBRARIES = (
    "cv2 av openvino yaml jsonargparse avgn.cli.live avgn.cli.training avgn.runtime.file_run avgn.runtime.engines "
    "avgn.inspection avgn.convert avgn.training.fit avgn.export.bundle avgn.reproduce avgn.data.shards"
)


@dataclass(frozen=True, kw_only=True)
class Cost:
    """How a command ended: its status and words, processor seconds, seconds, the memory in MB that it had at most
    above idle, whether it left anything in its folder, and whether it read a file that nobody named.
    """

    status: int
    said: str
    cpu: float
    wall: float
    megabytes: float
    left: bool
    read: bool

    @property
    def held(self) -> bool:
        """Whether it was refused at no cost."""
        cheap = self.cpu <= MOST_SECONDS and self.megabytes <= MOST_MB
        return self.status == 2 and cheap and not self.left and not self.read


class Helper:
    """The process that forks."""

    def __enter__(self) -> Helper:
        command = [sys.executable, "-m", "tests.hostile.measure"]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(30)

    def run(self, name: str) -> Cost:
        """The cost of the attack of that name."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(name + "\n")
        self._process.stdin.flush()
        return Cost(**json.loads(self._process.stdout.readline()))


def help_others() -> None:
    """Run the attacks whose names come in, one a line."""
    for name in LIBRARIES.split():
        importlib.import_module(name)
    attacks = {attack.name: attack for attack in ATTACKS}
    for line in sys.stdin:
        attack = attacks[line.removesuffix("\n")]
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            arguments = [str(part) for part in attack.make(folder)]
            cost = _fork(arguments, folder)
            idle = _idle(arguments[0])
            above = replace(cost, megabytes=max(0.0, cost.megabytes - idle))
            print(json.dumps(asdict(above)), flush=True)


@cache
def _idle(command: str) -> float:
    """The memory in MB of a fork whose command refuses a missing file."""
    with tempfile.TemporaryDirectory() as name:
        return _fork(IDLE[command].split(), Path(name)).megabytes


def _fork(arguments: list[str], folder: Path) -> Cost:
    secret = folder / "secret.ts"
    read_at = secret.stat().st_atime if secret.exists() else None
    begin = time.monotonic()
    with tempfile.TemporaryFile() as words:
        child = os.fork()
        if not child:
            _become(arguments, folder, words.fileno())
        while True:
            ended, status, usage = os.wait4(child, os.WNOHANG)
            if ended:
                break
            if time.monotonic() - begin > LIMIT:
                os.kill(child, 9)
            time.sleep(0.002)
        words.seek(0)
        said = words.read().decode("utf-8", "replace").strip()
    return Cost(
        status=os.waitstatus_to_exitcode(status),
        said=said,
        cpu=usage.ru_utime + usage.ru_stime,
        wall=time.monotonic() - begin,
        megabytes=most_resident_mb(usage),
        left=(folder / "out").exists() or (folder / "ran").exists(),
        read=read_at is not None and secret.stat().st_atime != read_at,
    )


def _become(arguments: list[str], folder: Path, words: int) -> None:
    """Be the command, to its end."""
    from avgn.cli import main as command

    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    os.dup2(0, 1)
    os.dup2(words, 2)
    # no terminal, and nothing as large as the attacks claim
    os.setsid()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.chdir(folder)
    status = 99
    try:
        status = command(arguments)
        sys.stderr.flush()
    finally:
        os._exit(status)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=None)
    args = parser.parse_args()
    if args.output is None:
        help_others()
        return
    rows = []
    with Helper() as helper:
        for attack in ATTACKS:
            cost = helper.run(attack.name)
            row = {"attack": attack.name, "seconds": round(cost.cpu, 2), "memory_mb": round(cost.megabytes, 1)}
            rows.append({**row, "held": cost.held and attack.said in cost.said})
            if not rows[-1]["held"]:
                print(rows[-1], cost.said[:300], flush=True)
    args.output.write_text(json.dumps({"attacks": rows}, indent=1) + "\n")
    print(f"{sum(bool(row['held']) for row in rows)} of {len(rows)} attacks held")


if __name__ == "__main__":
    main()
