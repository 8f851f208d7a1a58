"""Opens addresses, and local playlists that may be followed, with PyAV and within what they may lead to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from avgn.runtime.av_features import import_av, open_input
from avgn.runtime.container import DECODER_LIMITS
from avgn.runtime.followers import self_contained
from avgn.runtime.sources.address import ALL_PROTOCOLS, PROTOCOLS, scheme_of
from avgn.runtime.sources.web import WEB, Opener, Trust, web_options

# demuxers that belong to a scheme itself, or whose every file goes through the opener
OWN = {"rtsp": ("rtsp",), "rtsps": ("rtsp",), "rtp": ("rtp",), "http": ("hls", "dash"), "https": ("hls", "dash")}


def open_address(url: str, trust: Trust, *, timeout: tuple[float, float], options: dict[str, str]) -> Any:
    """Open an address for reading; `timeout` in seconds to open it and between two packets.

    Raises RefusedError when it leads to what `trust` doesn't allow, and what PyAV raises.
    """
    scheme = scheme_of(url)
    settings = {**self_contained(*OWN.get(scheme, ())), **DECODER_LIMITS, **options}
    if scheme not in WEB:
        if trust.follow:
            del settings["format_whitelist"]
        settings = {"protocol_whitelist": ALL_PROTOCOLS if trust.follow else PROTOCOLS[scheme], **settings}
        return open_input(url, timeout=timeout, options=settings)
    opener = Opener(url, trust, timeout[0])
    try:
        return open_input(url, timeout=timeout, io_open=opener, options={**web_options(), **settings})
    except (import_av().FFmpegError, OSError, ValueError):
        if opener.refused is not None:
            raise opener.refused from None
        raise


def open_followed(playlist: Path) -> Any:
    """Open a local playlist with the local files that it names, and nothing on any network."""
    options = {"protocol_whitelist": "file,crypto,data", "allowed_extensions": "ALL", **DECODER_LIMITS}
    return open_input(f"file:{playlist}", options=options)
