"""Writes outputs in this process, and in others."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from avgn.runtime.outputs import TextOutput

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}


def python(code: str, *arguments: object, **how: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    how.setdefault("stdout", subprocess.PIPE)
    return subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True, **how)  # type: ignore[call-overload,no-any-return]


def put(path: Path, *lines: str) -> None:
    file = TextOutput(path)
    for line in lines:
        file.write(line)
    file.close()
