"""What travels over the WebSocket: the browser's messages, checked, and the answers to them.

Upwards, text is JSON ({"type": "hello" | "reset" | "sound-end" | "alive"}; where visitors may teach, also what desk.py
takes) and binary is a header of 16 bytes, little-endian, with its content: kind (uint8: 1 a frame, 2 sound), three zero
bytes, rate in Hz (uint32: of sound, else 0), time in seconds (float64, the browser's clock); then a baseline JPEG, or
PCM16 mono. Downwards everything is JSON.
"""

from __future__ import annotations

import io
import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from avgn.runtime.arrays import Pixels
from avgn.runtime.jpeg import Baseline, JpegError, read_baseline
from avgn.runtime.regions import min_max
from avgn.runtime.result import Result
from avgn.runtime.sinks.drawing import color_of

VERSION = 1
HEADER = struct.Struct("<B3xId")
FRAME, SAMPLES = 1, 2
# what browsers' audio contexts run at; any other rate would cost a filter of its own
RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 88200, 96000, 176400, 192000)
MAX_TEXT = 4096
MAX_SIDE = 1280
MAX_PIXELS = 1024 * 1024
LEVELS = 255

# close codes of RFC 6455, and of our own from 4400 on
UNSUPPORTED, INVALID, POLICY, TOO_BIG, FAILED, FULL = 1003, 1007, 1008, 1009, 1011, 1013
BAD_CLOCK, NO_TOKEN, IDLE, TOO_FAST = 4400, 4401, 4408, 4429


class WireError(Exception):
    """A message that ends its session: `code` is the WebSocket's close code."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


@dataclass(frozen=True, kw_only=True)
class Frame:
    """A picture still compressed; `time` in seconds of the browser's clock."""

    time: float
    jpeg: bytes


@dataclass(frozen=True, kw_only=True, eq=False)
class Samples:
    """PCM [T] int16 at `rate` Hz whose first sample was captured at `time`."""

    time: float
    rate: int
    samples: npt.NDArray[np.int16]


def read_binary(data: bytes) -> Frame | Samples:
    """Read a binary message; raises WireError for anything else."""
    if len(data) <= HEADER.size:
        raise WireError(INVALID, f"a binary message has a header of {HEADER.size} bytes and content")
    kind, rate, time = HEADER.unpack_from(data)
    if not math.isfinite(time):
        raise WireError(BAD_CLOCK, "times are finite seconds")
    body = data[HEADER.size :]
    if kind == FRAME:
        return Frame(time=time, jpeg=body)
    if kind != SAMPLES:
        raise WireError(UNSUPPORTED, f"message kind {kind} is not known")
    if rate not in RATES:
        raise WireError(UNSUPPORTED, f"sound of {rate} Hz is not taken: use 48000")
    if len(body) % 2 or len(body) > 2 * rate:
        raise WireError(INVALID, "sound is PCM16 of at most a second")
    return Samples(time=time, rate=rate, samples=np.frombuffer(body, "<i2"))


def read_text(text: str) -> dict[str, Any]:
    """Return a text message: a JSON object with a "type"; raises WireError for anything else."""
    if len(text) > MAX_TEXT:
        raise WireError(TOO_BIG, f"text messages have at most {MAX_TEXT} characters")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise WireError(INVALID, "text messages are JSON") from None
    if not isinstance(value, dict) or not isinstance(value.get("type"), str):
        raise WireError(INVALID, 'text messages are JSON objects with a "type"')
    return value


def check_jpeg(data: bytes) -> Baseline:
    """Return a picture that may be decoded. Raises WireError for one that is too large, or no baseline JPEG of one
    scan: a small file of any other kind can cost seconds."""
    try:
        jpeg = read_baseline(data)
    except JpegError as error:
        raise WireError(INVALID if error.is_broken else UNSUPPORTED, str(error)) from None
    width, height = jpeg.width, jpeg.height
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        raise WireError(TOO_BIG, f"pictures have at most {MAX_SIDE} pixels a side, {MAX_PIXELS} in all")
    return jpeg


def decode(jpeg: Baseline) -> Pixels:
    """Return a checked picture as RGB [H, W, 3]; raises WireError where the decoder sees it otherwise.

    Pillow and not OpenCV, whose libjpeg writes a line on standard error for every damaged JPEG.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(jpeg.data), formats=("JPEG",)) as image:
            if image.size == (jpeg.width, jpeg.height):
                return np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, struct.error):
        pass
    raise WireError(INVALID, "the picture can't be decoded")


def decode_jpeg(data: bytes) -> Pixels:
    """Check a picture and decode it: RGB [H, W, 3]. Raises WireError."""
    return decode(check_jpeg(data))


def hello(
    classes: tuple[str, ...],
    grid: tuple[int, int],
    engine: str,
    has_presence: bool,
    *,
    kind: str = "hello",
    teach: Mapping[str, Any] | None = None,
) -> str:
    """Return the server's first message: what it can name, and in which colours.

    `kind` "classes": the same after another engine has come; `teach`: what visitors who teach must know.
    """
    colors = ["#{:02x}{:02x}{:02x}".format(*color_of(index)) for index in range(len(classes))]
    named = [{"label": label, "color": color} for label, color in zip(classes, colors, strict=True)]
    facts = {"version": VERSION, "classes": named, "grid": list(grid), "engine": engine, "has_presence": has_presence}
    lessons = {} if teach is None else {"teach": teach}
    return json.dumps({"type": kind, **facts, "max_pixels": MAX_PIXELS, **lessons})


def answer(result: Result, time: float) -> str:
    """Return a result line for the browser: `time` is the frame's own, maps are row-major levels 0..255 of their
    range."""
    line = result.to_json()
    for entry, source in zip(line["sources"], result.sources, strict=True):
        entry["index"] = source.index
        entry["map"] = None
        if source.map is not None:
            entry["map"] = np.rint(LEVELS * min_max(source.map)).astype(int).ravel().tolist()
            entry["range"] = [round(float(source.map.min()), 5), round(float(source.map.max()), 5)]
    return json.dumps({"type": "result", **line, "time": time}, allow_nan=False)
