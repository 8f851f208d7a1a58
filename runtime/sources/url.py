"""Network streams (RTSP, UDP with MPEG-TS, HTTP, HLS ...) through PyAV, connected again whenever they are lost."""

from __future__ import annotations

import logging
import random
import threading
import time as clock
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from avgn.runtime.audio import to_float
from avgn.runtime.av_features import import_av, open_input
from avgn.runtime.errors import InputError
from avgn.runtime.media import AudioBlock, VideoFrame, audio_stream
from avgn.runtime.memory import give_back
from avgn.runtime.nvtx import stage
from avgn.runtime.sources import LiveEvent, StateChange

log = logging.getLogger("avgn.runtime")

SCHEMES = ("rtsp", "rtsps", "udp", "rtp", "srt", "tcp", "http", "https", "rtmp")
# seconds: to open a stream, and between two packets of an open one
OPEN_TIMEOUT = {"udp": 3.0, "rtp": 3.0}
READ_TIMEOUT = {"udp": 1.0, "rtp": 1.0, "rtsp": 3.0, "rtsps": 3.0}
LISTEN_SECONDS = "3"
BACKOFF = (0.2, 5.0)
# seconds that a stream's timestamps may be ahead of or behind the wall clock before they are not believed: playlists
# deliver whole segments at once
JUMP = {"http": 30.0, "https": 30.0}
LIVE_JUMP = 2.0


def is_url(text: str) -> bool:
    """Whether `text` names a network stream that `UrlSource` reads."""
    scheme, mark, _ = text.partition("://")
    return bool(mark) and scheme.lower() in SCHEMES


def without_secrets(url: str) -> str:
    """The address without the user's name, password and query."""
    scheme, mark, rest = url.partition("://")
    host = rest.partition("?")[0]
    user, at, tail = host.rpartition("@")
    return f"{scheme}{mark}{tail if at else host}"


class UrlSource:
    """A network stream; `events` goes on for ever, through losses, until `close`, or ends after `attempts` failures."""

    def __init__(
        self, url: str, *, attempts: int | None = None, listen: bool = False, options: dict[str, str] | None = None
    ) -> None:
        """`attempts`: failed connections in a row after which the source ends; None: never.

        `listen`: an RTSP camera connects to us instead of us to it. `options`: FFmpeg's.

        Raises InputError for an address that is none of SCHEMES.
        """
        if not is_url(url):
            raise InputError(f"{url} is no network stream: start it with one of {', '.join(SCHEMES)}://")
        self.url = url
        self.losses = 0
        self.corrupt = 0
        self._attempts = attempts
        self._scheme = url.partition("://")[0].lower()
        self._listen = listen
        self._options = dict(options or {})
        self._closed = threading.Event()
        self._begin: float | None = None

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
                    if not delivered:
                        delivered, failures, wait = True, 0, BACKOFF[0]
                        yield StateChange(state="live")
                    yield event
                reason = "the stream ended"
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
        with open_input(self.url, timeout=timeout, options=self._settings()) as container:
            video = next(iter(container.streams.video), None)
            sound = audio_stream(container)
            if video is None and sound is None:
                raise InputError(f"{self.name} has neither pictures nor sound")
            streams = [stream for stream in (video, sound) if stream is not None]
            times = _Times(self._elapsed, JUMP.get(self._scheme, LIVE_JUMP))
            packets = container.demux(*streams)
            while not self._closed.is_set():
                packet = next(packets, None)
                if packet is None:
                    return
                try:
                    with stage("decode"):
                        frames = packet.decode()
                except av.FFmpegError:
                    self.corrupt += 1
                    continue
                for frame in frames:
                    event = self._event(frame, packet.stream.type, times)
                    if event is not None:
                        yield event

    def _event(self, frame: Any, kind: str, times: _Times) -> LiveEvent | None:
        if frame.is_corrupt or frame.pts is None or not frame.time_base:
            self.corrupt += frame.is_corrupt
            return None
        time = times.of(float(frame.pts * frame.time_base), kind)
        if kind == "video":
            captured = clock.monotonic()
            with stage("convert") as timer:
                rgb = np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90)))
            return VideoFrame(rgb=rgb, time=time, ms=timer.ms, captured=captured)
        samples = frame.to_ndarray()
        samples = samples.T if frame.format.is_planar else samples.reshape(-1, frame.layout.nb_channels)
        return AudioBlock(samples=to_float(samples), rate=frame.sample_rate, time=time) if samples.size else None

    def _elapsed(self) -> float:
        """Seconds since the very first piece of this source."""
        now = clock.monotonic()
        if self._begin is None:
            self._begin = now
        return now - self._begin

    def _settings(self) -> dict[str, str]:
        settings = {"fflags": "nobuffer", "probesize": "500000", "analyzeduration": "1000000"}
        if self._scheme in ("rtsp", "rtsps"):
            settings["rtsp_transport"] = "tcp"
            if self._listen:
                # FFmpeg's own default is out of its own range
                settings |= {"rtsp_flags": "listen", "listen_timeout": LISTEN_SECONDS}
        # a redirected or crafted playlist must not read local files
        settings["protocol_whitelist"] = "http,https,tcp,tls,crypto,udp,rtp,rtsp,srt,rtmp"
        return settings | self._options


class _Times:
    """Puts a connection's timestamps on the source's clock: its first one is the moment it came."""

    def __init__(self, elapsed: Callable[[], float], jump: float = LIVE_JUMP) -> None:
        self._elapsed = elapsed
        self._jump = jump
        # the newest first: pieces from before a jump still come after it, out of the decoder
        self._offsets: list[float] = []
        self._last: dict[str, float] = {}

    def of(self, stamp: float, kind: str) -> float:
        """The time of a piece in seconds; a jump of the stream's own clock is taken out."""
        now = self._elapsed()
        if not self._offsets:
            self._offsets = [now - stamp]
        time = next((stamp + offset for offset in self._offsets if abs(stamp + offset - now) < self._jump), None)
        if time is None:
            log.warning("the stream's clock jumped by %.1f s: it is set anew", stamp + self._offsets[0] - now)
            self._offsets = [now - stamp, self._offsets[0]]
            time = now
        # pictures never run backwards; sound that does is dropped where it was already heard
        self._last[kind] = max(time, self._last.get(kind, time))
        return self._last[kind] if kind == "video" else time


def _reason(error: Exception) -> str:
    if type(error).__name__ in ("ExitError", "TimeoutError"):
        return "nothing came for too long"
    text = getattr(error, "strerror", None) or str(error)
    return " ".join(str(text).split())[:120].rstrip(".")
