"""Opens files whose names or contents come from strangers: plain files alone, and no more of one than is asked for.

What is a FIFO, a device or a socket would hang or never end; a file may be larger than the memory.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import BinaryIO

# how the rest of what a folder may hold is called
KINDS = {
    stat.S_IFIFO: "it is a FIFO, not a file",
    stat.S_IFCHR: "it is a device, not a file",
    stat.S_IFBLK: "it is a device, not a file",
    stat.S_IFSOCK: "it is a socket, not a file",
    stat.S_IFDIR: os.strerror(errno.EISDIR),
}


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a plain file for reading, without waiting for anybody; raises OSError for everything else."""
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_CLOEXEC", 0)
    try:
        handle = os.open(path, flags | getattr(os, "O_BINARY", 0))
    except ValueError:
        raise OSError(errno.EINVAL, "its name holds a NUL byte") from None
    except OSError as error:
        # a socket, or a device that nobody has, can't even be opened
        if error.errno == errno.ENXIO:
            kind = stat.S_IFMT(os.stat(path).st_mode)
            raise OSError(errno.ENXIO, KINDS.get(kind, error.strerror)) from None
        raise
    kind = stat.S_IFMT(os.fstat(handle).st_mode)
    if kind != stat.S_IFREG:
        os.close(handle)
        raise OSError(errno.EISDIR if kind == stat.S_IFDIR else errno.EINVAL, KINDS.get(kind, "it is not a file"))
    return os.fdopen(handle, "rb")


def no_file(path: str | os.PathLike[str]) -> str:
    """Say what a path is that leads to no plain file, as the rest of a sentence that begins with the path."""
    try:
        kind = stat.S_IFMT(os.stat(path).st_mode)
    except (OSError, ValueError):
        return "does not exist"
    if kind == stat.S_IFDIR:
        return "is a folder, not a file"
    return KINDS.get(kind, "it is not a file").removeprefix("it ")


def read_regular(path: str | os.PathLike[str], most: int) -> bytes:
    """Return the bytes of a plain file of at most `most`; raises OSError for anything else, or a larger one."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        data = b"" if size > most else file.read(most + 1)
    if max(size, len(data)) > most:
        raise OSError(errno.EFBIG, f"it has {max(size, len(data))} bytes, at most {most} are read")
    return data
