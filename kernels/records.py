"""Calls that are launched again by address, with what they need beside their inputs in one piece of memory."""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import reduce
from math import prod
from operator import itemgetter, or_
from typing import Any

import torch
from torch import Tensor

# calls, and launches, that are remembered; shapes of a training differ little, those of a service may
KEPT = 4096

# what calls need beside their inputs and results: shapes and dtypes
Pieces = Sequence[tuple[Sequence[int], torch.dtype]]


def room_size(pieces: Pieces) -> int:
    """Return how many int32 numbers hold the pieces, each of which begins at a multiple of 16 bytes."""
    return sum(_size(*piece) for piece in pieces)


def room_for(like: Tensor, pieces: Pieces) -> Tensor:
    """Return an empty room [numbers] int32 for pieces: one allocation costs the host what each of them would."""
    return like.new_empty(room_size(pieces), dtype=torch.int32)


def parts(room: Tensor, pieces: Pieces) -> list[Tensor]:
    """Return the pieces of a room as tensors of their shapes and dtypes."""
    found = []
    begin = 0
    for shape, dtype in pieces:
        count = prod(shape)
        end = begin + _size(shape, dtype)
        found.append(room[begin:end].view(dtype)[:count].view(tuple(shape)))
        begin = end
    return found


def _size(shape: Sequence[int], dtype: torch.dtype) -> int:
    return 4 * -(-prod(shape) * dtype.itemsize // 16)


@dataclass
class Record:
    """Holds what a call launches, with its tensors by their places: inputs, outputs, a room, parts of rooms."""

    # tensors by place while the call is recorded
    held: Sequence[Tensor]
    outputs: Pieces
    # the int32 numbers that the call needs while it runs
    room: int
    inputs: int
    # how often records had been forgotten when the call was found right
    begun: int
    device: int = -1
    launches: list[tuple[Any, ...]] = field(default_factory=list)
    # where parts of rooms begin: the room's place, and bytes
    begins: list[tuple[int, int]] = field(default_factory=list)
    whole: bool = True

    def add(self, built: Any, programs: int, device: int, values: tuple[Any, ...], constants: tuple[Any, ...]) -> None:
        """Note a launch; with a tensor that the call doesn't hold, the record is of no use."""
        tensors = [value for value in values if isinstance(value, Tensor)]
        places = [self._place(value) for value in tensors]
        # empty tensors have no address
        if None in places or not all(value.numel() for value in tensors):
            self.whole = False
            return
        # pointers come first
        rest = (*values[len(tensors) :], *constants)
        self.device = device
        self.launches.append((built, built.run, built.function, programs, itemgetter(*places), rest))

    def _place(self, tensor: Tensor) -> int | None:
        for at, one in enumerate(self.held):
            if one is tensor:
                return at
        for at, one in enumerate(self.held):
            # a room is of one piece from where its memory begins
            if one.dtype == torch.int32 and one.dim() == 1 and _memory(one) == _memory(tensor):
                begin = at, tensor.data_ptr() - one.data_ptr()
                if begin not in self.begins:
                    self.begins.append(begin)
                return len(self.held) + self.begins.index(begin)
        return None

    def again(self, *inputs: Tensor) -> Any:
        """Launch with such inputs what was recorded; return the tuple of outputs, or None if their number differs or
        one of them doesn't begin at a multiple of 16 bytes.

        It takes a third of the time of planning, looking up and launching one by one: Triton's launcher is called with
        addresses, and asks no tensor where it lies.
        """
        if len(inputs) != self.inputs:
            return None
        like = inputs[0]
        outputs = tuple([like.new_empty(shape, dtype=dtype) for shape, dtype in self.outputs])
        pointers = [one.data_ptr() for one in (*inputs, *outputs)]
        if self.room:
            room = like.new_empty(self.room, dtype=torch.int32)
            pointers.append(room.data_ptr())
        if reduce(or_, pointers) % 16:
            return None
        for at, begin in self.begins:
            pointers.append(pointers[at] + begin)
        if self.device == torch.cuda.current_device():
            self._launch(pointers)
        else:
            with torch.cuda.device(self.device):
                self._launch(pointers)
        return outputs

    def _launch(self, pointers: Sequence[int]) -> None:
        stream = stream_of(self.device)
        for built, run, function, programs, take, rest in self.launches:
            run(programs, 1, 1, stream, function, built.packed_metadata, None, None, None, *take(pointers), *rest)


def stream_of(device: int) -> int:
    """Return the address of a CUDA device's current stream."""
    return torch._C._cuda_getCurrentRawStream(device)


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


# what calls launched, by all that their launches depend on
records: dict[Hashable, Record] = {}
# grows by one whenever they are forgotten
_forgotten = 0
# the backward of a module runs in a thread of its own
_present = threading.local()


def mark_checked() -> None:
    """Note when a call of this thread was found right: what is forgotten from then on takes its record with it."""
    _present.begun = _forgotten


def note(built: Any, programs: int, device: int, values: tuple[Any, ...], constants: tuple[Any, ...]) -> None:
    """Add a launch to the record that this thread makes, if it makes one."""
    record = getattr(_present, "record", None)
    if record is not None:
        record.add(built, programs, device, values, constants)


def forget() -> None:
    """Forget what was recorded, and what is being recorded now: a kernel is wrong, or its check was not finished."""
    global _forgotten
    _forgotten += 1
    records.clear()


def name_of(name: Hashable, *tensors: Tensor | None) -> Hashable:
    """Return what the launches of a call depend on besides its name: dtypes, devices, shapes and strides."""
    facts: list[Hashable] = [name]
    for tensor in tensors:
        if tensor is None:
            facts.append(None)
        else:
            facts += (tensor.dtype, tensor.device, tensor.shape, tensor.stride())
    return tuple(facts)


@contextmanager
def recorded(call: Hashable, inputs: Sequence[Tensor], outputs: Sequence[Tensor], room: Tensor) -> Iterator[None]:
    """Keep what is launched on a CUDA device within, to be launched again (`Record.again`) for the same call.

    The inputs, the outputs (dense, on the first input's device), the room that is needed for no longer than the call,
    and parts of rooms among these are all that may be launched with. While a CUDA graph is recorded nothing is kept:
    kernels aren't checked then.
    """
    numbers = room.numel()
    held = (*inputs, *outputs, room) if numbers else (*inputs, *outputs)
    made = [(one.shape, one.dtype) for one in outputs]
    record = _present.record = Record(held, made, numbers, len(inputs), getattr(_present, "begun", _forgotten))
    try:
        yield
    finally:
        _present.record = None
    # gradients that aren't needed are empty
    pointers = [one.data_ptr() for one in held if one.numel()]
    capturing = held[0].is_cuda and torch.cuda.is_current_stream_capturing()
    # what is twice among them couldn't be told apart, and one that begins elsewhere is compiled otherwise
    apart = len(set(pointers)) == len(pointers) and not reduce(or_, pointers) % 16
    if record.launches and record.whole and apart and not capturing and record.begun == _forgotten:
        if len(records) >= KEPT:
            records.clear()
        record.held = ()
        records[call] = record
