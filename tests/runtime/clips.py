"""Real encoded media for the tests: coloured squares that sound, in many containers and codecs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from avgn.runtime.arrays import Floats, Pixels
from tests.runtime.graphs import COLORS, TONES

TICKS = 90000


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Which classes (0 red, 1 green, 2 blue) are seen where (centre x, y in 0..1) and which sound."""

    seen: dict[int, tuple[float, float]] = field(default_factory=dict)
    heard: tuple[int, ...] = ()

    def frame(self, height: int = 180, width: int = 240) -> Pixels:
        """A grey picture [H, W, 3] with a square for each class seen."""
        rgb = np.full((height, width, 3), 110, np.uint8)
        half = height // 6
        for index, (x, y) in self.seen.items():
            row, column = round(y * height), round(x * width)
            rgb[max(0, row - half) : row + half, max(0, column - half) : column + half] = COLORS[index]
        return rgb

    def sound(self, seconds: float, rate: int, channels: int = 1) -> Floats:
        """The tones [T, C] of the classes heard."""
        time = np.arange(round(seconds * rate)) / rate
        mono = sum((0.2 * np.sin(2 * np.pi * TONES[index] * time) for index in self.heard), np.zeros(len(time)))
        return np.repeat(mono[:, None], channels, axis=1).astype(np.float32)


def write_clip(
    path: Path,
    frames: Sequence[Pixels],
    times: Sequence[float],
    sound: Floats | None,
    rate: int = 44100,
    *,
    video_codec: str = "libx264",
    audio_codec: str = "aac",
    layout: str = "",
    sound_start: float = 0.0,
    gap: tuple[float, float] | None = None,
    fps: int = 30,
    ticks: int = TICKS,
) -> Path:
    """Encode frames at their times with sound [T, C]; `gap` (from, to) leaves that span of sound out."""
    pixel_format = {"mjpeg": "yuvj420p"}.get(video_codec, "yuv420p")
    with av.open(str(path), "w") as container:
        video: Any = container.add_stream(video_codec, rate=fps)
        video.height, video.width, video.pix_fmt = *frames[0].shape[:2], pixel_format
        if ticks:
            video.codec_context.time_base = Fraction(1, ticks)
        if video_codec == "libx264":
            video.options = {"preset": "ultrafast", "crf": "18", "g": "12"}
        if video_codec == "libvpx-vp9":
            video.options = {"deadline": "realtime", "cpu-used": "8", "crf": "20", "b": "0"}
        audio: Any = None
        if sound is not None:
            layout = layout or {1: "mono", 2: "stereo", 6: "5.1"}[sound.shape[1]]
            audio = container.add_stream(audio_codec, rate=rate, layout=layout)
        packets = []
        for rgb, time in zip(frames, times, strict=True):
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            frame.pts = round(time * (ticks or fps))
            frame.time_base = Fraction(1, ticks or fps)
            packets += video.encode(frame)
        packets += video.encode(None)
        if audio is not None and sound is not None:
            packets += _encode_sound(audio, sound, rate, layout, sound_start, gap)
        packets.sort(key=lambda packet: float(packet.dts * packet.time_base))
        for packet in packets:
            container.mux(packet)
    return path


def _encode_sound(
    stream: Any, sound: Floats, rate: int, layout: str, start: float, gap: tuple[float, float] | None
) -> list[Any]:
    packets: list[Any] = []
    block = 960
    for first in range(0, len(sound), block):
        samples = np.ascontiguousarray(sound[first : first + block].T)
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, first, Fraction(1, rate)
        packets += stream.encode(frame)
    packets += stream.encode(None)
    kept = []
    for packet in packets:
        time = float(packet.pts * packet.time_base)
        if gap is not None and gap[0] <= time < gap[1]:
            continue
        packet.pts += round(start / packet.time_base)
        packet.dts += round(start / packet.time_base)
        kept.append(packet)
    return kept


def still_clip(path: Path, scene: Scene, seconds: float = 2.0, fps: int = 30, rate: int = 44100, **how: Any) -> Path:
    """A clip of one scene that does not change."""
    times = [index / fps for index in range(round(seconds * fps))]
    size = how.pop("size", (180, 240))
    sound = scene.sound(seconds, rate, how.pop("channels", 1))
    return write_clip(path, [scene.frame(*size)] * len(times), times, sound, rate, fps=fps, **how)


def read_video(path: Path) -> tuple[list[Pixels], list[float], float]:
    """All frames of a file with their times, and the seconds of its sound, by a reader of its own."""
    with av.open(str(path)) as container:
        frames = [
            (frame.to_ndarray(format="rgb24"), float(frame.pts * frame.time_base))
            for frame in container.decode(container.streams.video[0])
        ]
    seconds = 0.0
    with av.open(str(path)) as container:
        if container.streams.audio:
            for block in container.decode(container.streams.audio[0]):
                seconds = max(seconds, float(block.pts * block.time_base) + block.samples / block.sample_rate)
    return [rgb for rgb, _ in frames], [time for _, time in frames], seconds


def rewrite(source: Path, target: Path, stamp: Callable[[str, float, int], float]) -> Path:
    """Copy a file's packets with other times: stamp(kind, seconds, number within the track)."""
    with av.open(str(source)) as reader, av.open(str(target), "w") as writer:
        streams = {}
        for stream in (reader.streams.video[0], reader.streams.audio[0]):
            streams[stream.index] = writer.add_stream_from_template(stream)
        numbers: dict[int, int] = {}
        for packet in reader.demux():
            if packet.dts is None or packet.pts is None:
                continue
            number = numbers[packet.stream.index] = numbers.get(packet.stream.index, -1) + 1
            base: Fraction = packet.time_base
            at = stamp(packet.stream.type, float(packet.pts * base), number)
            shift = round(at / base) - packet.pts
            packet.pts += shift
            packet.dts += shift
            packet.stream = streams[packet.stream.index]
            writer.mux_one(packet)
    return target
