"""Network streams (RTSP, UDP with MPEG-TS, HTTP, HLS ...) through PyAV, connected again whenever they are lost."""

from __future__ import annotations

import random
import threading
import time as clock
from collections.abc import Iterator
from typing import Any

from avgn.runtime.audio import to_float
from avgn.runtime.av_features import import_av
from avgn.runtime.container import DECODER_LIMITS
from avgn.runtime.errors import InputError
from avgn.runtime.media import AudioBlock, AudioEnd, VideoFrame, audio_stream
from avgn.runtime.memory import give_back
from avgn.runtime.nvtx import stage
from avgn.runtime.orientation import Turner
from avgn.runtime.sources import LiveEvent, StateChange
from avgn.runtime.sources.address import SCHEMES, is_url, scheme_of, short_reason, without_secrets
from avgn.runtime.sources.opening import open_address
from avgn.runtime.sources.times import JUMP, Times, WallClock
from avgn.runtime.sources.web import RefusedError, Trust
from avgn.runtime.tracks import decodable, video_stream

# seconds: to open a stream, and between two packets of an open one
OPEN_TIMEOUT = {"udp": 3.0, "rtp": 3.0}
READ_TIMEOUT = {"udp": 1.0, "rtp": 1.0, "rtsp": 3.0, "rtsps": 3.0}
LISTEN_SECONDS = "3"
BACKOFF = (0.2, 5.0)
# seconds that a playlist's timestamps may be ahead of or behind the wall clock: whole segments come at once
PLAYLIST_JUMP = 30.0
PLAYLISTS = ("hls", "dash")
# FFmpeg's flag of formats that have no timestamps
NO_STAMPS = 0x80


class UrlSource:
    """A network stream; `events` goes on for ever, through losses, until `close`, or ends after `attempts` failures."""

    def __init__(
        self,
        url: str,
        *,
        attempts: int | None = None,
        listen: bool = False,
        options: dict[str, str] | None = None,
        trust: Trust | None = None,
    ) -> None:
        """`attempts`: failed connections in a row after which the source ends; None: never.

        `listen`: an RTSP camera connects to us instead of us to it. `options`: FFmpeg's. `trust`: what it may lead
        to; by default the host that the address names and no other.

        Raises InputError for an address of another scheme than SCHEMES.
        """
        if not is_url(url):
            raise InputError(f"{url} is no network stream: start it with one of {', '.join(SCHEMES)}://")
        self.url = url
        self.losses = 0
        self.corrupt = 0
        self._attempts = attempts
        self._scheme = scheme_of(url)
        self._listen = listen
        self._options = dict(options or {})
        self._trust = trust or Trust()
        self._closed = threading.Event()
        self.clock = WallClock(clock.monotonic)
        # whether the connection has a sound track; None before the first
        self.has_audio: bool | None = None
        # width of a pixel over its height
        self._aspect = 1.0
        self._turn = Turner()

    @property
    def name(self) -> str:
        return without_secrets(self.url)

    def close(self) -> None:
        self._closed.set()

    def events(self) -> Iterator[LiveEvent]:
        failures, wait = 0, BACKOFF[0]
        while not self._closed.is_set():
            yield StateChange(state="connecting")
            reason, delivered = "", False
            try:
                for event in self._read():
                    if not delivered and not isinstance(event, AudioEnd):
                        delivered, failures, wait = True, 0, BACKOFF[0]
                        yield StateChange(state="live")
                    yield event
                reason = "the stream ended"
            except RefusedError:
                raise
            except Exception as error:
                reason = _reason(error)
            if self._closed.is_set():
                break
            if not delivered:
                failures += 1
                if self._attempts is not None and failures >= self._attempts:
                    yield StateChange(state="ended", reason=reason)
                    return
            self.losses += delivered
            give_back()
            yield StateChange(state="lost", reason=reason)
            # chance keeps many clients of one camera from knocking together
            self._closed.wait(wait * random.uniform(0.7, 1.3))
            wait = min(BACKOFF[1], 2 * wait)
        yield StateChange(state="ended")

    def _read(self) -> Iterator[LiveEvent]:
        """One connection: pictures and sound as they come."""
        av = import_av()
        timeout = (OPEN_TIMEOUT.get(self._scheme, 10.0), READ_TIMEOUT.get(self._scheme, 10.0))
        with open_address(self.url, self._trust, timeout=timeout, options=self._settings()) as container:
            video, audio = video_stream(container), audio_stream(container)
            if audio is not None and not decodable(audio):
                audio = None
            if video is None and audio is None:
                raise InputError(f"{self.name} has neither pictures nor sound")
            self._turn = Turner()
            streams = [stream for stream in (video, audio) if stream is not None]
            self.has_audio = audio is not None
            if video is not None:
                video.codec_context.options = dict(DECODER_LIMITS)
                self._aspect = float(video.sample_aspect_ratio or video.codec_context.sample_aspect_ratio or 1)
            if audio is None:
                yield AudioEnd()
            times = Times(
                self.clock,
                PLAYLIST_JUMP if container.format.name.partition(",")[0] in PLAYLISTS else JUMP,
                has_stamps=_has_stamps(container.format),
            )
            packets = container.demux(*streams)
            while not self._closed.is_set():
                packet = next(packets, None)
                if packet is None:
                    return
                if not packet.size and packet.dts is not None:
                    # the picture before goes on
                    continue
                try:
                    with stage("decode"):
                        frames = packet.decode()
                except (av.FFmpegError, ValueError):
                    # a decoder that can't be opened is a ValueError from PyAV 19 on
                    self.corrupt += 1
                    continue
                for frame in frames:
                    event = self._event(frame, packet.stream.type, times)
                    if event is not None:
                        yield event

    def _event(self, frame: Any, kind: str, times: Times) -> LiveEvent | None:
        if frame.is_corrupt:
            self.corrupt += 1
            return None
        stamp = float(frame.pts * frame.time_base) if frame.pts is not None and frame.time_base else None
        if kind == "video":
            captured = clock.monotonic()
            time = times.frame(stamp)
            with stage("convert") as timer:
                rgb = self._turn(frame, self._aspect)
            return VideoFrame(rgb=rgb, time=time, ms=timer.ms, captured=captured)
        samples = frame.to_ndarray()
        samples = samples.T if frame.format.is_planar else samples.reshape(-1, frame.layout.nb_channels)
        if not samples.size:
            return None
        time = times.audio(stamp, len(samples), frame.sample_rate)
        return AudioBlock(samples=to_float(samples), rate=frame.sample_rate, time=time)

    def _settings(self) -> dict[str, str]:
        # what is read to find the tracks is handed on: without it the first key frame is lost, and all up to the next
        settings = {"probesize": "500000", "analyzeduration": "1000000", "fpsprobesize": "0"}
        if self._scheme in ("rtsp", "rtsps"):
            settings["rtsp_transport"] = "tcp"
            if self._listen:
                # FFmpeg's own default is out of its own range
                settings |= {"rtsp_flags": "listen", "listen_timeout": LISTEN_SECONDS}
        if self._scheme == "rtp":
            # else half a second is waited for pieces that come too late
            settings["reorder_queue_size"] = "0"
        return settings | self._options


def _has_stamps(format: Any) -> bool:
    """Return whether a container's pictures have times: raw video and pictures one after another have none."""
    return not (int(format.flags) & NO_STAMPS or format.name.endswith("_pipe"))


def _reason(error: Exception) -> str:
    if type(error).__name__ in ("ExitError", "TimeoutError"):
        return "nothing came for too long"
    return short_reason(error)
