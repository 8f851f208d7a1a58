"""What a JPEG holds, read as strictly as a decoder that trusts nobody (ITU-T T.81, annex B).

Live pictures are copied without everything that was not understood: what was checked is then what is decoded.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

from avgn.runtime.limits import MAX_STILL_PIXELS

# marker, segment's length with itself; a marker may be preceded by any number of fill bytes
SEGMENT = re.compile(rb"\xff+([^\xff])(..)", re.DOTALL)
# what may follow 0xFF within a scan: a stuffed zero or a restart marker
SCAN_END = re.compile(rb"\xff+[^\xff\x00\xd0-\xd7]", re.DOTALL)
SOI, EOI = b"\xff\xd8", b"\xff\xd9"
SOF0, DHT, SOS, DQT, DRI, JFIF, ADOBE = 0xC0, 0xC4, 0xDA, 0xDB, 0xDD, 0xE0, 0xEE
# frames that are not baseline: other Huffman processes, lossless, hierarchical, arithmetic
OTHER_FRAMES = (*range(0xC1, 0xC4), *range(0xC5, 0xD0))
# markers that are no segments, and those that no single still picture has
FORBIDDEN = (*range(0x00, 0xC0), *range(0xD0, 0xDA), 0xDC, 0xDE, 0xDF, *range(0xF0, 0xFE))
# browsers write about ten
MAX_SEGMENTS = 64
MAX_SAMPLING = 4


class JpegError(ValueError):
    """Bytes that are no JPEG as wanted. `is_broken`: rather than of another kind."""

    def __init__(self, reason: str, *, is_broken: bool = True) -> None:
        super().__init__(reason)
        self.is_broken = is_broken


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """A baseline JPEG of one scan; `data` holds its tables, frame and scan alone."""

    width: int
    height: int
    data: bytes


def read_baseline(data: bytes) -> Baseline:
    """Check a baseline JPEG from its first byte to its end marker: exactly one frame and one scan of all components.

    Raises JpegError for anything else. What follows the end marker, comments and applications' segments are left out.
    """
    if data[:2] != SOI:
        raise JpegError("pictures are JPEG", is_broken=False)
    kept, at, frame = [SOI], 2, None
    for _ in range(MAX_SEGMENTS):
        found = SEGMENT.match(data, at)
        if found is None:
            raise JpegError("the picture ends amid its header")
        marker = found[1][0]
        if marker in FORBIDDEN:
            raise JpegError(f"the marker {marker:02X} does not belong there")
        if marker in OTHER_FRAMES:
            raise JpegError("pictures are baseline JPEG", is_broken=False)
        end = found.end() - 2 + int.from_bytes(found[2], "big")
        body = data[found.end() : end]
        if end < found.end() or end > len(data):
            raise JpegError("the picture ends amid its header")
        at = end
        if marker == SOF0:
            if frame is not None:
                raise JpegError("the picture has a second frame")
            frame = _frame(body)
        if marker == SOS:
            if frame is None:
                raise JpegError("the picture has no frame")
            _check_scan(body, frame[2])
            return Baseline(
                width=frame[0], height=frame[1], data=b"".join([*kept, data[found.end() - 4 : end], _scan(data, end)])
            )
        if _is_kept(marker, body):
            kept.append(data[found.end() - 4 : end])
    raise JpegError(f"the picture has more than {MAX_SEGMENTS} segments")


def _is_kept(marker: int, body: bytes) -> bool:
    """Return whether a segment tells how to decode: tables, and the two that name the colours' meaning."""
    if marker in (SOF0, DHT, DQT, DRI):
        return True
    return (marker == JFIF and body[:5] == b"JFIF\0") or (marker == ADOBE and body[:5] == b"Adobe")


def _frame(body: bytes) -> tuple[int, int, bytes]:
    """(width, height, identifiers of the components) of a frame header (B.2.2)."""
    if len(body) < 6:
        raise JpegError("the frame's header is too short")
    precision, height, width, count = struct.unpack_from(">BHHB", body)
    parts = [body[at : at + 3] for at in range(6, len(body), 3)]
    if precision != 8 or not width or not height or count not in (1, 3) or len(body) != 6 + 3 * count:
        raise JpegError("the frame has no size, or components that pictures don't have")
    if len({part[0] for part in parts}) != count or not all(
        1 <= part[1] >> 4 <= MAX_SAMPLING and 1 <= part[1] & 15 <= MAX_SAMPLING for part in parts
    ):
        raise JpegError("the frame's components are not told apart, or sampled in no known way")
    return width, height, bytes(part[0] for part in parts)


def _check_scan(body: bytes, components: bytes) -> None:
    """Raise JpegError unless a scan header (B.2.3) is that of all components, from first to last coefficient."""
    count = len(components)
    if len(body) != 4 + 2 * count or body[0] != count or body[1 : 1 + 2 * count : 2] != components:
        raise JpegError("the scan is not of all components")
    if body[-3:] != b"\x00\x3f\x00":
        raise JpegError("pictures are baseline JPEG", is_broken=False)


def _scan(data: bytes, start: int) -> bytes:
    """Return the coded pixels from `start` with the end marker that must follow them."""
    found = SCAN_END.search(data, start)
    if found is None:
        raise JpegError("the picture ends amid its pixels")
    if found[0][-1:] != EOI[1:]:
        raise JpegError("a second scan, or what is no scan, follows the first")
    return data[start : found.start()] + EOI


# scans of a still from a file: progressive ones have about ten
USUAL_SCANS, MOST_SCANS = 12, 100
MAX_WORK = USUAL_SCANS * MAX_STILL_PIXELS


def check_work(name: object, data: bytes) -> None:
    """Raise ValueError, naming the picture, for a JPEG whose scans would cost minutes; other bytes pass.

    The number of pixels alone has the decoder's own limit.
    """
    # coded pixels can't hold the marker, so no scan is missed
    scans = data.count(b"\xff\xda") if data[:2] == SOI else 0
    if scans <= USUAL_SCANS:
        return
    if scans > MOST_SCANS or scans * _pixels(data) > MAX_WORK:
        raise ValueError(f"{name} is a JPEG of {scans} scans: write it anew, as baseline JPEG or PNG")


def _pixels(data: bytes) -> int:
    """Return what the first frame's header claims; as many as may be where the way to it is not clear."""
    at = len(SOI)
    while (found := SEGMENT.match(data, at)) is not None and found[1][0] not in FORBIDDEN:
        if found[1][0] in (SOF0, *OTHER_FRAMES):
            height, width = struct.unpack_from(">HH", data.ljust(found.end() + 5), found.end() + 1)
            return int(width * height)
        at = found.end() - 2 + max(2, int.from_bytes(found[2], "big"))
    return MAX_STILL_PIXELS
