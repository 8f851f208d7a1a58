"""Sound files with a codec in them, whole and damaged."""

from __future__ import annotations

from pathlib import Path

import av

from tests.runtime.ffmpeg import ffmpeg

CODED = {"a.m4a": "aac", "a.mp3": "libmp3lame", "adpcm.wav": "adpcm_ima_wav", "mp3.wav": "libmp3lame"}


def coded(path: Path) -> Path:
    """Three seconds of a tone that rises, with a codec in it."""
    sound = "aevalsrc=0.5*sin(2*PI*(200*t+300*t*t)):s=48000:d=3"
    ffmpeg("-f", "lavfi", "-i", sound, "-ac", 1, "-c:a", CODED[path.name], path)
    return path


def damage(path: Path, *numbers: int) -> Path:
    """Overwrite some packets with other bytes; those of -1 are all of them."""
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(audio=0) if packet.size]
    data = bytearray(path.read_bytes())
    for at, size in packets if -1 in numbers else [packets[number] for number in numbers]:
        data[at : at + size] = b"\xa5" * size
    path.write_bytes(data)
    return path
