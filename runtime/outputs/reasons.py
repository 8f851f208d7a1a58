"""Why an output can't be written, and the way out of each reason."""

from __future__ import annotations

import errno
import os

from avgn.runtime.errors import InputError

LONGEST = 255

# errno: (reason, way out)
WAYS_OUT = {
    errno.ENOSPC: ("no space left on the disk", "free some space or choose another folder"),
    errno.EDQUOT: ("the disk quota is used up", "remove files of yours or choose another folder"),
    errno.EFBIG: ("it grew beyond the largest file allowed", "raise ulimit -f or choose another file system"),
    errno.EACCES: ("permission denied", "change the permissions of its folder or choose another"),
    errno.EPERM: ("operation not permitted", "choose another folder, or clear its protection (lsattr, mount)"),
    errno.EROFS: ("its file system is read-only", "choose a folder on another one"),
    errno.ENAMETOOLONG: (f"its name is too long, {LONGEST} bytes are the most", "choose a shorter name"),
    errno.ENOTDIR: ("a part of its path is a file, not a folder", "choose another path"),
    errno.ENOENT: ("its folder does not exist", "make it or choose another"),
    errno.ELOOP: ("its links lead to each other", "remove the links or choose another path"),
    errno.EISDIR: ("it is a folder", "give the name of a file"),
    errno.ENOTEMPTY: ("the folder is not empty", "choose a new one"),
    errno.EEXIST: ("it is there already", "choose another name"),
    errno.EXDEV: ("its folder is on another file system", "choose a folder on this one"),
    errno.EBUSY: ("it is in use, perhaps mounted", "choose another path"),
    errno.ETXTBSY: ("it is a program that runs", "choose another path"),
    errno.EMFILE: ("too many files are open", "raise ulimit -n"),
    errno.ENFILE: ("too many files are open on this machine", "close some programs"),
    errno.EIO: ("the disk, or the connection to it, failed", "check it or choose another folder"),
    errno.ESTALE: ("the connection to its file server was lost", "mount it again or choose another folder"),
    errno.EBADF: ("it is not open for writing", "open the descriptor for writing, as in 3>FILE"),
    errno.ENXIO: ("no device stands behind it", "choose another path"),
    errno.ENODEV: ("no device stands behind it", "choose another path"),
    errno.EINVAL: ("the system does not take this name or these data", "choose another path"),
    errno.EILSEQ: ("its file system does not take this name", "choose another name"),
}
OTHERWISE = "choose another path"
# the numbers that say that no more can be written, wherever they come from
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_error(path: str | os.PathLike[str], error: BaseException, kind: str = "output") -> InputError:
    """Return the one-sentence error for an output that could not be written."""
    number = getattr(error, "errno", None)
    said = getattr(error, "strerror", None) or str(error) or type(error).__name__
    reason, way_out = WAYS_OUT.get(number or 0, (said, OTHERWISE))
    return InputError(f"{kind} {shown(path)} can't be written ({' '.join(reason.split())}): {way_out}")


def shown(path: str | os.PathLike[str]) -> str:
    """Return a path as it may be printed: what is no text, or would steer a terminal, is escaped."""
    text = os.fsdecode(path)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
