"""The original sound of a video, written beside the new pictures.

Packets are copied where the codec fits the container; anything else is encoded, with gaps filled by silence.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from avgn.runtime.clock import AudioClock
from avgn.runtime.media import AudioBlock, MediaFile, import_av
from avgn.runtime.sinks.containers import AudioFormat

LAYOUTS = {1: "mono", 2: "stereo"}
TOLERANCE = 0.01
LIVE_RATE = 48_000
LIVE_PIECE = 1024


class AudioTrack:
    """Adds the sound of `media` to an output container, piece by piece up to a given time."""

    def __init__(self, media: MediaFile, output: Any, form: AudioFormat) -> None:
        self._output = output
        self._form = form
        self.copied = media.info.audio_codec in form.fits
        self._time = 0.0
        self._pieces = self._copy(media) if self.copied else self._encode(media)
        # the stream must be there before the container's header is written
        next(self._pieces)

    def write_until(self, time: float | None) -> None:
        """Write the sound up to `time` seconds; None: all of it."""
        while time is None or self._time < time:
            reached = next(self._pieces, None)
            if reached is None:
                return
            self._time = max(self._time, reached)

    def _copy(self, media: MediaFile) -> Iterator[float]:
        with media.open_audio() as container:
            source = media.audio_stream(container)
            assert source is not None
            target = self._output.add_stream_from_template(source)
            yield 0.0
            unframed = _without_adts(source)
            base = source.time_base
            last: int | None = None
            # damaged data end the sound
            for packet, time in media.audio_packets(container):
                if packet.dts is None or packet.pts is None:
                    continue
                shift = packet.pts - round(time / base)
                packet.dts -= shift
                packet.pts -= shift
                if last is not None and packet.dts <= last:
                    continue
                last = packet.dts
                end = float((packet.pts + (packet.duration or 0)) * base)
                for piece in unframed(packet):
                    # PyAV 14's filters forget it
                    piece.time_base = base
                    piece.stream = target
                    _mux(self._output, [piece], self._form)
                yield end

    def _encode(self, media: MediaFile) -> Iterator[float]:
        rate = self._form.rate(media.info.audio_rate)
        channels = min(2, media.info.audio_channels)
        target = self._output.add_stream(self._form.codec, rate=rate, layout=LAYOUTS[channels])
        yield 0.0
        position, block_rate = 0, 0
        for block in media.audio(counted=False):
            if not block_rate:
                block_rate = block.rate
            if block.rate != block_rate:
                return
            for samples in _contiguous(block, position):
                _mux(self._output, target.encode(_frame(samples, channels, block.rate, position)), self._form)
                position += len(samples)
            yield position / block.rate
        _mux(self._output, target.encode(None), self._form)


class LiveAudio:
    """The sound of a live source, mono at 48 kHz: it comes from one thread while another writes the pictures.

    `is_expected`: whether sound may come that has not come yet.
    """

    def __init__(self, is_expected: Callable[[], bool] = lambda: False) -> None:
        self._is_expected = is_expected
        self._clock = AudioClock(LIVE_RATE)
        self._lock = threading.Lock()
        self._output: Any = None
        self._form: Any = None
        self._target: Any = None
        self._position = 0

    def push(self, block: AudioBlock) -> None:
        """Take a block; gaps before it become silence."""
        with self._lock:
            self._clock.push(block.samples, block.rate, block.time)
            if self._target is None:
                # pictures may never come
                self._clock.forget(self._clock.end - LIVE_RATE)

    def attach(self, output: Any, form: AudioFormat) -> LiveAudio:
        """Add the stream to an output container, unless no sound has come and none is expected."""
        with self._lock:
            self._output, self._form = output, form
            if self._clock.end or self._is_expected():
                self._target = output.add_stream(form.codec, rate=form.rate(LIVE_RATE), layout="mono")
        return self

    def write_until(self, time: float | None) -> None:
        """Write up to `time` seconds, as far as the sound has come; what is late by over a second is silence."""
        if self._target is None:
            return
        with self._lock:
            here = self._clock.end
            limit = here if time is None else min(round(time * LIVE_RATE), max(here, round((time - 1) * LIVE_RATE)))
            pieces = []
            for first in range(self._position, limit - LIVE_PIECE + 1, LIVE_PIECE):
                pieces.append((first, self._clock.window(first, LIVE_PIECE)))
                self._position = first + LIVE_PIECE
            self._clock.forget(self._position)
        for first, samples in pieces:
            _mux(self._output, self._target.encode(_frame(samples[:, None], 1, LIVE_RATE, first)), self._form)


def _without_adts(source: Any) -> Callable[[Any], list[Any]]:
    """AAC of broadcast streams has a header in every packet, which files have once."""
    codec = source.codec_context
    if codec.name != "aac" or codec.extradata:
        return lambda packet: [packet]
    from av.bitstream import BitStreamFilterContext

    unframe: Callable[[Any], list[Any]] = BitStreamFilterContext("aac_adtstoasc", source).filter
    return unframe


def _mux(output: Any, packets: list[Any], form: AudioFormat) -> None:
    """Write packets, without the encoder's own beginning where the container can't tell it from the sound's."""
    for packet in packets:
        marks_it = form.keeps_priming or packet.stream.codec_context.name in ("opus", "libopus")
        if marks_it or packet.pts is None or packet.pts >= 0:
            output.mux(packet)


def _contiguous(block: AudioBlock, position: int) -> Iterator[np.ndarray[Any, np.dtype[np.float32]]]:
    """Yield the block's samples, with the silence before them or without what overlaps with `position`."""
    samples = block.samples
    jump = round(block.time * block.rate) - position
    if abs(jump) <= TOLERANCE * block.rate:
        jump = 0
    while jump > 0:
        piece = min(jump, block.rate)
        yield np.zeros((piece, samples.shape[1]), np.float32)
        jump -= piece
    rest = samples[min(len(samples), -jump) :]
    # an empty frame is one that FFmpeg has no memory for
    if len(rest):
        yield rest


def _frame(samples: np.ndarray[Any, np.dtype[np.float32]], channels: int, rate: int, position: int) -> Any:
    av = import_av()
    if samples.shape[1] > channels:
        samples = np.repeat(samples.mean(axis=1, keepdims=True), channels, axis=1)
    elif samples.shape[1] < channels:
        samples = np.repeat(samples[:, :1], channels, axis=1)
    # encoders refuse what is not a number
    samples = np.nan_to_num(samples, nan=0.0, posinf=0.0, neginf=0.0)
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples.T), format="fltp", layout=LAYOUTS[channels])
    frame.sample_rate = rate
    frame.pts = position
    frame.time_base = Fraction(1, rate)
    return frame
