"""The client's packages from npm, installed once beside the tests' other caches, and commands run with them."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from functools import lru_cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
CLIENT = ROOT / "runtime" / "web" / "client"
# what the client is built of, as it lies in the repository
SOURCES = ("LICENSE", "NOTICE", "runtime/web/page", "runtime/web/client")


def missing() -> str | None:
    """Why the client can't be built and tried here, or None; installs its packages the first time."""
    if shutil.which("npm") is None or shutil.which("node") is None:
        return "node and npm are not installed (Debian: npm)"
    if not dist().is_dir():
        return "npm can't install the client's packages (no connection to its registry?)"
    return None


@lru_cache(maxsize=1)
def installed() -> Path:
    """Return a folder with the packages of the lock file in node_modules; without them where npm can't get them."""
    lock = (CLIENT / "package-lock.json").read_bytes() + (CLIENT / "package.json").read_bytes()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "avgn-tests"
    folder = cache / f"client-{hashlib.sha256(lock).hexdigest()[:16]}"
    if folder.is_dir():
        return folder
    partial = cache / f"{folder.name}.{os.getpid()}"
    partial.mkdir(parents=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copyfile(CLIENT / name, partial / name)
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    done = subprocess.run(command, cwd=partial, capture_output=True, timeout=300, check=False)
    if done.returncode:
        shutil.rmtree(partial)
    else:
        try:
            partial.rename(folder)
        except OSError:
            # another process was faster
            shutil.rmtree(partial)
    return folder


def dist() -> Path:
    """Return the runtime's files as its package ships them."""
    return installed() / "node_modules" / "onnxruntime-web" / "dist"


def run(work: Path, *command: str) -> str:
    """Run a command of the packages on a copy of the client's sources below `work`; returns what it said."""
    for name in SOURCES:
        source = ROOT / name
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, work / name, dirs_exist_ok=True, ignore=shutil.ignore_patterns("node_modules"))
        else:
            shutil.copyfile(source, work / name)
    client = work / CLIENT.relative_to(ROOT)
    if not (client / "node_modules").exists():
        (client / "node_modules").symlink_to(installed() / "node_modules")
    done = subprocess.run(command, cwd=client, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
