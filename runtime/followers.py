"""Which of FFmpeg's formats name other files or addresses, and how one keeps FFmpeg from following them.

A playlist, a script or a session description is a few lines of text under any suffix; what it names is read in its
place. Media from strangers are therefore opened with a list of the formats that hold everything themselves.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from avgn.runtime.av_features import import_av
from avgn.runtime.regular import open_regular

# demuxers that open what their input names, or files with names like its own
_FOLLOWERS = (
    "hls applehttp dash concat concatf imf webm_dash_manifest sdp rtsp rtp sap mlv vobsub avisynth vapoursynth "
    "lavfi dvdvideo bluray libgme mms libcdio"
)
FOLLOWERS = frozenset(_FOLLOWERS.split())
# demuxers of devices
_DEVICES = (
    "alsa oss pulse jack sndio v4l2 video4linux2,v4l2 fbdev kmsgrab x11grab xcbgrab decklink iec61883 openal dshow "
    "gdigrab vfwcap avfoundation android_camera caca sdl2"
)
DEVICES = frozenset(_DEVICES.split())
# how such texts begin
MARKS = (b"#EXTM3U", b"ffconcat", b"v=0", b"[playlist]", b"<smil", b"<asx", b"# VobSub")
LOOK = 4096
_VIDEO = "give the media itself, or use avgn localize --follow if you know who wrote it"
WAYS_OUT = {"video": _VIDEO, "media": _VIDEO, "sound": "give the sound itself"}


def self_contained(*besides: str) -> dict[str, str]:
    """FFmpeg's options with which formats that name other files are refused, but those of `besides`."""
    # without it %d and * in a picture's name stand for others
    return {"format_whitelist": ",".join(sorted({*_formats(), *besides})), "pattern_type": "none"}


@lru_cache(maxsize=1)
def _formats() -> tuple[str, ...]:
    names = import_av().formats_available
    held = (name for name in names if name not in DEVICES and not FOLLOWERS.intersection(name.split(",")))
    return tuple(sorted(held))


def is_follower(path: Path) -> bool:
    """Return whether a file is a text that names others; False for what can't be read."""
    try:
        with open_regular(path) as file:
            head = file.read(LOOK)
    except OSError:
        return False
    return is_following(head)


def is_following(head: bytes) -> bool:
    """Return whether what begins so is a text that names other files."""
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    return text.startswith(MARKS) or (text.startswith(b"<") and (b"<MPD" in text or b"<smil" in text))
