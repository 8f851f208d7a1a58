"""Video files as frames and sound with times, in whatever container and codec PyAV reads.

Container timestamps rule. Sound and pictures are read by two independent readers, so that memory stays bounded
however the file is interleaved. Corrupt pieces are skipped, counted and reported.
"""

from __future__ import annotations

import os
import time as clock
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from avgn.runtime.audio import to_float
from avgn.runtime.av_features import disposition, open_input
from avgn.runtime.av_features import import_av as import_av
from avgn.runtime.errors import InputError
from avgn.runtime.trace import record

Floats = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]

DEFAULT_FPS = 25.0
# demuxers that take any text for pictures
NOT_MEDIA = {"tty", "bin", "xbin", "adf", "idf"}
TS_DISCONT = 512
ATTACHED_PICTURE = 1024


@dataclass(frozen=True, kw_only=True)
class MediaInfo:
    """What a file says about itself; sizes are those of the upright picture, `duration` in seconds or None."""

    width: int
    height: int
    rotation: int
    fps: float
    duration: float | None
    video_codec: str
    audio_codec: str
    audio_rate: int
    audio_channels: int


@dataclass(frozen=True, kw_only=True, eq=False)
class VideoFrame:
    """An upright picture [H, W, 3] uint8 RGB at `time` seconds; `ms` it took to decode.

    `captured` is the monotonic moment at which a live picture came, None in files.
    """

    rgb: Pixels
    time: float
    ms: float = 0.0
    captured: float | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class AudioBlock:
    """Sound [T, C] float32 whose first sample is at `time` seconds."""

    samples: Floats
    rate: int
    time: float


@dataclass(frozen=True, kw_only=True)
class AudioEnd:
    """No more sound comes."""


Event = VideoFrame | AudioBlock | AudioEnd


def open_media(path: str | os.PathLike[str], audio: str | os.PathLike[str] | None = None) -> MediaFile:
    """Open a video file, with its own sound or that of the file `audio`, and decode the first piece of each.

    Raises InputError, one sentence with the way out, for files that can't be used.
    """
    return MediaFile(Path(path), None if audio is None else Path(audio))


class MediaFile:
    """A video with sound that can be read any number of times; `corrupt_frames` counts over all readings."""

    def __init__(self, path: Path, audio: Path | None = None) -> None:
        self.path = path
        self.audio_path = audio or path
        self.corrupt_frames = 0
        self.corrupt_audio = 0
        with open_container(path) as container:
            stream = _video_stream(container)
            if stream is None:
                raise InputError(f"{path} has no video: give a video file (a sound file goes to --audio)")
            duration = None if container.duration is None else container.duration / 1e6
            fps = float(stream.average_rate or stream.guessed_rate or DEFAULT_FPS)
            codec = str(stream.codec_context.name)
        with open_container(self.audio_path) as container:
            sound = audio_stream(container)
            if sound is None:
                way_out = "give the sound with --audio FILE" if audio is None else "give another file to --audio"
                raise InputError(f"{self.audio_path} has no sound: {way_out}")
            audio_codec = str(sound.codec_context.name)
        frame = next((frame for frame, _ in self._decode(path, "video")), None)
        if frame is None:
            raise InputError(f"{path} holds no picture that can be decoded: it is zero-length or damaged")
        block = next(self.audio(), None)
        if block is None:
            raise InputError(f"{self.audio_path} holds no sound samples: give the sound with --audio FILE")
        self.corrupt_frames = self.corrupt_audio = 0
        rotation = int(frame.rotation)
        upright = (frame.width, frame.height) if rotation % 180 == 0 else (frame.height, frame.width)
        self.info = MediaInfo(
            width=upright[0],
            height=upright[1],
            rotation=rotation,
            fps=fps,
            duration=duration,
            video_codec=codec,
            audio_codec=audio_codec,
            audio_rate=block.rate,
            audio_channels=block.samples.shape[1],
        )

    def video(self) -> Iterator[VideoFrame]:
        """All pictures in order; a missing timestamp is the previous one plus a frame's duration."""
        last: float | None = None
        begin = clock.perf_counter()
        for frame, zero in self._decode(self.path, "video"):
            if frame.pts is not None and frame.time_base:
                time = float(frame.pts * frame.time_base) - zero
            else:
                time = 0.0 if last is None else last + 1 / self.info.fps
            rgb = np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))
            rgb = np.ascontiguousarray(rgb)
            end = clock.perf_counter()
            record("decode", begin, end)
            yield VideoFrame(rgb=rgb, time=time, ms=1000 * (end - begin))
            begin, last = clock.perf_counter(), time

    def audio(self, *, counted: bool = True) -> Iterator[AudioBlock]:
        """All sound in order; a missing timestamp continues the block before.

        A second reading beside the first one should not be `counted` among the corrupt pieces again.
        """
        expected = 0.0
        for frame, zero in self._decode(self.audio_path, "audio" if counted else "copy"):
            channels = frame.layout.nb_channels
            samples = frame.to_ndarray()
            samples = samples.T if frame.format.is_planar else samples.reshape(-1, channels)
            if not samples.size:
                continue
            known = frame.pts is not None and frame.time_base
            time = float(frame.pts * frame.time_base) - zero if known else expected
            expected = time + len(samples) / frame.sample_rate
            yield AudioBlock(samples=to_float(samples), rate=frame.sample_rate, time=time)

    def events(self, lookahead: float) -> Iterator[Event]:
        """Sound and pictures merged: before a picture at t comes all sound up to t + lookahead seconds."""
        sound = self.audio()
        heard, ended = 0.0, False
        for frame in self.video():
            while not ended and heard < frame.time + lookahead:
                block = next(sound, None)
                if block is None:
                    ended = True
                    yield AudioEnd()
                else:
                    heard = max(heard, block.time + len(block.samples) / block.rate)
                    yield block
            yield frame

    def warnings(self) -> list[str]:
        """Sentences about what could not be read."""
        found = []
        if self.corrupt_frames:
            found.append(f"{self.corrupt_frames} corrupt pieces of video were skipped in {self.path}")
        if self.corrupt_audio:
            found.append(f"{self.corrupt_audio} corrupt pieces of sound were skipped in {self.audio_path}")
        return found

    def _count(self, kind: str) -> None:
        if kind == "video":
            self.corrupt_frames += 1
        elif kind == "audio":
            self.corrupt_audio += 1

    def _decode(self, path: Path, kind: str) -> Iterator[tuple[Any, float]]:
        """Decoded frames of the file's first video or audio stream, each with the container's zero in seconds."""
        av = import_av()
        with open_container(path) as container:
            stream = _video_stream(container) if kind == "video" else audio_stream(container)
            if stream is None:
                return
            stream.thread_type = "AUTO"
            zero = container_zero(container)
            packets = container.demux(stream)
            while True:
                try:
                    packet = next(packets, None)
                    # a reader that broke off has not flushed its decoder
                    frames = stream.codec_context.decode(None) if packet is None else packet.decode()
                except EOFError:
                    return
                except av.FFmpegError:
                    self._count(kind)
                    continue
                for frame in frames:
                    if frame.is_corrupt:
                        self._count(kind)
                    else:
                        yield frame, zero
                if packet is None:
                    return


def open_container(path: Path) -> Any:
    """Open a local file for reading with PyAV; raises InputError when it is missing, empty or no media."""
    av = import_av()
    try:
        if not path.exists():
            raise InputError(f"{path} does not exist: give the path of a video file")
        if not path.is_file():
            raise InputError(f"{path} is not a file: give the path of a video file")
        if path.stat().st_size == 0:
            raise InputError(f"{path} is empty (0 bytes): give a complete video file")
        container = open_input(f"file:{path}", options={"protocol_whitelist": "file"})
    except InputError:
        raise
    except EOFError:
        raise InputError(f"{path} holds neither pictures nor sound: it is zero-length or truncated") from None
    except PermissionError:
        raise InputError(f"{path} can't be read (permission denied): change its permissions") from None
    except (av.FFmpegError, OSError, ValueError) as error:
        raise InputError(
            f"{path} can't be opened as video ({_reason(error)}): it is not a media file, or it is truncated"
        ) from None
    if container.format.name in NOT_MEDIA:
        container.close()
        raise InputError(f"{path} can't be opened as video (it is text): it is not a media file")
    return container


def audio_stream(container: Any) -> Any | None:
    """The first audio stream, or None."""
    return next(iter(container.streams.audio), None)


def container_zero(container: Any) -> float:
    """The time, in seconds of the file's timestamps, that counts as the stream clock's zero.

    Broadcast formats start at an arbitrary time: there it is the start; elsewhere it is the container's zero.
    """
    broadcast = int(container.format.flags) & TS_DISCONT
    return container.start_time / 1e6 if broadcast and container.start_time else 0.0


def _video_stream(container: Any) -> Any | None:
    for stream in container.streams.video:
        if not disposition(stream) & ATTACHED_PICTURE:
            return stream
    return None


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return " ".join(str(text).split())[:120].rstrip(".")
