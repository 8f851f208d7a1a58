"""Says what a media file holds and what of it would be read."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from avgn.runtime.container import open_container
from avgn.runtime.errors import InputError
from avgn.runtime.media import open_media
from avgn.runtime.tracks import ATTACHED_PICTURE, DEFAULT, codec_of, flags_of, language_of


def probe(path: str | os.PathLike[str], audio_track: str | None = None) -> dict[str, Any]:
    """Return the facts of a file: its tracks as it claims them, and under "used" what `avgn localize` would read.

    Times in seconds of the file's own timestamps. "used" is None if the file can't be localized by itself, and
    "problem" says why. Raises InputError for a file that isn't a media file.
    """
    with open_container(Path(path), "media") as container:
        facts: dict[str, Any] = {
            "file": os.fspath(path),
            "format": str(container.format.name),
            "begins": None if container.start_time is None else container.start_time / 1e6,
            "duration": None if container.duration is None else container.duration / 1e6,
            "tracks": _tracks(container),
        }
    try:
        media = open_media(path, audio_track=audio_track)
    except InputError as error:
        return facts | {"used": None, "problem": str(error)}
    with open_container(Path(path)) as container:
        chosen: Any = media.audio_stream(container)
        used = {"audio_track": [stream.index for stream in container.streams.audio].index(chosen.index) + 1}
    return facts | {"used": used | asdict(media.info) | {"begins": media.begins}, "problem": None}


def lines(facts: dict[str, Any]) -> list[str]:
    """Format the facts for people."""
    rows = [f"{facts['file']}: {facts['format']}, {_seconds(facts['duration'])}, begins at {_seconds(facts['begins'])}"]
    rows += [f"  {_describe(track)}" for track in facts["tracks"]]
    used = facts["used"]
    if used is None:
        return [*rows, f"can't be localized: {facts['problem']}"]
    turned = f", turned by {used['rotation']} degrees" if used["rotation"] else ""
    turned += ", mirrored" if used["mirrored"] else ""
    rows.append(f"used: pictures of {used['width']}x{used['height']}{turned}, {used['fps']:g} a second")
    rows.append(
        f"used: sound track {used['audio_track']} of {used['audio_tracks']}, {used['audio_rate']} Hz, "
        f"{used['audio_channels']} channel{'s' if used['audio_channels'] > 1 else ''}"
    )
    rows.append(f"used: time 0 is {used['begins']:.3f} s of the file's timestamps")
    return rows


def _tracks(container: Any) -> list[dict[str, Any]]:
    counts: dict[str, int] = {}
    tracks = []
    for stream in container.streams:
        number = counts[stream.type] = counts.get(stream.type, 0) + 1
        begins = None if stream.start_time is None else float(stream.start_time * stream.time_base)
        duration = None if stream.duration is None else float(stream.duration * stream.time_base)
        track = {"kind": stream.type, "number": number, "codec": codec_of(stream), "language": language_of(stream)}
        track |= {"default": bool(flags_of(stream) & DEFAULT), "begins": begins, "duration": duration}
        if stream.type == "video":
            track |= _video_facts(stream)
        elif stream.type == "audio" and stream.codec_context is not None:
            track |= {"rate": stream.codec_context.sample_rate, "channels": stream.codec_context.layout.nb_channels}
        tracks.append(track)
    return tracks


def _video_facts(stream: Any) -> dict[str, Any]:
    context, aspect = stream.codec_context, stream.sample_aspect_ratio
    rate = stream.average_rate or stream.guessed_rate
    return {
        "width": context.width if context is not None else 0,
        "height": context.height if context is not None else 0,
        "pixel_aspect": float(aspect) if aspect else 1.0,
        "fps": float(rate) if rate else None,
        "cover": bool(flags_of(stream) & ATTACHED_PICTURE),
    }


def _describe(track: dict[str, Any]) -> str:
    parts = [track["codec"]]
    if "width" in track:
        parts.append(f"{track['width']}x{track['height']}")
        if track["pixel_aspect"] != 1:
            parts.append(f"pixels {track['pixel_aspect']:.3f} times as wide as high")
        if track["fps"]:
            parts.append(f"{track['fps']:g} a second")
        if track["cover"]:
            parts.append("a cover")
    if "rate" in track:
        parts += [f"{track['rate']} Hz", f"{track['channels']} channel{'s' if track['channels'] > 1 else ''}"]
    parts += [track["language"]] if track["language"] else []
    parts.append(f"begins at {_seconds(track['begins'])}, {_seconds(track['duration'])}")
    parts += ["default"] if track["default"] else []
    kind = {"audio": "sound", "video": "video"}.get(track["kind"], track["kind"])
    return f"{kind} {track['number']}: {', '.join(parts)}"


def _seconds(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3f} s"
