"""Which machine code of bundles may run here: what this machine built itself, and what its user vouched for.

A package of AOTInductor is a shared library: to load one is to run it. Graphs and TensorRT's engines are data to the
libraries that run them, and need no mark.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from avgn.runtime.bundle import Bundle, Variant
from avgn.runtime.errors import InputError
from avgn.runtime.files import cache_folder, write_whole

NATIVE = ("aoti",)
CPU_INFO = Path("/proc/cpuinfo")
# what packages for the CPU are compiled for, best last; a processor runs what is compiled for those before its own
LEVELS = ("plain", "avx2", "avx512")


def is_native(variant: Variant) -> bool:
    """Return whether a variant's files are machine code."""
    return variant.engine in NATIVE


def is_trusted(variant: Variant) -> bool:
    """Return whether all files of a variant have a mark on this machine."""
    return all(_mark(digest).is_file() for digest in variant.sha256.values())


def trust(variants: Iterable[Variant]) -> int:
    """Mark the files of native variants as those that may run here; the number of variants.

    Raises InputError where the cache folder can't be written.
    """
    count = 0
    for variant in variants:
        if not is_native(variant):
            continue
        for digest in variant.sha256.values():
            try:
                _mark(digest).parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise InputError(
                    f"cache folder {cache_folder()} can't be written ({error.strerror}): let AVGN_CACHE name another"
                ) from None
            write_whole(_mark(digest), f"{variant.engine} {variant.precision} {variant.target}\n")
        count += 1
    return count


def forget(variants: Iterable[Variant]) -> int:
    """Take the marks away again; the number of native variants."""
    native = [variant for variant in variants if is_native(variant)]
    for variant in native:
        for digest in variant.sha256.values():
            _mark(digest).unlink(missing_ok=True)
    return len(native)


def native_obstacle(bundle: Bundle, variant: Variant) -> str | None:
    """Return why a native variant may not or can't run here, or None."""
    if not is_native(variant):
        return None
    if not is_trusted(variant):
        return (
            f"its {variant.precision} files hold machine code that this machine has not built: avgn trust "
            f"{bundle.path} if you know who made it, or avgn export it here"
        )
    built = str(bundle.info.provenance.get("torch", "an unknown version"))
    try:
        here = version("torch")
    except PackageNotFoundError:
        return None
    if built.split(".")[:2] != here.split(".")[:2]:
        return f"built by PyTorch {built}, this is {here}: export it here"
    if variant.target.startswith("cpu") and not _runs(variant.target):
        return f"built for {variant.target}, this processor is {cpu_target()}: export it here"
    return None


def checked_bytes(bundle: Bundle, variant: Variant, half: str) -> bytes:
    """Return the file of a half, exactly what was marked: read once, so that nobody can change it in between.

    Raises InputError for a file without a mark, or whose content is not the one that bundle.json names.
    """
    if (obstacle := native_obstacle(bundle, variant)) is not None:
        raise InputError(f"bundle {bundle.path} can't be used by {variant.engine}: {obstacle}")
    data = bundle.graph(variant, half).read_bytes()
    if hashlib.sha256(data).hexdigest() != variant.sha256[half]:
        raise InputError(f"file {bundle.graph(variant, half)} was changed after the bundle was loaded: load it again")
    return data


def cpu_target() -> str:
    """Return what packages built on this processor are for: cpu-x86_64-avx512."""
    try:
        flags = set(CPU_INFO.read_text().partition("flags")[2].partition("\n")[0].split())
    except OSError:
        flags = set()
    level = "avx512" if {"avx512f", "avx512vl", "avx512bw"} <= flags else "avx2" if "avx2" in flags else "plain"
    return f"cpu-{platform.machine()}-{level}"


def _runs(target: str) -> bool:
    _, _, theirs = target.partition("-")
    _, _, mine = cpu_target().partition("-")
    (machine, _, level), (here, _, best) = theirs.rpartition("-"), mine.rpartition("-")
    return machine == here and level in LEVELS and LEVELS.index(level) <= LEVELS.index(best)


def _mark(digest: str) -> Path:
    return cache_folder() / "trusted" / digest
