"""Finds where decoding can begin in the middle of a track: at a key frame, whose time is the same as in the whole.

The packets before it are walked, which takes a small part of the time that decoding them takes. Where their timestamps
leap or are missing, only reading everything tells the times, and no entry is found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from typing import Any

from avgn.runtime.av_features import import_av
from avgn.runtime.container import prepare_decoder
from avgn.runtime.limits import MAX_GAP

# seconds by which packets may lie out of order
REORDERED = 1.0
# seconds before the entry at which it is looked for: some containers lead behind the place that was asked for
EARLIER = (0, 5, 30)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A packet at which decoding can begin: its timestamp in the track's units and in seconds, its bytes and place."""

    pts: int
    stamp: Fraction
    size: int
    position: int

    def is_at(self, packet: Any) -> bool:
        return (packet.pts, packet.size, packet.pos) == (self.pts, self.size, self.position)


def find_entry(open_file: Callable[[], Any], choose: Callable[[Any], Any | None], latest: Fraction) -> Entry | None:
    """Return the last key frame up to a timestamp in seconds, of the track that `choose(container)` gives.

    `open_file()` opens the container. None where there is none but the first, where times can't be told without reading
    everything, or where the container can't be entered there.
    """
    av = import_av()
    try:
        with open_file() as container:
            entry = _last_key(container, choose(container), latest)
        if entry is None:
            return None
        with open_file() as container:
            stream = choose(container)
            prepare_decoder(stream)
            # pictures that are recovered bit by bit come later than the packet says
            frames = (frame for packet in packets_from(container, stream, entry) for frame in packet.decode())
            first = next((frame for frame in frames if not frame.is_corrupt), None)
            shown = first is not None and first.pts is not None and first.pts * Fraction(first.time_base) <= latest
            return entry if shown else None
    except (av.FFmpegError, EOFError, ValueError):
        # a decoder that can't be opened is a ValueError from PyAV 19 on
        return None


def packets_from(container: Any, stream: Any, entry: Entry) -> Iterator[Any]:
    """Return the track's packets from the entry on; none where seeking does not lead there."""
    for earlier in EARLIER:
        container.seek(entry.pts - round(earlier / stream.time_base), stream=stream)
        packets = container.demux(stream)
        for packet in packets:
            if entry.is_at(packet):
                return chain([packet], packets)
            if packet.pts is None or packet.pts > entry.pts:
                break
    return iter(())


def _last_key(container: Any, stream: Any, latest: Fraction) -> Entry | None:
    found: Entry | None = None
    highest: Fraction | None = None
    for number, packet in enumerate(container.demux(stream)):
        if packet.pts is None:
            # the end, or no timestamp
            return found if not packet.size else None
        stamp = packet.pts * Fraction(packet.time_base)
        if highest is not None and not -REORDERED <= stamp - highest <= MAX_GAP - REORDERED:
            return None
        highest = stamp if highest is None else max(highest, stamp)
        if stamp > latest + Fraction(REORDERED):
            break
        if packet.is_keyframe and stamp <= latest and packet.pos is not None and number:
            found = Entry(pts=packet.pts, stamp=stamp, size=packet.size, position=packet.pos)
    return found
