"""Writes and reads samples in tar files of WebDataset's layout, opening all files itself.

WebDataset's own reader and writer take a name for an address: `pipe:`, `::`, `http:` and braces in a file's or folder's
name would run commands or fetch what they name. Here a name is never more than a path.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO

from avgn.runtime.regular import open_regular

# bytes of one member: far above a JPEG of 512 pixels and minutes of sound, far below what hurts
MOST_MEMBER_BYTES = 1 << 28
# bytes of a member's header, and to a multiple of which members are filled up
BLOCK_BYTES = 512


class TarWriter:
    """Writes samples as FOLDER/000000.tar, 000001.tar ...: a new file once one holds `size` bytes of members."""

    def __init__(self, folder: Path, size: float) -> None:
        self.counts: dict[str, int] = {}
        self._folder = folder
        self._size = size
        self._written = 0
        self._archive: tarfile.TarFile | None = None
        self._name = ""

    def __enter__(self) -> TarWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def write(self, key: str, members: Mapping[str, bytes]) -> None:
        """Add a sample: the bytes of each member by suffix; `key` has no dot."""
        if self._archive is None or self._written >= self._size:
            self._close()
            self._name = f"{len(self.counts):06d}.tar"
            self._archive = tarfile.open(self._folder / self._name, "x", format=tarfile.USTAR_FORMAT)  # noqa: SIM115
            self._written = 0
        for suffix, content in sorted(members.items()):
            member = tarfile.TarInfo(f"{key}.{suffix}")
            member.size, member.mode = len(content), 0o444
            self._archive.addfile(member, io.BytesIO(content))
            _forget_members(self._archive)
            self._written += len(content)
        self.counts[self._name] = self.counts.get(self._name, 0) + 1

    def _close(self) -> None:
        if self._archive is not None:
            self._archive.close()
            self._archive = None


def read_tar(path: Path, cut: Mapping[str, Callable[[IO[bytes]], bytes]] | None = None) -> Iterator[dict[str, bytes]]:
    """Yield the samples of a tar file in order: the bytes of each member by suffix.

    `cut` has, by suffix, what takes a part of a member that is too long to be read whole.
    Raises tarfile.TarError or OSError for a file that isn't a tar or is cut off, ValueError for too large a member.
    """
    key: str | None = None
    sample: dict[str, bytes] = {}
    with open_regular(path) as file, tarfile.open(fileobj=file, mode="r:") as archive:
        for member in archive:
            # the size of a sparse file is a claim without bytes behind it
            if not member.isreg() or member.issparse():
                continue
            stem, _, suffix = member.name.rpartition("/")[2].partition(".")
            read_part = cut.get(suffix) if cut else None
            if read_part is None and member.size > MOST_MEMBER_BYTES:
                raise ValueError(f"{member.name[:60]} has {member.size} bytes, at most {MOST_MEMBER_BYTES} are read")
            content = archive.extractfile(member)
            assert content is not None
            if stem != key:
                if sample:
                    yield sample
                key, sample = stem, {}
            sample[suffix] = content.read() if read_part is None else read_part(content)
            _forget_members(archive)
    if sample:
        yield sample


def _forget_members(archive: tarfile.TarFile) -> None:
    """Forget the members read or written so far: tarfile's list of them grows with the archive."""
    archive.members = []  # type: ignore[attr-defined]
