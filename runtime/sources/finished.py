"""Finished things at an address, taken into a temporary file over one connection and read as the file that they are.

So every picture is looked at once, with the times of the file, however fast the network and however slow the engine is.
"""

from __future__ import annotations

import http.client
import re
import shutil
import tempfile
import time as clock
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

from avgn.runtime.av_features import import_av
from avgn.runtime.errors import FailureError, InputError
from avgn.runtime.followers import LOOK, is_following
from avgn.runtime.media import audio_stream
from avgn.runtime.sources.address import Address, open_web, scheme_of, short_reason
from avgn.runtime.sources.opening import open_address, open_followed
from avgn.runtime.sources.web import CLOSED, WEB, RefusedError

CHUNK = 1 << 18
# connections in a row that bring nothing before a copy is given up, and seconds between two
TRIES = 4
PAUSE = 0.5
# seconds: to open something, and between two of its packets
TIMEOUT = (10.0, 15.0)
# seconds by which a clock goes back before it counts as one that begins anew
BACK = Fraction(1, 4)
# containers of Flash and Windows Media: Matroska has not all of their codecs, NUT not all that these need to be told
OLD = ("flv", "asf")
# bytes that stay free on the disk of temporary files
SPARE = 64 << 20


@contextmanager
def fetched(address: Address, report: Callable[[str], None] = lambda message: None) -> Iterator[Path]:
    """Yield a local file with what a finished address holds, removed at the end.

    Raises InputError when it doesn't fit on the disk or is no media, FailureError when it breaks off.
    """
    size = "" if address.length is None else f" ({address.length / 1e6:.1f} MB)"
    report(f"{address} is finished, for {address.why}: it is fetched{size} and localized as a file")
    folder = Path(tempfile.mkdtemp(prefix="avgn-"))
    try:
        if address.length is not None and address.length > shutil.disk_usage(folder).free - SPARE:
            raise InputError(
                f"{address} has {address.length / 1e9:.1f} GB, for which {folder.parent} has no room: "
                "set TMPDIR to a folder on a larger disk"
            )
        if address.length is None and _is_one_file(address):
            path = folder / _name_of(address)
            with path.open("wb") as file:
                _copy_to_the_end(address, file)
        elif address.length is None:
            path = folder / "stream.mkv"
            options = {"rtsp_transport": "tcp"} if scheme_of(address.url) in ("rtsp", "rtsps") else {}
            _take_apart(
                address, lambda: open_address(address.url, address.trust, timeout=TIMEOUT, options=options), path
            )
        else:
            path = folder / _name_of(address)
            with path.open("wb") as file:
                _copy(address, file, address.length)
        with called(path, address):
            yield path
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def gathered(playlist: Path) -> Iterator[Path]:
    """One local file with all that a local playlist names, which is other files of this machine; removed at the end.

    Raises InputError when it can't be read.
    """
    folder = Path(tempfile.mkdtemp(prefix="avgn-"))
    try:
        path = folder / "playlist.mkv"
        try:
            _take_apart(playlist, lambda: open_followed(playlist), path)
        except FailureError as error:
            raise InputError(str(error).replace("check the address", "check what it names")) from None
        with called(path, playlist):
            yield path
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def called(path: Path, name: object) -> Iterator[None]:
    """Let errors about a temporary file name what its user gave."""
    try:
        yield
    except (InputError, FailureError) as error:
        if str(path) not in str(error):
            raise
        kind = FailureError if isinstance(error, FailureError) else InputError
        raise kind(str(error).replace(str(path), str(name))) from None


def _copy(address: Address, file: BinaryIO, length: int) -> None:
    """Copy `length` bytes from a web server, going on where a connection broke off."""
    done, failures, reason = 0, 0, ""
    while done < length:
        before = done
        try:
            with open_web(address.url, {"Range": f"bytes={done}-"} if done else {}, address.trust) as answer:
                if done and answer.status != 206:
                    # a server without ranges begins again
                    done = 0
                    file.seek(0)
                # what has come is kept, however little it is
                while done < length and (chunk := answer.read1(min(CHUNK, length - done))):
                    file.write(chunk)
                    done += len(chunk)
            reason = CLOSED
        except RefusedError:
            raise
        except (OSError, ValueError, http.client.HTTPException) as error:
            reason = short_reason(error)
        failures = 0 if done > before else failures + 1
        if done < length:
            if failures >= TRIES:
                raise FailureError(f"{address} broke off after {done} of {length} bytes ({reason}): try again")
            clock.sleep(PAUSE)


def _is_one_file(address: Address) -> bool:
    """Return whether a web server without a length gives a file itself, and no playlist or pictures in parts: its index
    may lie at the end, and it stays what it is."""
    if scheme_of(address.url) not in WEB:
        return False
    try:
        with open_web(address.url, {}, address.trust) as answer:
            kind = answer.headers.get("Content-Type", "").lower()
            return not kind.startswith("multipart/") and not is_following(answer.read(LOOK))
    except RefusedError:
        raise
    except (OSError, ValueError, http.client.HTTPException):
        return False


def _copy_to_the_end(address: Address, file: BinaryIO) -> None:
    """Copy all that a web server gives before it says that this was all."""
    try:
        with open_web(address.url, {}, address.trust) as answer:
            while chunk := answer.read1(CHUNK):
                file.write(chunk)
                if shutil.disk_usage(file.name).free < SPARE:
                    raise InputError(
                        f"{address} fills the disk of {file.name}: set TMPDIR to a folder on a larger disk"
                    )
    except InputError:
        raise
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise FailureError(
            f"{address} broke off after {file.tell()} bytes ({short_reason(error)}): try again"
        ) from None


def _take_apart(name: object, opened: Callable[[], Any], path: Path) -> None:
    """Write the packets of what is opened to a file until it ends, as they are."""
    av = import_av()
    try:
        with opened() as source:
            kept = [stream for stream in (next(iter(source.streams.video), None), audio_stream(source)) if stream]
            if not kept:
                raise InputError(f"{name} has neither pictures nor sound: give a video's address")
            out, copies = _new_container(path, kept, source.format.name)
            with out:
                _copy_packets(source.demux(*kept), copies, out, source.start_time)
        if not path.exists():
            raise FailureError(f"{name} gave no picture and no sound: check the address and that it is sending")
    except (av.FFmpegError, OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise FailureError(f"{name} can't be fetched ({short_reason(error)}): check the address") from None


def _new_container(path: Path, kept: list[Any], own: str) -> tuple[Any, dict[int, Any]]:
    """Open a file for what is kept, in the first container that takes its codecs; `own` is the one it comes in.

    Returns its tracks by the indices of theirs. Raises ValueError where none takes them.
    """
    av = import_av()
    reason = ValueError()
    for kind in ("matroska", own, "nut") if own in OLD else ("matroska", "nut"):
        out = av.open(str(path), "w", format=kind)
        try:
            return out, {stream.index: out.add_stream_from_template(stream) for stream in kept}
        except ValueError as error:
            out.close()
            reason = error
    raise reason


def _copy_packets(packets: Iterator[Any], copies: dict[int, Any], out: Any, start: int | None) -> None:
    """Copy packets, their times counted from `start` (microseconds); those without any follow one another, and
    so do the parts of a playlist whose clock begins anew."""
    av = import_av()
    places: dict[int, Place] = {}
    jumps: list[Fraction] = []
    while True:
        try:
            packet = next(packets, None)
        except av.FFmpegError:
            # what came is whole up to here
            return
        if packet is None:
            return
        if not packet.size:
            continue
        stream = packet.stream
        place = places.setdefault(stream.index, Place(stream))
        place.put(packet, jumps, round((start or 0) / 1_000_000 / stream.time_base))
        packet.stream = copies[stream.index]
        out.mux(packet)


class Place:
    """Where the next packet of a track belongs, in units of its time base; a muxer takes none that goes back."""

    def __init__(self, stream: Any) -> None:
        self._base = Fraction(stream.time_base)
        rate = (stream.average_rate or stream.guessed_rate or 25) if stream.type == "video" else None
        self._step = 0 if rate is None else round(1 / rate / self._base)
        self._last: int | None = None
        self._next = 0
        self._jumps = 0

    def put(self, packet: Any, jumps: list[Fraction], zero: int) -> None:
        """Set a packet's times, counted from `zero`; a clock that begins anew, as after an advertisement, goes on.

        `jumps`: by how many seconds it was moved each time, the same for all tracks.
        """
        if packet.dts is None and packet.pts is None:
            packet.pts = packet.dts = zero + self._next - self._shift(jumps)
            packet.duration = packet.duration or self._step
        elif packet.dts is None:
            # some containers know only when pictures are shown, not when the first ones are decoded
            packet.dts = min(packet.pts, zero + (self._last or 0) - self._shift(jumps))
        if self._last is not None and packet.dts - zero + self._shift(jumps) < self._last - BACK / self._base:
            self._jumps += 1
            if self._jumps > len(jumps):
                jumps.append((self._next + zero - packet.dts) * self._base)
        moved = self._shift(jumps) - zero
        late = 0 if self._last is None else max(0, self._last - packet.dts - moved)
        packet.dts += moved + late
        if packet.pts is not None:
            packet.pts = max(packet.pts + moved, packet.dts)
        self._last = packet.dts
        self._next = packet.dts + (packet.duration or self._step)

    def _shift(self, jumps: list[Fraction]) -> int:
        return round(jumps[self._jumps - 1] / self._base) if self._jumps else 0


def _name_of(address: Address) -> str:
    """Return a file name for messages: the last part of the address, without what a file system may not like."""
    last = urllib.parse.unquote(urllib.parse.urlsplit(address.url).path).rpartition("/")[2]
    return re.sub(r"[^\w.-]", "_", last).lstrip(".-")[-80:] or "video"
