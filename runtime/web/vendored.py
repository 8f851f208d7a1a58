"""Fetches the WebAssembly runtime that the page without a server runs: pinned by npm's lock file and by its hashes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from avgn.runtime.bundle import file_sha256
from avgn.runtime.errors import FailureError, InputError
from avgn.runtime.files import cache_folder

CLIENT = Path(__file__).parent / "client"
# without it the registry's whole package is unpacked again for every site
PART = "web"
SECONDS = 600


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """The package, its version, and of its files (name here): (name there, sha256)."""

    package: str
    version: str
    files: dict[str, tuple[str, str]]


def read_runtime() -> Runtime:
    raw = json.loads((CLIENT / "runtime.json").read_text(encoding="utf-8"))
    files = {name: (entry["from"], entry["sha256"]) for name, entry in raw["files"].items()}
    return Runtime(package=raw["package"], version=raw["version"], files=files)


def copy_runtime(target: Path, given: str | os.PathLike[str] | None = None) -> None:
    """Copy the runtime's files into a new folder, from the folder `given` or from npm's package.

    Raises InputError for a folder that lacks one or holds another version's, and where npm is missing; FailureError
    where npm fails.
    """
    runtime = read_runtime()
    if given is not None:
        source = Path(given)
        if reason := _lack(runtime, source, there=True):
            raise InputError(
                f"--runtime {source} {reason}: give the folder dist of {runtime.package} {runtime.version}, or leave "
                "it out"
            )
        _copy(runtime, source, target, there=True)
        return
    kept = cache_folder() / PART / f"{runtime.package}-{runtime.version}"
    if _lack(runtime, kept, there=False):
        _fetch(runtime, kept)
    _copy(runtime, kept, target, there=False)


def _lack(runtime: Runtime, folder: Path, *, there: bool) -> str | None:
    """Say what a folder lacks of the runtime; `there`: under the names of the package."""
    for name, (origin, sha256) in runtime.files.items():
        file = folder / (origin if there else name)
        if not file.is_file():
            return f"has no {file.name}"
        if file_sha256(file) != sha256:
            return f"holds another {file.name}"
    return None


def _copy(runtime: Runtime, source: Path, target: Path, *, there: bool) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for name, (origin, _) in runtime.files.items():
        shutil.copyfile(source / (origin if there else name), target / name)


def _fetch(runtime: Runtime, kept: Path) -> None:
    """Let npm install the package as the lock file says, and keep the files that are used."""
    what = f"{runtime.package} {runtime.version}"
    npm = shutil.which("npm")
    if npm is None:
        raise InputError(
            f"npm is not installed, which fetches {what}: install Node.js (Debian: apt install npm), or unpack the "
            "package elsewhere and give its folder dist as --runtime"
        )
    with TemporaryDirectory(prefix="avgn-npm-") as work:
        for name in ("package.json", "package-lock.json"):
            shutil.copyfile(CLIENT / name, Path(work) / name)
        command = [npm, "ci", "--omit=dev", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        try:
            done = subprocess.run(
                command, cwd=work, capture_output=True, text=True, errors="replace", timeout=SECONDS, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise FailureError(f"npm can't fetch {what} ({error}): try again, or give --runtime") from None
        found = Path(work) / "node_modules" / runtime.package / "dist"
        reason = _lack(runtime, found, there=True)
        if done.returncode or reason:
            said = next((line for line in done.stderr.splitlines() if line.strip()), reason or "it failed")
            raise FailureError(
                f"npm can't fetch {what} ({said[:160]}): check the connection to its registry, or give --runtime"
            )
        # each file is checked by its hash before it is used: one that was cut off is fetched again
        _copy(runtime, found, kept, there=True)
