"""Batches that are on the GPU before they are needed: the next one is copied while a step computes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from avgn.types import Batch


class OnDevice:
    """The batches of a loader on this process's GPU, each copied one step ahead on a stream of its own.

    Their memory must be pinned for the copy to take place beside the computation (`build_loader(..., pin=True)`).
    """

    def __init__(self, loader: Iterable[Batch]) -> None:
        self._loader = loader

    def __len__(self) -> int:
        return len(self._loader)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Batch]:
        device = torch.device("cuda", torch.cuda.current_device())
        stream = torch.cuda.Stream(device)
        ahead: tuple[Batch, torch.cuda.Event] | None = None
        for batch in self._loader:
            with torch.cuda.stream(stream):
                sent = batch.to(device), stream.record_event()
            if ahead is not None:
                yield _arrived(*ahead)
            ahead = sent
        if ahead is not None:
            yield _arrived(*ahead)


def _arrived(batch: Batch, copied: torch.cuda.Event) -> Batch:
    """Return the batch for the stream that computes, whose memory is not given out again before it is read."""
    computing = torch.cuda.current_stream()
    computing.wait_event(copied)
    tensors: list[Tensor] = [batch.image, batch.waveform, *vars(batch.labels).values()]
    for tensor in tensors:
        tensor.record_stream(computing)
    return batch
