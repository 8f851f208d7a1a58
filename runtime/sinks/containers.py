"""The kinds of video that are written: the suffix of the name decides the container and its codecs."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

from avgn.runtime.errors import InputError
from avgn.runtime.media import import_av
from avgn.runtime.outputs.place import Place
from avgn.runtime.outputs.reasons import shown

TICKS = 90_000
# a recording that is cut off is whole up to its last fragment, cluster
FRAGMENT_SECONDS = 1
LARGE = 1280 * 720
AAC_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350)
MP3_RATES = (48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000)
OPUS_RATES = (48000, 24000, 16000, 12000, 8000)


@dataclass(frozen=True, kw_only=True)
class AudioFormat:
    """How sound is written: encoded by `codec` at one of `rates`, or copied where it is one of `fits` already.

    `keeps_priming`: what encoders put before time zero can be marked; elsewhere it would shift the pictures.
    """

    codec: str
    rates: tuple[int, ...]
    fits: frozenset[str]
    keeps_priming: bool = True

    def rate(self, given: int) -> int:
        """Return the rate nearest to a given one."""
        return min(self.rates, key=lambda known: abs(known - given))


@dataclass(frozen=True, kw_only=True)
class Container:
    """How a kind of video is written.

    `ticks`: times a second that it can tell apart, None where pictures follow each other at one rate. `audio` is None
    where it has none.
    """

    format: str
    codec: str
    audio: AudioFormat | None
    pix_fmt: str = "yuv420p"
    ticks: int | None = TICKS
    options: dict[str, str] = field(default_factory=dict)

    def codec_options(self, pixels: int, crf: int, preset: str | None) -> dict[str, str]:
        """Return the encoder's options for pictures of so many pixels; larger ones are encoded faster."""
        if self.codec == "libx264":
            # in order: FFmpeg ends a hybrid file at the picture that was written last, whenever it is shown
            return {"crf": str(crf), "preset": preset or ("veryfast" if pixels <= LARGE else "ultrafast"), "bf": "0"}
        if self.codec == "libvpx-vp9":
            # its scale of quality is another one
            speed = "7" if pixels <= LARGE else "8"
            return {"crf": str(crf + 11), "b": "0", "deadline": "realtime", "cpu-used": speed, "row-mt": "1"}
        if self.codec == "mpeg4":
            return {"qmin": "2", "qmax": "6"}
        return {}

    def mux_options(self, seekable: bool) -> dict[str, str]:
        """Return the muxer's options: what is written so far can be played, whatever happens to the process."""
        options = {"flush_packets": "1", "max_interleave_delta": str(FRAGMENT_SECONDS * 1_000_000)}
        if self.format not in ("mp4", "mov"):
            return options | self.options
        flags = "frag_keyframe+default_base_moof+delay_moov"
        if not seekable:
            flags += "+empty_moov"
        elif has_hybrid():
            # fragments while it grows, an index like that of any other file in the end
            flags = HYBRID
        else:
            flags += "+empty_moov"
        return options | {"movflags": flags, "frag_duration": str(FRAGMENT_SECONDS * 1_000_000)}

    def time_base(self, fps: Fraction) -> Fraction:
        return 1 / fps if self.ticks is None else Fraction(1, self.ticks)


MATROSKA = {"cluster_time_limit": str(1000 * FRAGMENT_SECONDS)}
AAC_IN_MP4 = AudioFormat(
    codec="aac",
    rates=AAC_RATES,
    fits=frozenset({"aac", "mp3", "mp3float", "opus", "libopus", "ac3", "eac3", "alac"}),
)
MP4 = Container(format="mp4", codec="libx264", audio=AAC_IN_MP4)
MOV = Container(
    format="mov",
    codec="libx264",
    audio=AudioFormat(codec="aac", rates=AAC_RATES, fits=frozenset({"aac", "mp3", "mp3float", "ac3", "eac3", "alac"})),
)
MKV = Container(
    format="matroska",
    codec="libx264",
    audio=AudioFormat(
        codec="aac", rates=AAC_RATES, fits=AAC_IN_MP4.fits | {"vorbis", "libvorbis", "flac"}, keeps_priming=False
    ),
    options=MATROSKA,
)
WEBM = Container(
    format="webm",
    codec="libvpx-vp9",
    audio=AudioFormat(codec="libopus", rates=OPUS_RATES, fits=frozenset({"opus", "libopus", "vorbis", "libvorbis"})),
    options=MATROSKA,
)
AVI = Container(
    format="avi",
    codec="mpeg4",
    audio=AudioFormat(codec="libmp3lame", rates=MP3_RATES, fits=frozenset({"mp3", "mp3float"}), keeps_priming=False),
    ticks=None,
)
GIF = Container(format="gif", codec="gif", audio=None, pix_fmt="pal8", ticks=100)

CONTAINERS = {".mp4": MP4, ".m4v": MP4, ".mkv": MKV, ".webm": WEBM, ".mov": MOV, ".avi": AVI, ".gif": GIF}


def container_of(place: Place) -> Container:
    """Return the kind of video that an output's name asks for; what has no name of its own gets MP4 in fragments.

    Raises InputError for a suffix that is not known.
    """
    suffix = Path(place.name).suffix.lower()
    if place.is_direct and suffix not in CONTAINERS and (not suffix or place.is_stdout or place.descriptor is not None):
        return MP4
    found = CONTAINERS.get(suffix)
    if found is None:
        what = f"the suffix {shown(suffix)}" if suffix else "a name without a suffix"
        raise InputError(
            f"output {shown(place.name)} can't be written as a video ({what} says no container): "
            f"end it with {', '.join(list(CONTAINERS)[:-1])} or {list(CONTAINERS)[-1]}"
        )
    try:
        import_av().Codec(found.codec, "w")
    except ValueError:
        raise InputError(
            f"output {shown(place.name)} can't be written (this PyAV lacks {found.codec}): choose another suffix"
        ) from None
    return found


HYBRID = "frag_keyframe+hybrid_fragmented+delay_moov"
# libavformat of FFmpeg 8: 7.1 has hybrid files as well, but now and then leaves pictures of the last fragment out of
# the index, with the same input in one run and not in the next, so that no trial could tell
WHOLE_HYBRID = 62


@lru_cache(maxsize=1)
def has_hybrid() -> bool:
    """Return whether this FFmpeg can end a fragmented MP4 with an index that knows every picture."""
    av = import_av()
    if av.library_versions.get("libavformat", (0,))[0] < WHOLE_HYBRID:
        return False
    try:
        with av.open(io.BytesIO(), "w", format="mp4", options={"movflags": HYBRID}) as container:
            stream = container.add_stream("mpeg4", rate=25)
            stream.width = stream.height = 16
            # without a picture FFmpeg's hybrid files end in a crash
            frame = av.VideoFrame(16, 16, "yuv420p")
            for packet in [*stream.encode(frame), *stream.encode(None)]:
                container.mux(packet)
    except (av.FFmpegError, OSError, ValueError):
        return False
    return True
