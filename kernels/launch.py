"""What the fused kernels share: blocks, strides, the sizes that fit a chip, and launches that cost the host little."""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, reduce
from math import prod
from operator import itemgetter, or_
from typing import Any

import torch
from torch import Tensor

from avgn.kernels.dispatch import interprets

# bytes of shared memory that one program may use, by compute capability
SHARED_MEMORY = {
    (7, 5): 64 << 10,
    (8, 0): 163 << 10,
    (8, 6): 99 << 10,
    (8, 9): 99 << 10,
    (9, 0): 227 << 10,
    (10, 0): 227 << 10,
    (12, 0): 99 << 10,
}
# launches that are remembered; shapes of a training differ little, those of a service may
KEPT = 4096


def block(count: int, *, least: int = 16, most: int | None = None) -> int:
    """Return the power of two from `least` that holds `count`, at most `most`."""
    size = least
    while size < count and (most is None or size < most):
        size *= 2
    return size


def ceil_div(count: int, size: int) -> int:
    """Return the blocks of `size` that hold `count`."""
    return -(-count // size)


def row_contiguous(tensor: Tensor) -> Tensor:
    """Return the tensor, or a copy whose last dimension is dense."""
    return tensor if tensor.stride(-1) == 1 or tensor.shape[-1] == 1 else tensor.contiguous()


def precision(dtype: torch.dtype) -> str:
    """Return how tiles are multiplied: IEEE float32, never TF32."""
    return "widen" if dtype == torch.bfloat16 and interprets() else "ieee"


def is_plain(dtype: torch.dtype, shared: int) -> bool:
    """Return whether tiles are multiplied without matrix units: IEEE float32, and everything on 7.5, where Triton
    has none."""
    return dtype == torch.float32 or shared <= SHARED_MEMORY[(7, 5)]


@cache
def shared_memory(device: torch.device) -> int:
    """Return the bytes of shared memory that a program may use on a device."""
    if device.type != "cuda":
        return SHARED_MEMORY[(9, 0)]
    capability = torch.cuda.get_device_capability(device)
    known = [size for chip, size in SHARED_MEMORY.items() if chip <= capability and chip[0] == capability[0]]
    return known[-1] if known else 48 << 10


# what a launch compiled to, by kernel, plan, device and facts of the arguments
built_kernels: dict[tuple[Any, ...], Any] = {}


def launch(kernel: Any, programs: int, plan: dict[str, Any], **arguments: Any) -> None:
    """Run `programs` programs of a kernel on the device of its first argument, with the constants of its plan.

    `arguments` are the kernel's parameters in its own order, pointers first. A plan is a dictionary that is made once
    and kept: Triton's own search for the compiled kernel, which takes longer than a small kernel runs, is done once for
    a plan, the sizes, and the alignment of the tensors.
    """
    device = next(iter(arguments.values())).device
    if device.type != "cuda":
        kernel[(programs,)](**arguments, **plan)
    elif device.index == torch.cuda.current_device():
        launch_built(kernel, programs, plan, arguments, device.index)
    else:
        # Triton launches on the current device
        with torch.cuda.device(device):
            launch_built(kernel, programs, plan, arguments, device.index)


def launch_built(kernel: Any, programs: int, plan: dict[str, Any], arguments: dict[str, Any], device: int) -> None:
    """Run a kernel on a CUDA device as compiled for such arguments before, or let Triton compile it the first time.

    Raises AssertionError for arguments out of the kernel's order: a compiled kernel takes them by place.
    """
    values = tuple(arguments.values())
    # kernels live as long as their modules; hashing one would hash its source
    key = (id(kernel), id(plan), device, *_facts(values))
    known = built_kernels.get(key)
    if known is None:
        names = list(kernel.arg_names)
        assert names[: len(values)] == list(arguments), f"the kernel takes {names}, not {list(arguments)}"
        if len(built_kernels) >= KEPT:
            built_kernels.clear()
        built = kernel[(programs,)](**arguments, **plan)
        constants = tuple(plan[name] for name in names[len(values) :])
        # the plan is kept with the kernel, so that no other one can take its id
        known = built_kernels[key] = (built, constants, plan)
    else:
        built, constants, _ = known
        stream = torch._C._cuda_getCurrentRawStream(device)
        built.run(programs, 1, 1, stream, built.function, built.packed_metadata, None, None, None, *values, *constants)
    record = getattr(_present, "record", None)
    if record is not None:
        record.add(known[0], programs, device, values, known[1])


def _facts(values: tuple[Any, ...]) -> list[Any]:
    """What Triton compiles for besides constants: numbers, dtypes, and which tensors begin at multiples of 16 bytes."""
    facts: list[Any] = []
    addresses = 0
    for value in values:
        if type(value) is int or type(value) is float:
            facts.append(value)
        else:
            facts.append(value.dtype)
            addresses |= value.data_ptr()
    if addresses % 16:
        facts += [value.data_ptr() % 16 == 0 for value in values if isinstance(value, Tensor)]
    return facts


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
    return 4 * ceil_div(prod(shape) * dtype.itemsize, 16)


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
        stream = torch._C._cuda_getCurrentRawStream(self.device)
        for built, run, function, programs, take, rest in self.launches:
            run(programs, 1, 1, stream, function, built.packed_metadata, None, None, None, *take(pointers), *rest)


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


# what calls launched, by all that their launches depend on
records: dict[Hashable, Record] = {}
# grows by one whenever they are forgotten
_forgotten = 0
# the backward of a module runs in a thread of its own
_present = threading.local()


def begin() -> None:
    """Note when a call of this thread was found right: what is forgotten from then on takes its record with it."""
    _present.begun = _forgotten


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
