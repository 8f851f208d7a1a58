"""One track of a media file: decoded, with its timestamps counted from the file's first picture or sound."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

from avgn.runtime.av_features import import_av
from avgn.runtime.container import Wanted, decode_frames, open_container
from avgn.runtime.entry import Entry, find_entry, packets_from
from avgn.runtime.errors import InputError
from avgn.runtime.limits import check_frame_size, usable_fps
from avgn.runtime.tracks import codec_of, holds_stills, num_tiles, video_stream

DEFAULT_FPS = 25.0
# pieces that are looked at for the first timestamp
UNSTAMPED = 64
# seconds from the beginning that are decoded sooner than an entry is found
NEAR = 2.0
# demuxers of containers that say only when a picture is to be decoded
WITHOUT_PRESENTATION = {"avi"}
LONGEST_DELAY = Fraction(1, 2)

Choose = Callable[[Any], Any | None]


@dataclass(kw_only=True)
class Track:
    """Where a track lies and how its time counts, all in seconds.

    `wanted`: what messages call the file; `choose(container)` gives the track's stream; `claimed`: where it says it
    ends, or None; `stamp`: its first timestamp; `before`: what is decoded before that one; `zero`: the timestamp that
    is time zero; `start`: the time of `stamp`.
    `delayed_from`: where the first piece belongs in a container that has no times of presentation, else None;
    `decoded_in_order`: its pictures' times are those at which they are decoded.
    """

    path: Path
    wanted: Wanted
    choose: Choose
    claimed: float | None
    delayed_from: Fraction | None = None
    decoded_in_order: bool = False
    stamp: Fraction = field(default_factory=Fraction)
    before: float = 0.0
    zero: Fraction = field(default_factory=Fraction)
    start: float = 0.0
    _entries: dict[float, Entry | None] = field(default_factory=dict)

    @classmethod
    def of(cls, path: Path, container: Any, stream: Any, choose: Choose, wanted: Wanted) -> Track:
        track = cls(path=path, wanted=wanted, choose=choose, claimed=claimed_end(container, stream))
        if container.format.name in WITHOUT_PRESENTATION and stream.start_time is not None:
            track.delayed_from = stream.start_time * Fraction(stream.time_base)
            track.decoded_in_order = stream.type == "video"
        return track

    @property
    def begins(self) -> Fraction:
        """The timestamp of the first piece, whether it has one or not."""
        return self.stamp - self._delay - Fraction(self.before)

    @property
    def _delay(self) -> Fraction:
        """By how much FFmpeg puts pictures too late, who knows only when they are decoded."""
        if self.delayed_from is None or not 0 < self.stamp - self.delayed_from <= LONGEST_DELAY:
            return Fraction(0)
        return self.stamp - self.delayed_from

    def open(self) -> Any:
        """Open the file for another reading."""
        return open_container(self.path, self.wanted)

    def set_zero(self, zero: Fraction) -> None:
        """Let this timestamp be time zero."""
        self.zero, self.start = zero + self._delay, float(self.begins - zero) + self.before

    def decode(self, count: Callable[[], None], entry: Entry | None = None) -> Generator[Any]:
        """Return the track's frames, from an entry on; `count` is called for every corrupt piece."""
        if entry is None:
            return decode_frames(self.open, self.choose, count)
        return decode_frames(self.open, self.choose, count, partial(packets_from, entry=entry))

    def entry(self, latest: float) -> Entry | None:
        """Return where decoding can begin for what is shown from a time of the file on; None: at its beginning."""
        if latest not in self._entries:
            stamp = self.zero + Fraction(latest)
            self._entries[latest] = find_entry(self.open, self.choose, stamp) if latest > NEAR else None
        return self._entries[latest]

    def look_at_first(self, duration: float | None) -> Any | None:
        """Find the first timestamp; returns the first frame or None.

        `duration` of a frame in seconds, None: that of its samples.
        """
        first = None
        with closing(self.decode(lambda: None)) as frames:
            for number, frame in enumerate(frames):
                first = first or frame
                stamp = self._stamp(frame)
                if stamp is not None:
                    self.stamp = stamp
                    return first
                if number == UNSTAMPED:
                    break
                self.before += frame.samples / max(1, frame.sample_rate) if duration is None else duration
        self.before = 0.0
        return first

    def stamp_of(self, piece: Any | None) -> float | None:
        """Return the timestamp of a frame or packet as a time of the file, None where it has none."""
        stamp = None if piece is None else self._stamp(piece)
        return None if stamp is None else float(stamp - self.zero)

    def _stamp(self, piece: Any) -> Fraction | None:
        """Return a piece's timestamp in seconds of the file: of pictures in a container without times of presentation
        the one at which they were decoded, for the other counts them as they lie in the file, B-frames late."""
        stamp = piece.dts if self.decoded_in_order else piece.pts
        return stamp * Fraction(piece.time_base) if stamp is not None and piece.time_base else None

    def content(self, start: float, end: float) -> Iterator[tuple[float, float]]:
        """Yield the spans (first, last) between two times in which the track has something, without decoding it."""
        av = import_av()
        try:
            with self.open() as container:
                stream = self.choose(container)
                if stream is None:
                    return
                container.seek(int((Fraction(start) + self.zero) / stream.time_base), stream=stream)
                for packet in container.demux(stream):
                    first = self.stamp_of(packet)
                    if first is not None and first > end:
                        return
                    if first is not None:
                        yield first, first + float((packet.duration or 0) * stream.time_base)
        except av.FFmpegError:
            return


@dataclass(frozen=True, kw_only=True)
class VideoTrack:
    """A file's pictures before any is decoded: their track, frames a second, width of a pixel and codec."""

    track: Track
    fps: float
    pixel_aspect: float
    codec: str


def open_video(path: Path, way_out: str) -> VideoTrack:
    """Find the pictures of a video file; raises InputError for one without or with too large ones.

    `way_out`: what a message tells to give in place of a file without pictures.
    """
    with open_container(path) as container:
        stream = video_stream(container)
        if stream is None:
            raise InputError(f"{path} has no video: {way_out}")
        check_frame_size(path, stream.codec_context.width, stream.codec_context.height)
        if (tiles := num_tiles(container, stream)) > 1:
            raise InputError(
                f"{path} holds its picture in {tiles} tiles, as phones store it, of which only one would be read: "
                "save it as JPEG or PNG first"
            )
        # a still has no rate, whatever its container says
        rates = () if holds_stills(container) and stream.frames <= 1 else (stream.average_rate, stream.guessed_rate)
        return VideoTrack(
            track=Track.of(path, container, stream, video_stream, "video"),
            fps=usable_fps(*rates, default=DEFAULT_FPS),
            pixel_aspect=float(stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio or 1),
            codec=codec_of(stream),
        )


def no_picture(path: Path, codec: str) -> InputError:
    """What is said of a file none of whose pictures can be decoded."""
    if codec == "webp":
        return InputError(
            f"{path} is an animated WebP, which FFmpeg can't read here, or damaged: save it as GIF or MP4"
        )
    return InputError(f"{path} holds no picture that can be decoded: it is zero-length or damaged")


def claimed_end(container: Any, stream: Any) -> float | None:
    """Return seconds from the file's beginning to where a track says it ends, None where nothing does."""
    zero = (container.start_time or 0) / 1e6
    if stream.duration is not None and stream.time_base:
        return float(((stream.start_time or 0) + stream.duration) * stream.time_base) - zero
    # Matroska's writers note in a tag where a track ends
    hours, _, rest = str(stream.metadata.get("DURATION", "")).partition(":")
    minutes, _, seconds = rest.partition(":")
    try:
        end = 3600 * float(hours) + 60 * float(minutes) + float(seconds)
    except ValueError:
        if container.duration is None or len(container.streams) > 2:
            return None
        end = container.duration / 1e6
    return end - zero if 0 < zero < end else end
