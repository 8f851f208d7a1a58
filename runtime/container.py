"""Opens local media files with PyAV and decodes one of their tracks, within limits that no file decides about."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, Literal

from avgn.runtime.av_features import import_av, open_input
from avgn.runtime.errors import InputError
from avgn.runtime.followers import WAYS_OUT, is_follower, self_contained
from avgn.runtime.limits import MAX_PIXELS
from avgn.runtime.memory import refuse_shortage
from avgn.runtime.regular import open_regular
from avgn.runtime.tags import tags_length

# demuxers that take any text for pictures
NOT_MEDIA = {"tty", "bin", "xbin", "adf", "idf"}
# FFmpeg refuses larger pictures before it makes room for them, also while it looks for a file's tracks
DECODER_LIMITS = {"max_pixels": str(MAX_PIXELS)}
# options for local files: nothing on a network is read
LOCAL = {"protocol_whitelist": "file", **DECODER_LIMITS}
# bytes without which a decoder's error is not believed: for a pixel of several pictures, and for a sound
PICTURES = 16
SOUND = 1 << 20
Wanted = Literal["video", "sound", "media"]
# above so many pixels a picture is decoded by threads that share it, not by threads that hold a picture each
SHARED_PIXELS = 4096 * 2304


def open_container(path: Path, wanted: Wanted = "video") -> Any:
    """Open a local file for reading with PyAV; raises InputError when it is missing, empty or no media.

    `wanted`: what is looked for in it, as messages call it.
    """
    av = import_av()
    try:
        if not path.exists():
            raise InputError(f"{path} does not exist: give the path of a {wanted} file")
        if not path.is_file():
            raise InputError(f"{path} is not a file: give the path of a {wanted} file")
        if path.stat().st_size == 0:
            raise InputError(f"{path} is empty (0 bytes): give a complete {wanted} file")
        container = open_file(path)
    except InputError:
        raise
    except EOFError:
        raise InputError(f"{path} holds neither pictures nor sound: it is zero-length or truncated") from None
    except PermissionError:
        raise InputError(f"{path} can't be read (permission denied): change its permissions") from None
    except (av.FFmpegError, OSError, ValueError) as error:
        refuse_shortage(error)
        if is_follower(path):
            raise InputError(f"{path} is a playlist or script that names other files: {WAYS_OUT[wanted]}") from None
        raise InputError(
            f"{path} can't be opened as {wanted} ({_reason(error)}): it is not a media file, or it is truncated"
        ) from None
    if container.format.name in NOT_MEDIA:
        container.close()
        raise InputError(f"{path} can't be opened as {wanted} (it is text): it is not a media file")
    return container


def open_file(path: Path) -> Any:
    """Open a local file that is there, with PyAV; an ID3 tag that its format knows nothing of is skipped.

    Raises what PyAV raises.
    """
    options = LOCAL | self_contained()
    try:
        return open_input(f"file:{path}", options=options)
    except import_av().FFmpegError:
        with open_regular(path) as file:
            skipped = tags_length(file)
        if not skipped:
            raise
        return open_input(f"file:{path}", options=options | {"skip_initial_bytes": str(skipped)})


def decode_frames(
    open_file: Callable[[], Any],
    choose: Callable[[Any], Any | None],
    count: Callable[[], None],
    begin: Callable[[Any, Any], Iterator[Any]] = lambda container, stream: container.demux(stream),
) -> Generator[Any]:
    """Yield the decoded frames of the track that `choose(container)` gives in the container that `open_file()` opens;
    `count` is called for every corrupt piece.

    `begin(container, stream)` gives the track's packets from where decoding begins.
    """
    av = import_av()
    with open_file() as container:
        stream = choose(container)
        if stream is None:
            return
        prepare_decoder(stream)
        packets = begin(container, stream)
        ended = False
        while True:
            try:
                packet = next(packets, None)
                ended = packet is None
                if packet is not None and not packet.size and packet.dts is not None:
                    # the picture before goes on: Theora and AVI say so with nothing
                    continue
                # a reader that broke off has not flushed its decoder
                frames = stream.codec_context.decode(None) if packet is None else packet.decode()
            except EOFError:
                return
            except InputError:
                raise
            except (av.FFmpegError, ValueError) as error:
                # FFmpeg calls a packet invalid where it gets no memory for its picture
                refuse_shortage(error, _needed(stream))
                # a decoder that can't be opened is a ValueError from PyAV 19 on
                count()
                if ended:
                    # a decoder that can't even be opened says so for ever
                    return
                continue
            for frame in frames:
                if frame.is_corrupt:
                    count()
                else:
                    yield frame
            if packet is None:
                return


def _needed(stream: Any) -> int:
    context = stream.codec_context
    return max(SOUND, PICTURES * context.width * context.height) if stream.type == "video" else SOUND


def prepare_decoder(stream: Any) -> None:
    """Set the limits and threads of a track's decoder, before its first packet."""
    context = stream.codec_context
    context.options = dict(DECODER_LIMITS)
    large = stream.type == "video" and context.width * context.height > SHARED_PIXELS
    context.thread_type = "SLICE" if large else "AUTO"


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return " ".join(str(text).split())[:120].rstrip(".")
