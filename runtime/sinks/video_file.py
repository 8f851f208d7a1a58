"""A video that is written picture by picture: H.264 in MP4, with a sound beside it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from avgn.runtime.errors import InputError
from avgn.runtime.image import import_cv2
from avgn.runtime.media import import_av
from avgn.runtime.sinks.partial import prepare_output, write_error

Pixels = npt.NDArray[np.uint8]

TICKS = 90000
BT601 = 6
LARGE = 1280 * 720


class Sound(Protocol):
    """Writes a sound into the container it was made for."""

    def write_until(self, time: float | None) -> None:
        """Write it up to `time` seconds; None: all of it."""
        ...


class VideoFile:
    """Takes pictures with their times. The file is written beside its place and renamed by `close`."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        size: tuple[int, int],
        fps: float,
        sound: Callable[[Any], Sound],
        *,
        inputs: Sequence[Path] = (),
        crf: int = 21,
        preset: str | None = None,
    ) -> None:
        """`size` (height, width) of the pictures; `fps` their usual rate; `sound` adds its stream to the container.

        `preset` is x264's, by default a faster one for pictures above 1280x720. `inputs` are files that must not be
        replaced. Raises InputError when the file can't be written.
        """
        av = import_av()
        self.path = Path(path)
        self._partial = prepare_output(path, *inputs)
        self._height, self._width = (side + side % 2 for side in size)
        preset = preset or ("veryfast" if self._width * self._height <= LARGE else "ultrafast")
        self._last = -1
        self._interval = max(1, round(TICKS / fps))
        try:
            self._container: Any = av.open(str(self._partial), "w", format="mp4")
            self._stream = self._container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
            self._stream.width, self._stream.height = self._width, self._height
            self._stream.pix_fmt = "yuv420p"
            self._stream.codec_context.time_base = Fraction(1, TICKS)
            self._stream.codec_context.colorspace = BT601
            self._stream.options = {"crf": str(crf), "preset": preset}
            self._sound = sound(self._container)
        except (av.FFmpegError, OSError) as error:
            self.abort()
            raise write_error(self.path, error) from None
        except InputError:
            self.abort()
            raise

    def write(self, picture: Pixels, time: float) -> None:
        """Add a picture [H, W, 3] uint8 shown at `time` seconds, and the sound up to there."""
        av = import_av()
        # a frame before zero or with a repeated time moves to the next free tick
        ticks = max(self._last + 1, round(time * TICKS))
        frame = av.VideoFrame.from_ndarray(self._fit(picture), format="rgb24")
        frame.pts, frame.time_base = ticks, Fraction(1, TICKS)
        try:
            self._mux(self._stream.encode(frame))
            self._sound.write_until(ticks / TICKS)
        except (av.FFmpegError, OSError) as error:
            self.abort()
            raise write_error(self.path, error) from None
        self._last = ticks

    def close(self, *, interrupted: bool = False) -> None:
        """Finish the file; after an interrupt the sound ends with the last frame."""
        av = import_av()
        if self._container is None:
            return
        if self._last < 0:
            self.abort()
            return
        try:
            self._mux(self._stream.encode(None))
            self._sound.write_until((self._last + self._interval) / TICKS if interrupted else None)
            self._container.close()
            self._container = None
            if not _has_trailer(self._partial):
                raise OSError(28, os.strerror(28))
            self._partial.replace(self.path)
        except (av.FFmpegError, OSError) as error:
            self.abort()
            raise write_error(self.path, error) from None

    def abort(self) -> None:
        """Leave nothing behind."""
        container, self._container = getattr(self, "_container", None), None
        if container is not None:
            with suppress(Exception):
                container.close()
        self._partial.unlink(missing_ok=True)

    def _mux(self, packets: list[Any]) -> None:
        for packet in packets:
            if not packet.duration:
                packet.duration = self._interval
            self._container.mux(packet)

    def _fit(self, picture: Pixels) -> Pixels:
        """The picture at the video's size: even, and the same when the input changes its size on the way."""
        height, width = picture.shape[:2]
        if (height, width) == (self._height, self._width):
            return picture
        cv2 = import_cv2()
        if self._height - height in (0, 1) and self._width - width in (0, 1):
            padded: Pixels = cv2.copyMakeBorder(
                picture, 0, self._height - height, 0, self._width - width, cv2.BORDER_REPLICATE
            )
            return padded
        resized: Pixels = cv2.resize(picture, (self._width, self._height), interpolation=cv2.INTER_AREA)
        return resized


def _has_trailer(path: Path) -> bool:
    """True when the boxes of an MP4 fill the file exactly and its index (moov) is among them."""
    size, at, found = path.stat().st_size, 0, False
    with path.open("rb") as file:
        while at + 8 <= size:
            file.seek(at)
            head = file.read(16)
            length = int.from_bytes(head[:4], "big")
            if length == 1:
                length = int.from_bytes(head[8:16], "big")
            if length < 8:
                return False
            found = found or head[4:8] == b"moov"
            at += length
    return found and at == size
