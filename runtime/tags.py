"""ID3 tags in front of files: recorders and taggers write them before formats that know nothing of them, as wav."""

from __future__ import annotations

from typing import BinaryIO

HEAD = 10
FOOTER = 0x10
# whoever tags twice leaves two; nobody leaves many
MOST_TAGS = 8


def tags_length(file: BinaryIO) -> int:
    """Return the bytes that ID3 tags take at the beginning of a file; where it is read next is undefined."""
    length = 0
    for _ in range(MOST_TAGS):
        file.seek(length)
        head = file.read(HEAD)
        # a version of 0xFF or a size whose bytes have their highest bit is no tag
        if len(head) < HEAD or head[:3] != b"ID3" or 0xFF in head[3:5] or max(head[6:]) > 0x7F:
            break
        size = 0
        for byte in head[6:]:
            size = size << 7 | byte
        length += HEAD + size + (HEAD if head[5] & FOOTER else 0)
    return length
