"""Reads files of weights that may come from strangers: safetensors, and PyTorch's own with tensors alone in them.

Nothing in such a file runs, and none takes more memory than it has bytes.
"""

from __future__ import annotations

import pickle
import struct
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from avgn.runtime.documents import BadDocumentError, parse_json
from avgn.runtime.memory import refuse_shortage
from avgn.runtime.regular import open_regular
from avgn.runtime.texts import plain

# bytes of the table of tensors: ten thousands of them
LARGEST_HEADER = 4 << 20
# bytes of a file in PyTorch's format before archives
LARGEST_OLD = 512 << 20
# members of an archive; a model has hundreds
MOST_MEMBERS = 20_000


class BadWeightsError(ValueError):
    """Why weights can't be used, as half a sentence; `holds_code` where a file asks for more than tensors."""

    def __init__(self, reason: str, *, holds_code: bool = False) -> None:
        super().__init__(reason)
        self.holds_code = holds_code


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file by name. Raises FileNotFoundError, or BadWeightsError for anything
    else."""
    try:
        with open_regular(path) as file:
            _check_header(file.read(8), file.seek(0, 2), lambda size: (file.seek(8), file.read(size))[1])
        return dict(load_file(path))
    except FileNotFoundError:
        raise
    except (OSError, SafetensorError, RuntimeError, ValueError, OverflowError) as error:
        raise BadWeightsError(_last_line(error)) from None


def read_torch(path: Path) -> Any:
    """Return what a file of torch.save holds, tensors and plain values alone. Raises BadWeightsError for anything
    else."""
    try:
        with open_regular(path) as file:
            is_archive = _check_archive(file)
        with warnings.catch_warnings():
            # PyTorch warns of its own unpickler: what can't be read is said below
            warnings.simplefilter("ignore")
            # mapped, an archive takes memory for what is used of it
            return torch.load(path, map_location="cpu", weights_only=True, mmap=is_archive)
    except BadWeightsError:
        raise
    except pickle.UnpicklingError as error:
        raise BadWeightsError(_first_line(error), holds_code=True) from None
    except Exception as error:
        refuse_shortage(error)
        # the unpickler raises what it likes on damaged files
        raise BadWeightsError(getattr(error, "strerror", None) or error.__class__.__name__) from None


def state_of(content: Any, wrappers: tuple[str, ...] = ()) -> dict[str, Tensor]:
    """Return the state dict in what a file held, also below one of `wrappers`. Raises BadWeightsError where there is
    none."""
    for name in wrappers:
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            content = content[name]
    if not isinstance(content, dict):
        raise BadWeightsError(f"it holds a {type(content).__name__}, no state dict")
    for name, value in content.items():
        if not isinstance(name, str):
            raise BadWeightsError(f"it holds no state dict: {plain(repr(name))[:40]} is no name of a tensor")
        if not isinstance(value, Tensor):
            raise BadWeightsError(f"it holds no state dict: {plain(name)[:80]} is a {type(value).__name__}, no tensor")
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise BadWeightsError(f"the tensor {plain(name)[:80]} has more values than the file")
    return dict(content)


def _check_header(start: bytes, size: int, read: Any) -> None:
    if len(start) < 8:
        raise BadWeightsError("it is cut off")
    (length,) = struct.unpack("<Q", start)
    if length > min(LARGEST_HEADER, size - 8):
        raise BadWeightsError(f"its table of tensors claims {length} bytes")
    try:
        header = parse_json(read(length).decode())
    except (BadDocumentError, UnicodeDecodeError) as error:
        raise BadWeightsError(f"its table of tensors can't be read: {error}") from None
    if not isinstance(header, dict):
        raise BadWeightsError("its table of tensors is not one")


def _check_archive(file: Any) -> bool:
    """Return whether a file is an archive as PyTorch writes them; older files are read as a whole.

    PyTorch stores without compressing: what is compressed could be a thousand times as large as its file.
    """
    if not zipfile.is_zipfile(file):
        if (size := file.seek(0, 2)) > LARGEST_OLD:
            raise BadWeightsError(f"it has {size} bytes and is no archive: save it with a newer PyTorch")
        return False
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
    if len(members) > MOST_MEMBERS:
        raise BadWeightsError(f"it holds {len(members)} members")
    if any(
        member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size for member in members
    ):
        raise BadWeightsError("its members are compressed, which PyTorch never does")
    if sum(member.file_size for member in members) > file.seek(0, 2):
        raise BadWeightsError("its members are larger than the file")
    return True


def _first_line(error: Exception) -> str:
    return plain((str(error).strip() or error.__class__.__name__).splitlines()[0])[:150]


def _last_line(error: Exception) -> str:
    return plain((str(getattr(error, "strerror", None) or error).strip() or error.__class__.__name__).splitlines()[-1])
