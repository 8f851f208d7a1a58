"""Counts the frames of a WebSocket while they come, whatever they hold (RFC 6455, 5.2)."""

from __future__ import annotations

import struct

# a message of more fragments is an attack
MOST_FRAGMENTS = 64
LONGEST_HEADER = 14
# frames that came at once, beyond which nobody counts on
FLOOD = 2000
CONTINUATION, FIRST_CONTROL = 0x0, 0x8
FIN, OPCODE, MASKED, LENGTH = 0x80, 0x0F, 0x80, 0x7F


class FrameCounter:
    """Reads the headers of frames [bytes] in pieces cut anywhere."""

    def __init__(self) -> None:
        self._header = b""
        self._left = 0
        self._fragments = 0
        self._is_flood = False

    @property
    def is_attack(self) -> bool:
        """Whether a message came in more fragments than any program sends, or more at once than one would."""
        return self._fragments > MOST_FRAGMENTS or self._is_flood

    def take(self, data: bytes) -> int:
        """Return how many frames begin in `data`; of a flood no more than that it is one."""
        at, begun = 0, 0
        while at < len(data) and begun <= FLOOD:
            if self._left:
                step = min(self._left, len(data) - at)
                self._left -= step
                at += step
                continue
            begun += not self._header
            known = len(self._header)
            self._header += data[at : at + LONGEST_HEADER - known]
            size = _header_size(self._header)
            if size is None:
                break
            at += size - known
            self._begin(self._header[:size])
            self._header = b""
        self._is_flood = begun > FLOOD
        return begun

    def _begin(self, header: bytes) -> None:
        length = header[1] & LENGTH
        if length == 126:
            (length,) = struct.unpack_from(">H", header, 2)
        elif length == 127:
            (length,) = struct.unpack_from(">Q", header, 2)
        self._left = length
        opcode = header[0] & OPCODE
        if opcode < FIRST_CONTROL:
            self._fragments = self._fragments + 1 if opcode == CONTINUATION else 1


def _header_size(header: bytes) -> int | None:
    """Return the bytes of a frame's header, or None while that can't be told or they are not all there."""
    if len(header) < 2:
        return None
    size = 2 + {126: 2, 127: 8}.get(header[1] & LENGTH, 0) + (4 if header[1] & MASKED else 0)
    return size if len(header) >= size else None
