"""Which of a file's tracks are read, as its flags and the user say."""

from __future__ import annotations

from typing import Any

from avgn.runtime.av_features import disposition
from avgn.runtime.errors import InputError

# FFmpeg's flags of a track
DEFAULT = 1
ATTACHED_PICTURE = 1024
# brands of containers that hold stills, or short sequences of them
STILLS = frozenset(("avif", "avis", "heic", "heix", "heim", "heis", "hevc", "hevx", "mif1", "msf1"))
# two letters as people write them, three as files do: some languages have two such names
LANGUAGES = {
    "en": ("eng",),
    "de": ("ger", "deu"),
    "fr": ("fre", "fra"),
    "es": ("spa",),
    "it": ("ita",),
    "pt": ("por",),
    "nl": ("dut", "nld"),
    "pl": ("pol",),
    "ru": ("rus",),
    "uk": ("ukr",),
    "cs": ("cze", "ces"),
    "sv": ("swe",),
    "no": ("nor",),
    "da": ("dan",),
    "fi": ("fin",),
    "el": ("gre", "ell"),
    "tr": ("tur",),
    "ar": ("ara",),
    "he": ("heb",),
    "hi": ("hin",),
    "zh": ("chi", "zho"),
    "ja": ("jpn",),
    "ko": ("kor",),
}


def flags_of(stream: Any) -> int:
    """FFmpeg's flags of a track, 0 where this PyAV does not tell them."""
    return disposition(stream) if hasattr(stream, "disposition") else 0


def video_stream(container: Any) -> Any | None:
    """Return the default video track that is no cover picture, else the first, or None; of a sequence of stills its
    track, and not the still that stands for it."""
    streams = [s for s in container.streams.video if not flags_of(s) & ATTACHED_PICTURE and decodable(s)]
    moving = [stream for stream in streams if stream.frames > 1] if holds_stills(container) else []
    return _preferred(container, "video", moving or streams)


def holds_stills(container: Any) -> bool:
    """Return whether a container is one of stills: HEIC or AVIF."""
    return str(container.metadata.get("major_brand", "")) in STILLS


def num_tiles(container: Any, chosen: Any) -> int:
    """Return of how many pictures of one size the chosen still is one: phones store a photograph in tiles."""
    if not holds_stills(container) or chosen.frames > 1:
        return 1
    size = (chosen.codec_context.width, chosen.codec_context.height)
    return sum(
        1
        for stream in container.streams.video
        if decodable(stream) and (stream.codec_context.width, stream.codec_context.height) == size
    )


def audio_stream(container: Any, track: str | int | None = None) -> Any | None:
    """Return the sound track that is read, or None where there is none: the default one, else the first that can be
    decoded.

    `track`: its number among the sound tracks, from 1, or its language, as in "2", "eng" or "en". Raises InputError
    when there is no such track.
    """
    streams = list(container.streams.audio)
    if track is not None and streams:
        return _asked_for(container, streams, str(track).strip())
    return _preferred(container, "audio", [stream for stream in streams if decodable(stream)] or streams)


def decodable(stream: Any) -> bool:
    """Return whether this FFmpeg has a decoder for the track."""
    return stream.codec_context is not None


def describe(streams: list[Any]) -> str:
    """Return the sound tracks for a message: "1 (aac, eng), 2 (opus)"."""
    return ", ".join(
        f"{number} ({', '.join(part for part in (codec_of(stream), language_of(stream)) if part)})"
        for number, stream in enumerate(streams, start=1)
    )


def codec_of(stream: Any) -> str:
    """Return the codec's name, "unknown" where this FFmpeg has no decoder for it."""
    return str(stream.codec_context.name) if decodable(stream) else "unknown"


def language_of(stream: Any) -> str:
    """Return the language that a track is marked with, or nothing."""
    # a file's texts must not reach a terminal as they are
    language = "".join(c for c in str(stream.metadata.get("language", "")).lower() if c.isalnum() or c == "-")[:16]
    return "" if language == "und" else language


def _preferred(container: Any, kind: str, streams: list[Any]) -> Any | None:
    if not streams:
        return None
    if not hasattr(streams[0], "disposition"):
        # FFmpeg's own choice, which looks at the flags
        best = container.streams.best(kind)
        return best if best in streams else streams[0]
    return next((stream for stream in streams if flags_of(stream) & DEFAULT), streams[0])


def _asked_for(container: Any, streams: list[Any], track: str) -> Any:
    if track.isdigit():
        if 1 <= int(track) <= len(streams):
            return streams[int(track) - 1]
    else:
        wanted = {track.lower().partition("-")[0]}
        wanted |= {name for short in list(wanted) for name in LANGUAGES.get(short, ())}
        wanted |= {name for names in LANGUAGES.values() if wanted & set(names) for name in names}
        matching = [stream for stream in streams if language_of(stream).partition("-")[0] in wanted]
        if matching:
            return _preferred(container, "audio", matching)
    name = str(container.name).removeprefix("file:")
    raise InputError(f"{name} has no sound track {track}: choose one of {describe(streams)}")
