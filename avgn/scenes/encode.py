"""Writes MP4 files: H.264 and AAC, each encoded by one thread so that the bytes are reproducible."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from avgn.runtime.errors import MissingExtraError
from avgn.runtime.outputs import WholeFile, find_place, write_error
from avgn.scenes.synth import RATE, Wave

FPS = 25
AUDIO_RATE = 2 * RATE
CHUNK_SAMPLES = 1024


def encode_video(path: Path, frames: Iterable[NDArray[np.uint8]], audio: Wave, size: tuple[int, int]) -> None:
    """Encode frames [H, W, 3] uint8 RGB at 25 fps and sound [T] at 22 050 Hz to MP4; size is (width, height).

    Frame i is shown at i / 25 s; the sound becomes 44.1 kHz stereo. The file appears whole or not at all.
    """
    try:
        import av
    except ImportError as error:
        raise MissingExtraError("av", "runtime", error) from None
    file = WholeFile(find_place(path))
    try:
        # FFmpeg opens the file again to move the index to the front, and may misread special characters in its name
        with av.open(f"file:{file.partial}", "w", format="mp4", options={"movflags": "+faststart"}) as container:
            video_stream = container.add_stream("libx264", rate=FPS, options={"preset": "veryfast", "crf": "20"})
            video_stream.width, video_stream.height, video_stream.pix_fmt = *size, "yuv420p"
            video_stream.codec_context.thread_count = 1
            video_stream.codec_context.time_base = Fraction(1, FPS)
            audio_stream = container.add_stream("aac", rate=AUDIO_RATE, layout="stereo")
            audio_stream.codec_context.thread_count = 1
            audio_stream.bit_rate = 160_000
            _interleave(container, video_stream, audio_stream, frames, double_rate(audio))
        file.commit()
    except OSError as error:
        raise write_error(path, error, "video") from None
    finally:
        file.abort()


def double_rate(audio: Wave) -> Wave:
    """Resample [T] from 22 050 to 44 100 Hz: [2 T]."""
    size = cv2.getOptimalDFTSize((len(audio) + 1024) // 2) * 2
    spectrum = np.fft.rfft(audio, size)
    # The Nyquist bin of the shorter transform stands for both signs: it has no counterpart in the longer one.
    spectrum[-1] = 0
    result: Wave = (2 * np.fft.irfft(spectrum, 2 * size)[: 2 * len(audio)]).astype(np.float32)
    return result


def _interleave(
    container: Any, video_stream: Any, audio_stream: Any, frames: Iterable[NDArray[np.uint8]], audio: Wave
) -> None:
    from av import AudioFrame, VideoFrame

    position = 0

    def feed_audio(end: int) -> None:
        nonlocal position
        while position < end:
            part = audio[position : position + CHUNK_SAMPLES]
            frame = AudioFrame.from_ndarray(np.stack([part, part]), format="fltp", layout="stereo")
            frame.sample_rate, frame.time_base, frame.pts = AUDIO_RATE, Fraction(1, AUDIO_RATE), position
            container.mux(audio_stream.encode(frame))
            position += len(part)

    for number, pixels in enumerate(frames):
        shown = VideoFrame.from_ndarray(pixels, format="rgb24")
        shown.pts, shown.time_base = number, Fraction(1, FPS)
        container.mux(video_stream.encode(shown))
        feed_audio(min(len(audio), (number + 1) * AUDIO_RATE // FPS))
    feed_audio(len(audio))
    container.mux(video_stream.encode(None))
    container.mux(audio_stream.encode(None))
