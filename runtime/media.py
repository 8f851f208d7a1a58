"""Video files as frames and sound with times, in whatever container and codec PyAV reads.

Times count from the first picture or sound. Sound and pictures are read by two independent readers, so that memory
stays bounded however the file is interleaved. Corrupt pieces are skipped, counted and reported.
"""

from __future__ import annotations

import os
import time as clock
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avgn.runtime.arrays import Floats
from avgn.runtime.audio import to_float
from avgn.runtime.av_features import import_av
from avgn.runtime.container import Wanted, open_container
from avgn.runtime.errors import InputError
from avgn.runtime.limits import MAX_OFFSET, check_audio
from avgn.runtime.orientation import Turner, orientation_of, shape_of
from avgn.runtime.pieces import AudioBlock, AudioEnd, Event, VideoFrame
from avgn.runtime.timeline import Peekable, Placer, Timeline
from avgn.runtime.trace import record
from avgn.runtime.track import Track, no_picture, open_video
from avgn.runtime.tracks import audio_stream, codec_of, decodable

__all__ = [
    "AudioBlock",
    "AudioEnd",
    "Event",
    "MediaFile",
    "MediaInfo",
    "VideoFrame",
    "audio_stream",
    "import_av",
    "open_container",
    "open_media",
]

# seconds by which sound must be longer than the pictures for the last one to be held: codecs pad their last block
PADDING = 0.3
HELD_FPS = 10.0
# a sound that stays below is silent: what dither and codecs leave of nothing
SILENT_PEAK = 2.0**-13


@dataclass(frozen=True, kw_only=True)
class MediaInfo:
    """What a file is when it is read.

    Sizes are those of the upright picture with square pixels; `rotation` is in degrees counter-clockwise, after the
    picture was mirrored left to right if `mirrored`; `duration` in seconds as the file claims, or None.
    """

    width: int
    height: int
    rotation: int
    mirrored: bool
    pixel_aspect: float
    fps: float
    duration: float | None
    video_codec: str
    audio_codec: str
    audio_rate: int
    audio_channels: int
    audio_tracks: int


def open_media(
    path: str | os.PathLike[str],
    audio: str | os.PathLike[str] | None = None,
    *,
    audio_track: str | int | None = None,
) -> MediaFile:
    """Open a video file, with its own sound or that of the file `audio`, and decode the first piece of each.

    `audio_track`: which of several sound tracks, by number from 1 or by language; default the one that the file marks
    as its default. Raises InputError, one sentence with the way out, for files that can't be used.
    """
    return MediaFile(Path(path), None if audio is None else Path(audio), audio_track)


class MediaFile:
    """A video with sound that can be read any number of times; `corrupt_frames` counts over all readings.

    `frames_from`, `audio_from`: seconds before which nothing is needed: what lies there need not be decoded.
    `held_until`: the end of sound that went on after the pictures in the last reading of `events`, in seconds, else 0.
    """

    frames_from = 0.0
    audio_from = 0.0

    def __init__(self, path: Path, audio: Path | None = None, audio_track: str | int | None = None) -> None:
        self.path = path
        self.audio_path = audio or path
        self.audio_track = audio_track
        self.corrupt_frames = 0
        self.corrupt_audio = 0
        self.held_until = 0.0
        self._unbelieved: list[str] = []
        found = open_video(path, "give a video file (a sound file goes to --audio)")
        self._video, fps, aspect = found.track, found.fps, found.pixel_aspect
        # a video's own sound is looked for in a video
        wanted: Wanted = "video" if audio is None else "sound"
        way_out = "give the sound with --audio FILE" if audio is None else "give another file to --audio"
        with open_container(self.audio_path, wanted) as container:
            chosen = self.audio_stream(container)
            if chosen is None:
                raise InputError(f"{self.audio_path} has no sound: {way_out}")
            if not decodable(chosen):
                raise InputError(f"{self.audio_path} has sound in a format that FFmpeg can't decode here: {way_out}")
            self._audio = Track.of(self.audio_path, container, chosen, self.audio_stream, wanted)
            audio_tracks = len(container.streams.audio)
            audio_codec = codec_of(chosen)
        frame, block = self._video.look_at_first(1 / fps), self._audio.look_at_first(None)
        if frame is None:
            raise no_picture(path, found.codec)
        if block is None:
            raise InputError(f"{self.audio_path} holds no sound samples: {way_out}")
        check_audio(self.audio_path, block.sample_rate, block.layout.nb_channels)
        # of the file, whatever a part of it shows
        self._frame_seconds = 1 / fps
        self.timeline = Timeline()
        self._set_zero()
        self.corrupt_frames = self.corrupt_audio = 0
        how = orientation_of(frame)
        shown = shape_of(frame.width, frame.height, aspect)
        self.info = MediaInfo(
            width=shown[1] if how.transposed else shown[0],
            height=shown[0] if how.transposed else shown[1],
            rotation=how.rotation,
            mirrored=how.mirrored,
            pixel_aspect=aspect,
            fps=fps,
            duration=self._claimed_duration(),
            video_codec=found.codec,
            audio_codec=audio_codec,
            audio_rate=block.sample_rate,
            audio_channels=block.layout.nb_channels,
            audio_tracks=audio_tracks,
        )

    @property
    def begins(self) -> float:
        """Time zero in seconds of the pictures' own timestamps."""
        return float(self._video.zero)

    def video(self) -> Iterator[VideoFrame]:
        """Yield all pictures in order; a missing timestamp is the previous one plus a frame's duration."""
        frames, placer = self._read(self._video, self._audio, self._count_frame, self.frames_from)
        turn, last = Turner(), 0.0
        begin = clock.perf_counter()
        for frame in frames:
            stamp = self._video.stamp_of(frame)
            time = placer.place(stamp, self._frame_seconds, lambda: self._video.stamp_of(frames.peek()))
            # never backwards, whatever a file says
            last = max(last, time)
            rgb = turn(frame, self.info.pixel_aspect)
            end = clock.perf_counter()
            record("decode", begin, end)
            yield VideoFrame(rgb=rgb, time=last, ms=1000 * (end - begin))
            begin = clock.perf_counter()

    def audio(self, *, counted: bool = True) -> Iterator[AudioBlock]:
        """Yield all sound in order; a missing timestamp continues the block before.

        A second reading beside the first one should not be `counted` among the corrupt pieces again.
        """
        count = self._count_audio if counted else _count_nothing
        frames, placer = self._read(self._audio, self._video, count, self.audio_from)
        for frame in frames:
            try:
                check_audio(self.audio_path, frame.sample_rate, frame.layout.nb_channels)
            except InputError:
                count()
                continue
            samples = _samples(frame)
            if not samples.size:
                continue
            stamp, duration = self._audio.stamp_of(frame), len(samples) / frame.sample_rate
            time = placer.place(stamp, duration, lambda: self._audio.stamp_of(frames.peek()))
            yield AudioBlock(samples=samples, rate=frame.sample_rate, time=time)

    def events(self, lookahead: float) -> Iterator[Event]:
        """Sound and pictures merged: before a picture at t comes all sound up to t + lookahead seconds.

        Where the sound is longer than the pictures, the last one is held to its end.
        """
        blocks = self.audio()
        heard, ended = 0.0, False
        frame: VideoFrame | None = None
        for frame in self.video():
            while not ended and heard < frame.time + lookahead:
                block = next(blocks, None)
                if block is None:
                    ended = True
                    yield AudioEnd()
                else:
                    heard = max(heard, block.time + len(block.samples) / block.rate)
                    yield block
            yield frame
        if frame is not None:
            yield from self._hold(frame, blocks, heard, ended, lookahead)

    def _hold(
        self, frame: VideoFrame, blocks: Iterator[AudioBlock], heard: float, ended: bool, lookahead: float
    ) -> Iterator[Event]:
        """Yield the rest of the sound, with the last picture for as long as it lasts; `held_until` says how long
        that was."""
        step = 1 / min(self.info.fps, HELD_FPS)
        number, begin = 0, frame.time + 1 / self.info.fps
        while True:
            until = heard if ended else heard - lookahead
            while heard > begin + PADDING and begin + number * step < until - 1e-6:
                yield VideoFrame(rgb=frame.rgb, time=begin + number * step)
                number += 1
            if ended:
                self.held_until = heard if number else 0.0
                return
            block = next(blocks, None)
            if block is None:
                ended = True
                yield AudioEnd()
            else:
                heard = max(heard, block.time + len(block.samples) / block.rate)
                yield block

    def open_audio(self) -> Any:
        """Open the file that the sound is taken from for another reading."""
        return self._audio.open()

    def audio_stream(self, container: Any) -> Any | None:
        """Return the track of an opened container that the sound is taken from."""
        return audio_stream(container, self.audio_track)

    def audio_packets(self, container: Any) -> Iterator[tuple[Any, float]]:
        """Yield the sound's packets as they lie in the file, each with its time in seconds, as `audio` would give it.

        Ends where the container is damaged.
        """
        av = import_av()
        stream: Any = self.audio_stream(container)
        placer = self._placer(self._audio, self._video)
        packets = Peekable(packet for packet in container.demux(stream) if packet.size)
        try:
            for packet in packets:
                stamp, duration = self._audio.stamp_of(packet), float((packet.duration or 0) * stream.time_base)
                yield packet, placer.place(stamp, duration, lambda: self._audio.stamp_of(packets.peek()))
        except av.FFmpegError:
            return

    def warnings(self) -> list[str]:
        """Sentences about what could not be read, or not as the file says."""
        found = list(self._unbelieved)
        if self.corrupt_frames:
            found.append(f"{self.corrupt_frames} corrupt pieces of video were skipped in {self.path}")
        if self.corrupt_audio:
            found.append(f"{self.corrupt_audio} corrupt pieces of sound were skipped in {self.audio_path}")
        gaps = self.timeline.gaps
        for start, end in gaps[:3]:
            found.append(
                f"{self.path} has neither pictures nor sound for {end - start:.1f} s after {start:.1f} s: "
                "that time is left out"
            )
        if len(gaps) > 3:
            found.append(f"{self.path} has {len(gaps) - 3} more such gaps")
        return found

    def end_warnings(self, seconds: float) -> list[str]:
        """Return a sentence about a file that ended after `seconds`, when it says that it is longer."""
        if self.info.duration is None:
            return []
        claimed = self.info.duration - sum(end - start for start, end in self.timeline.gaps)
        short = seconds < claimed - 1.0
        return [f"{self.path} ends after {seconds:.1f} s, it should last {claimed:.1f} s"] if short else []

    def audio_warnings(self, peak: float) -> list[str]:
        """Sentences about a sound whose largest sample was `peak`: one when it is silent, and what else there is."""
        if peak > SILENT_PEAK:
            return []
        others = self.info.audio_tracks - 1
        if not others:
            return [f"the sound of {self.audio_path} is silent: give another sound with --audio FILE"]
        tracks = "another track" if others == 1 else f"one of {others} other tracks"
        return [
            f"the sound of {self.audio_path} is silent in the track that was read: choose {tracks} with "
            "--audio-track (avgn probe lists them)"
        ]

    def _set_zero(self) -> None:
        """Let time zero be the first picture or sound, of each file where there are two."""
        firsts = (self._video.begins, self._audio.begins)
        apart = abs(float(firsts[0] - firsts[1]))
        together = self.path == self.audio_path and apart <= MAX_OFFSET
        self._video.set_zero(min(firsts) if together else firsts[0])
        self._audio.set_zero(min(firsts) if together else firsts[1])
        if self.path == self.audio_path and not together:
            self._unbelieved.append(
                f"sound and pictures of {self.path} begin {apart:.0f} s apart: both are taken from their beginning"
            )

    def _claimed_duration(self) -> float | None:
        """Return seconds that the file says it lasts, from its first picture or sound to the end of the longer of
        both."""
        tracks = (self._video, self._audio) if self.path == self.audio_path else (self._video,)
        claims = [track.claimed for track in tracks]
        known = [claim for claim in claims if claim is not None]
        return max(known) if len(known) == len(claims) else None

    def _read(
        self, track: Track, other: Track, count: Callable[[], None], begin: float
    ) -> tuple[Peekable[Any], Placer]:
        """Return the frames of a track that a reader from `begin` seconds on needs, and what gives them their times."""
        entry = track.entry(begin)
        if entry is None:
            return Peekable(track.decode(count)), self._placer(track, other)
        start = float(entry.stamp - track.zero)
        return Peekable(track.decode(count, entry)), Placer(self.timeline, start, other.content)

    def _placer(self, track: Track, other: Track) -> Placer:
        return Placer(self.timeline, track.start - track.before, other.content)

    def _count_frame(self) -> None:
        self.corrupt_frames += 1

    def _count_audio(self) -> None:
        self.corrupt_audio += 1


def _samples(frame: Any) -> Floats:
    """Return a decoded frame's sound [T, C] float32."""
    samples = frame.to_ndarray()
    return to_float(samples.T if frame.format.is_planar else samples.reshape(-1, frame.layout.nb_channels))


def _count_nothing() -> None:
    """For readings beside the first."""
