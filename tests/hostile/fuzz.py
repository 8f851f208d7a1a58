"""Runs a target under atheris, which changes inputs by what code they reach: python -m tests.hostile.fuzz NAME."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path


def change(data: bytes, edits: Iterable[tuple[int, int, bytes]]) -> bytes:
    """The bytes after some edits (where, how, what): set, cut, inserted, doubled, or ended."""
    for where, how, what in edits:
        at = where % max(1, len(data))
        if how == 0:
            data = data[:at] + what + data[at + len(what) :]
        elif how == 1:
            data = data[:at] + data[at + 1 + len(what) :]
        elif how == 2:
            data = data[:at] + what + data[at:]
        elif how == 3:
            data = data[:at] + data[at : at + 16 * len(what)] + data[at:]
        else:
            data = data[:at] + what
    return data


def fuzz(name: str, seconds: int) -> int:
    """Fuzz a target in a process of its own for so many seconds; its exit status, 0 where nothing was found."""
    from tests.hostile.targets import seeds

    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus"
        corpus.mkdir()
        for number, seed in enumerate(seeds()[name]):
            (corpus / str(number)).write_bytes(seed)
        limits = [f"-max_total_time={seconds}", "-timeout=10", "-rss_limit_mb=3000", f"-artifact_prefix={folder}/"]
        command = [sys.executable, "-m", "tests.hostile.fuzz", name, *limits, str(corpus)]
        return subprocess.run(command, timeout=seconds + 120).returncode


def main() -> None:
    import atheris  # type: ignore[import-untyped, import-not-found, unused-ignore]

    with atheris.instrument_imports(include=["avgn", "json"]):
        from tests.hostile.targets import TARGETS, seeds

        target = TARGETS[sys.argv.pop(1)]
        # what is imported on first use
        seeds()
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
