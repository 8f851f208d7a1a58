"""What an address holds: something that goes on for ever, or something finished that is read to its end.

`look_at` decides that, for every command; `--live` and `--no-live` overrule it.
"""

from __future__ import annotations

import http.client
import re
import urllib.parse
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from avgn.runtime.errors import InputError
from avgn.runtime.sources.web import CLOSED, WEB, Trust, Web, check_address, host_of
from avgn.runtime.texts import without_passwords

LIVE_SCHEMES = ("rtsp", "rtsps", "udp", "rtp", "srt", "tcp", "rtmp")
SCHEMES = (*LIVE_SCHEMES, *WEB)
# what FFmpeg may open for an address of each scheme; http(s) it opens through `web.Opener`
PROTOCOLS = {
    "rtsp": "rtsp,rtp,udp,tcp",
    "rtsps": "rtsp,rtsps,rtp,srtp,udp,tcp,tls",
    "udp": "udp",
    "rtp": "rtp,udp",
    "srt": "srt",
    "tcp": "tcp",
    "rtmp": "rtmp,tcp",
}
# schemes of addresses at which this machine may listen
WITHOUT_HOST = ("udp", "rtp", "tcp", "srt")
SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
# a host, and a port that is one
PORT = re.compile(r"(\[[^]]*\]|[^:]*)(:\d*)?")
# with --follow; never local files
ALL_PROTOCOLS = "http,https,tcp,tls,crypto,udp,rtp,rtsp,srt,rtmp"

# seconds: until a web server has said what it has
ASK_TIMEOUT = 5.0
PLAYLIST_TYPES = ("mpegurl", "dash+xml")
PLAYLIST_SUFFIXES = (".m3u8", ".m3u", ".mpd")
# bytes of a playlist that are looked at: hours of segments
PLAYLIST_BYTES = 1 << 22


@dataclass(frozen=True, kw_only=True)
class Address:
    """An address and what it holds: `is_live`, and `why`, half a sentence.

    `length`: the bytes of a file that a web server has whole.
    """

    url: str
    is_live: bool
    why: str
    length: int | None = None
    trust: Trust = field(default_factory=Trust)

    def __str__(self) -> str:
        return without_secrets(self.url)


def is_url(text: str) -> bool:
    """Return whether `text` names something on the network that this package reads."""
    scheme, mark, _ = text.partition("://")
    return bool(mark) and scheme.lower() in SCHEMES


def refuse_unread(text: str) -> None:
    """Raise InputError for an address of a scheme that isn't read, unless a file has that name."""
    scheme, mark, _ = text.partition("://")
    if mark and SCHEME.fullmatch(scheme) and scheme.lower() not in SCHEMES and not Path(text).exists():
        raise InputError(f"{without_secrets(text)} is no network stream: start it with one of {', '.join(SCHEMES)}://")


def scheme_of(url: str) -> str:
    """Return the scheme, in small letters."""
    return url.partition("://")[0].lower()


def without_secrets(url: str) -> str:
    """Return the address without the user's name, password and query."""
    scheme, mark, rest = without_passwords(" ".join(url.split())).partition("://")
    host, slash, path = rest.partition("?")[0].partition("/")
    before, at, name = host.rpartition("@")
    # what may be a password is three dots, and they are said
    return f"{scheme}{mark}{before + at if before == '...' else ''}{name}{slash}{path}"


def _has_loose_password(rest: str) -> bool:
    """Return whether what follows the scheme begins with user:password whose / ? or # look like the host's end."""
    host = re.split(r"[/?#]", rest, maxsplit=1)[0]
    return "@" not in host and "@" in rest and PORT.fullmatch(host) is None


def check_form(url: str) -> None:
    """Raise InputError for an address that no server can have: without a host, or with a port that is none."""
    scheme, _, rest = url.partition("://")
    name = without_secrets(url)
    if _has_loose_password(rest):
        raise InputError(
            f"the user or password for {name} holds a character that ends a host: write / ? # : @ "
            "as %2F %3F %23 %3A %40"
        )
    try:
        parts = urllib.parse.urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise InputError(f"{name} is no address: give {scheme}://HOST:PORT/PATH with a port of 1 to 65535") from None
    if (not host and scheme.lower() not in WITHOUT_HOST) or port == 0:
        raise InputError(f"{name} names no {'port' if port == 0 else 'host'}: give {scheme}://HOST:PORT/PATH")


def local_path(text: str) -> str:
    """Return the path that a file:// address names; other text as it is. Raises InputError for another machine's
    file."""
    if not text.lower().startswith("file:"):
        return text
    parts = urllib.parse.urlsplit(text)
    if parts.netloc not in ("", "localhost", "127.0.0.1"):
        host = parts.netloc.rpartition("@")[2]
        raise InputError(
            f"{without_secrets(text)} names a file of another machine ({host}): give a path, or file:///path"
        )
    path = urllib.parse.unquote(parts.path)
    # what follows ? or # is part of a file's name when such a file exists
    longer = urllib.parse.unquote(text[5:].removeprefix("//" + parts.netloc))
    return longer if longer != path and Path(longer).exists() else path


def look_at(url: str, live: bool | None = None, trust: Trust | None = None) -> Address:
    """Decide whether an address is live; `live` overrules what is found.

    Live: every address that isn't http(s); over http(s) a server that says no length (cameras, radio), pictures pushed
    one after another (multipart), radio with a length made up (icy- headers), and playlists that still grow. Finished:
    a file of known length, and a playlist with an end. A server that can't be asked now counts as live, for that is
    tried again. `trust` says which hosts it may lead to. Raises InputError for a DASH presentation where FFmpeg was
    built without it, for a server whose certificate can't be verified, and for an address that leads to another host.
    """
    if not is_url(url):
        raise InputError(f"{url} is no network stream: start it with one of {', '.join(SCHEMES)}://")
    check_form(url)
    trust = trust or Trust()
    found = Address(url=url, is_live=True, why=f"{scheme_of(url)} has no end")
    if scheme_of(url) in WEB:
        found = _ask(url, trust)
    found = replace(found, trust=trust)
    if live is not None and live != found.is_live:
        found = replace(found, is_live=live, why="as asked")
    return found


def _ask(url: str, trust: Trust) -> Address:
    """Return what a web server says that it has."""
    try:
        # broken off after the headers, unless it is a playlist
        with open_web(url, {}, trust) as answer:
            headers, kind = answer.headers, answer.headers.get("Content-Type", "").lower()
            path = urllib.parse.urlsplit(answer.url).path.lower()
            if kind.startswith("multipart/"):
                return Address(url=url, is_live=True, why="its pictures are pushed one after another")
            if any(name.lower().startswith("icy-") for name in headers):
                return Address(url=url, is_live=True, why="it is a radio's")
            if any(name in kind for name in PLAYLIST_TYPES) or path.endswith(PLAYLIST_SUFFIXES):
                return _look_into(url, answer.read(PLAYLIST_BYTES).decode("utf-8", "replace"), trust)
            length = headers.get("Content-Length", "")
            if not length.isdigit() or int(length) == 0:
                return Address(url=url, is_live=True, why="its server says no length")
            # a playlist under any other name
            head = answer.read(512).lstrip(b"\xef\xbb\xbf \t\r\n")
            if head.startswith((b"#EXTM3U", b"<MPD", b"<?xml")) and int(length) <= PLAYLIST_BYTES:
                rest = answer.read(PLAYLIST_BYTES)
                return _look_into(url, (head + rest).decode("utf-8", "replace"), trust)
            return Address(url=url, is_live=False, why="its server has it whole", length=int(length))
    except InputError:
        raise
    except (OSError, ValueError, http.client.HTTPException) as error:
        return Address(url=url, is_live=True, why=f"its server can't be asked: {short_reason(error)}")


def _look_into(url: str, text: str, trust: Trust, depth: int = 0) -> Address:
    """Return whether a playlist is finished, HLS or DASH; of several qualities the first is looked at."""
    if "<MPD" in text[:4096]:
        if not _reads_dash():
            raise InputError(
                f"{without_secrets(url)} is DASH, which FFmpeg was built without here: give its HLS address"
            )
        is_live = 'type="dynamic"' in text or "type='dynamic'" in text
        return Address(url=url, is_live=is_live, why="it is DASH that grows" if is_live else "it is DASH with an end")
    lines = [line.strip() for line in text.splitlines()]
    if "#EXTM3U" not in (line.lstrip("\ufeff") for line in lines[:1]):
        # a list of addresses, as radios give it
        return Address(url=url, is_live=True, why="it is a list of streams")
    if any(line.startswith("#EXT-X-ENDLIST") for line in lines):
        return Address(url=url, is_live=False, why="it is a playlist with an end")
    if "#EXT-X-PLAYLIST-TYPE:VOD" in lines:
        return Address(url=url, is_live=False, why="it is a playlist that never changes")
    if any(line.startswith("#EXT-X-STREAM-INF") for line in lines) and depth == 0:
        first = next((line for line in lines if line and not line.startswith("#")), None)
        if first is not None:
            variant = urllib.parse.urljoin(url, first)
            check_address(variant, host_of(url), trust)
            with open_web(variant, {}, trust) as answer:
                text = answer.read(PLAYLIST_BYTES).decode("utf-8", "replace")
            return replace(_look_into(variant, text, trust, 1), url=url)
    return Address(url=url, is_live=True, why="it is a playlist that grows")


def open_web(url: str, headers: dict[str, str], trust: Trust) -> Any:
    """Return the answer of a web server to a GET. Raises OSError, ValueError or HTTPException when there is none."""
    return Web(trust, ASK_TIMEOUT).get(url, headers)


def _reads_dash() -> bool:
    from avgn.runtime.media import import_av

    try:
        import_av().format.ContainerFormat("dash", "r")
    except ValueError:
        return False
    return True


def short_reason(error: Exception) -> str:
    """Return why a server gave nothing, without what libraries put around it."""
    if isinstance(error, http.client.IncompleteRead):
        return CLOSED
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
    return without_passwords(" ".join(str(reason).split()))[:100].rstrip(".")
