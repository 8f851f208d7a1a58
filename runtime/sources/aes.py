"""AES-128 in CBC mode, decrypted in numpy: what HLS calls METHOD=AES-128 (FIPS 197, SP 800-38A; RFC 8216, 4.3.2.4).

Legend: N blocks of 16 bytes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]

BLOCK = 16
ROUNDS = 10
# bytes that are decrypted at once
PIECE = 1 << 16


def _multiply(a: int, b: int) -> int:
    """Return the product in GF(2^8) of the standard."""
    product = 0
    while b:
        product ^= a if b & 1 else 0
        a = (a << 1) ^ (0x11B if a & 0x80 else 0)
        b >>= 1
    return product


def _boxes() -> tuple[Bytes, Bytes]:
    """Return the substitution of bytes and its inverse [256]."""
    box = np.zeros(256, np.uint8)
    for value in range(256):
        inverse = next((other for other in range(1, 256) if _multiply(value, other) == 1), 0) if value else 0
        turned = inverse
        for shift in range(1, 5):
            turned ^= ((inverse << shift) | (inverse >> (8 - shift))) & 0xFF
        box[value] = turned ^ 0x63
    inverse_box = np.zeros(256, np.uint8)
    inverse_box[box] = np.arange(256)
    return box, inverse_box


BOX, INVERSE_BOX = _boxes()
# the columns [256, 4] that a byte of each row becomes by the inverse of the mixing, and the same after the inverse box
MIXED = [
    np.array([[_multiply(value, factor) for factor in np.roll((14, 9, 13, 11), row)] for value in range(256)], np.uint8)
    for row in range(4)
]
TABLES = [np.ascontiguousarray(mixed[INVERSE_BOX]).view(np.uint32)[:, 0] for mixed in MIXED]
# where each byte of a block comes from when its rows are shifted back
SHIFTED_BACK = np.array([(column - row) % 4 * 4 + row for column in range(4) for row in range(4)])


def expand(key: bytes) -> Bytes:
    """Return the keys of all rounds [11, 16]."""
    words = [list(key[at : at + 4]) for at in range(0, BLOCK, 4)]
    factor = 1
    while len(words) < 4 * (ROUNDS + 1):
        word = words[-1]
        if len(words) % 4 == 0:
            word = [int(BOX[value]) for value in (*word[1:], word[0])]
            word[0] ^= factor
            factor = _multiply(factor, 2)
        words.append([a ^ b for a, b in zip(word, words[-4], strict=True)])
    return np.array(words, np.uint8).reshape(ROUNDS + 1, BLOCK)


def decrypt_blocks(blocks: Bytes, keys: Bytes) -> Bytes:
    """Decrypt blocks [N, 16], each by itself."""
    state = blocks ^ keys[ROUNDS]
    for number in range(ROUNDS - 1, 0, -1):
        columns = state[:, SHIFTED_BACK].reshape(-1, 4, 4)
        words = TABLES[0][columns[:, :, 0]]
        for row in range(1, 4):
            words ^= TABLES[row][columns[:, :, row]]
        state = np.ascontiguousarray(words).view(np.uint8).reshape(-1, BLOCK) ^ _mixed_back(keys[number])
    last: Bytes = INVERSE_BOX[state[:, SHIFTED_BACK]] ^ keys[0]
    return last


def _mixed_back(key: Bytes) -> Bytes:
    """Return the inverse of the mixing, of one round's key [16]."""
    columns = key.reshape(4, 4)
    mixed = MIXED[0][columns[:, 0]]
    for row in range(1, 4):
        mixed = mixed ^ MIXED[row][columns[:, row]]
    return mixed.reshape(BLOCK)


class Decrypted:
    """Reads a file that is encrypted as a whole; `key` and `iv` are hexadecimal. Raises ValueError for others."""

    def __init__(self, file: Any, key: str, iv: str) -> None:
        if len(bytes.fromhex(key)) != BLOCK or len(bytes.fromhex(iv)) != BLOCK:
            raise ValueError("an encrypted segment needs a key and a vector of 16 bytes")
        self._file = file
        self._keys = expand(bytes.fromhex(key))
        self._before = np.frombuffer(bytes.fromhex(iv), np.uint8)
        self._waiting = b""
        self._plain = b""
        self._ended = False

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        """At most `size` decrypted bytes."""
        while not self._plain and not self._ended:
            self._fill()
        end = len(self._plain) if size < 0 else size
        found, self._plain = self._plain[:end], self._plain[end:]
        return found

    def close(self) -> None:
        self._file.close()

    def _fill(self) -> None:
        data = self._file.read(PIECE)
        self._ended = not data
        self._waiting += data
        # the last block says how much of it is padding
        count = len(self._waiting) // BLOCK - (0 if self._ended else 1)
        if count <= 0:
            return
        blocks = np.frombuffer(self._waiting, np.uint8, count * BLOCK).reshape(-1, BLOCK)
        self._waiting = self._waiting[count * BLOCK :]
        chained = np.concatenate([self._before[None], blocks[:-1]])
        plain = (decrypt_blocks(blocks, self._keys) ^ chained).tobytes()
        self._before = blocks[-1].copy()
        if self._ended and 1 <= plain[-1] <= BLOCK:
            plain = plain[: -plain[-1]]
        self._plain += plain
