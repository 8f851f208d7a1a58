"""A video that is written picture by picture, with a sound beside it, in the container that its name asks for."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from fractions import Fraction
from typing import Any, Protocol

from avgn.runtime.arrays import Pixels
from avgn.runtime.errors import InputError
from avgn.runtime.image import import_cv2
from avgn.runtime.media import import_av
from avgn.runtime.outputs import OutputFile, find_place, write_error
from avgn.runtime.outputs.reasons import shown
from avgn.runtime.sinks.containers import AudioFormat, Container, container_of
from avgn.runtime.sinks.palette import Palette

BT601 = 6
MOST_FPS = 1000


class AudioWriter(Protocol):
    """Writes a sound into the container it was made for."""

    def write_until(self, time: float | None) -> None:
        """Write it up to `time` seconds; None: all of it."""
        ...


class VideoFile:
    """Takes pictures with their times. What is written so far survives the process: `file.partial` can be played."""

    def __init__(
        self,
        file: OutputFile,
        size: tuple[int, int],
        fps: float,
        audio: Callable[[Any, AudioFormat], AudioWriter],
        *,
        crf: int = 21,
        preset: str | None = None,
    ) -> None:
        """`size` (height, width) of the pictures; `fps` their usual rate; `audio` adds its stream to the container.

        `preset` is x264's, by default a faster one for pictures above 1280x720. `file` is finished by `close` and gone
        after `abort` and every error. Raises InputError when it can't be written.
        """
        av = import_av()
        self.file = file
        self._container: Any = None
        self._audio: AudioWriter | None = None
        self._height, self._width = (side + side % 2 for side in size)
        rate = Fraction(min(max(fps, 0.001), MOST_FPS)).limit_denominator(1001)
        try:
            kind = container_of(find_place(file.name))
            self._base = kind.time_base(rate)
            self._interval = max(1, round(1 / (rate * self._base)))
            self._last = -1
            self._palette = Palette() if kind.pix_fmt == "pal8" else None
            # a file of ours: FFmpeg never reads the name, in which a colon or % would mean something
            self._container = av.open(file, "w", format=kind.format, options=kind.mux_options(file.seekable()))
            self._stream = self._add_stream(kind, rate, crf, preset)
            if kind.audio is not None:
                self._audio = audio(self._container, kind.audio)
        except (av.FFmpegError, OSError, ValueError) as error:
            self.abort()
            raise self._error(error) from None

    def write(self, rgb: Pixels, time: float) -> None:
        """Add a picture [H, W, 3] uint8 shown at `time` seconds, and the sound up to there."""
        av = import_av()
        # a frame before zero or with a repeated time moves to the next free tick
        ticks = max(self._last + 1, round(time / self._base))
        try:
            for frame in self._frames(self._fit(rgb), ticks):
                self._mux(self._stream.encode(frame))
            if self._audio is not None:
                self._audio.write_until(float(ticks * self._base))
            self._check()
        except (av.FFmpegError, OSError, ValueError) as error:
            self.abort()
            raise self._error(error) from None
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
            for frame in self._frames(None, 0):
                self._mux(self._stream.encode(frame))
            self._mux(self._stream.encode(None))
            if self._audio is not None:
                self._audio.write_until(float((self._last + self._interval) * self._base) if interrupted else None)
            container, self._container = self._container, None
            container.close()
            self._check()
            self.file.commit()
        except (av.FFmpegError, OSError, ValueError) as error:
            self.abort()
            raise self._error(error) from None

    def hurry(self) -> None:
        """Stop waiting for a reader that does not read: the run is to end."""
        self.file.hurry()

    def abort(self) -> None:
        """Leave nothing behind."""
        container, self._container = self._container, None
        if container is not None:
            self.file.hurry()
            with suppress(Exception):
                container.close()
        self.file.abort()

    def _add_stream(self, kind: Container, rate: Fraction, crf: int, preset: str | None) -> Any:
        stream = self._container.add_stream(kind.codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = self._width, self._height, kind.pix_fmt
        stream.codec_context.time_base = self._base
        if kind.pix_fmt == "yuv420p":
            stream.codec_context.colorspace = BT601
        stream.options = kind.codec_options(self._width * self._height, crf, preset)
        return stream

    def _frames(self, rgb: Pixels | None, ticks: int) -> list[Any]:
        """Return the picture as frames for the encoder; None: those that are still on their way."""
        if self._palette is not None:
            return self._palette.take(rgb, ticks, self._base)
        if rgb is None:
            return []
        frame = import_av().VideoFrame.from_ndarray(rgb, format="rgb24")
        frame.pts, frame.time_base = ticks, self._base
        return [frame]

    def _check(self) -> None:
        """Raise what went wrong when the file was written: FFmpeg does not always tell."""
        if self.file.error is not None:
            raise self.file.error

    def _error(self, error: Exception) -> Exception:
        """Return what is raised for an error: the file's own, or that the encoder can't do what is asked."""
        error = self.file.error or error
        if isinstance(error, (InputError, BrokenPipeError)):
            return error
        if self.file.error is None:
            reason = " ".join((getattr(error, "strerror", None) or str(error)).split())
            size = f"{self._width}x{self._height}"
            return InputError(
                f"output {shown(self.file.name)} can't be encoded (pictures of {size}: {reason}): choose another suffix"
            )
        return write_error(self.file.name, error)

    def _mux(self, packets: list[Any]) -> None:
        for packet in packets:
            if not packet.duration:
                packet.duration = self._interval
            self._container.mux(packet)

    def _fit(self, rgb: Pixels) -> Pixels:
        """Return the picture at the video's size: even, and the same when the input changes its size on the way."""
        height, width = rgb.shape[:2]
        if (height, width) == (self._height, self._width):
            return rgb
        cv2 = import_cv2()
        if self._height - height in (0, 1) and self._width - width in (0, 1):
            padded: Pixels = cv2.copyMakeBorder(
                rgb, 0, self._height - height, 0, self._width - width, cv2.BORDER_REPLICATE
            )
            return padded
        resized: Pixels = cv2.resize(rgb, (self._width, self._height), interpolation=cv2.INTER_AREA)
        return resized
