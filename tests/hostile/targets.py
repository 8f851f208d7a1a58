"""What strangers' bytes meet first, one function each: it takes any bytes and raises nothing that is not a refusal."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import avgn
from avgn.runtime.bundle_schema import from_json, to_json
from avgn.runtime.errors import InputError
from avgn.runtime.manifest import read_manifest
from avgn.runtime.media import open_media
from avgn.runtime.onnx_check import check_onnx_bytes
from avgn.runtime.web.desk import read_box, read_name
from avgn.runtime.web.lessons import LessonError
from avgn.runtime.web.wire import WireError, decode_jpeg, read_binary, read_text

TINY = Path(avgn.__file__).parent / "models" / "tiny"
PICTURES = 4


def wire(data: bytes) -> None:
    """A message to the server: binary or text; a picture in it is decoded, and what a lesson says is read."""
    for read in (lambda: read_binary(data), lambda: read_text(data.decode("utf-8", "replace"))):
        try:
            found = read()
            if hasattr(found, "jpeg"):
                decode_jpeg(found.jpeg)
        except WireError:
            pass
    with suppress(WireError):
        decode_jpeg(data)
    for part, take in (("name", read_name), ("box", read_box)):
        with suppress(WireError, LessonError):
            taken = take(read_text(data.decode("utf-8", "replace")).get(part))
            assert taken is None or len(json.dumps(taken)) < 1000


def bundle(data: bytes) -> None:
    """A bundle.json; what is taken is written as it was read."""
    try:
        info = from_json(data.decode("utf-8", "surrogateescape"))
    except InputError as error:
        assert str(error).isprintable() and len(str(error)) < 1000
        return
    assert from_json(to_json(info)) == info


def graph(data: bytes) -> None:
    """An ONNX graph."""
    try:
        check_onnx_bytes(data)
    except InputError as error:
        assert str(error).isprintable()


def manifest(data: bytes) -> None:
    """A manifest."""
    path = _folder() / "m.jsonl"
    path.write_bytes(data)
    try:
        read_manifest(path, check_files=False)
    except InputError as error:
        assert len(str(error)) < 1000


def media(data: bytes) -> None:
    """A video: its headers, its first pictures and its first sound."""
    path = _folder() / "v"
    path.write_bytes(data)
    try:
        video = open_media(path)
        for number, _ in enumerate(video.video()):
            if number == PICTURES:
                break
        for number, _ in enumerate(video.audio()):
            if number == PICTURES:
                break
    except InputError:
        pass


@lru_cache(maxsize=1)
def _folder() -> Path:
    # kept by the process, whose end removes it
    made = tempfile.TemporaryDirectory(prefix="avgn-fuzz-")
    _KEPT.append(made)
    return Path(made.name)


_KEPT: list[tempfile.TemporaryDirectory[str]] = []


@lru_cache(maxsize=1)
def seeds() -> dict[str, tuple[bytes, ...]]:
    """Good inputs of each target, which are changed a little."""
    return {
        "wire": (_jpeg(), b'{"type": "start", "threshold": 0.5}', bytes(24), _LESSON),
        "bundle": ((TINY / "bundle.json").read_bytes(),),
        "graph": ((TINY / "audio.onnx").read_bytes()[:4000], _small_graph()),
        "manifest": (_manifest(),),
        "media": tuple(_clip(kind) for kind in ("matroska", "mp4", "mpegts", "avi")),
    }


_LESSON = b'{"type": "teach", "name": "Rex", "box": [0.25, 0.5, 0.75, 1], "replace": true}'


def _jpeg() -> bytes:
    import cv2
    import numpy as np

    return bytes(cv2.imencode(".jpg", np.zeros((16, 16, 3), np.uint8))[1])


def _small_graph() -> bytes:
    from tests.runtime.graphs import audio_graph

    data: bytes = audio_graph(8, True).SerializeToString()
    return data


def _manifest() -> bytes:
    source = {"label": "a", "sounding": True, "on_screen": True, "boxes": [[0, 0, 0.5, 1]], "intervals": [[0, 1.5]]}
    item = {"id": "x", "frame": "a.jpg", "audio": "a.wav", "split": "test", "dataset": "d", "sources": [source]}
    lines = [{"format": "avgn-manifest", "version": 1, "classes": ["a", "b"]}, item, {**item, "id": "y", "sources": []}]
    return "\n".join(json.dumps(line) for line in lines).encode()


def _clip(kind: str) -> bytes:
    import av
    import numpy as np

    out = io.BytesIO()
    with av.open(out, "w", format=kind) as file:
        picture, sound = file.add_stream("mpeg4", rate=10), file.add_stream("mp2", rate=16000)
        picture.width, picture.height, picture.pix_fmt = 32, 32, "yuv420p"  # type: ignore[union-attr]
        for number in range(4):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 60 * number, np.uint8), format="rgb24")
            file.mux(picture.encode(frame))  # type: ignore[union-attr]
        block = av.AudioFrame.from_ndarray(np.zeros((1, 1152), np.int16), format="s16", layout="mono")
        block.sample_rate = 16000
        for stream, frames in ((sound, (block, None)), (picture, (None,))):
            for each in frames:
                file.mux(stream.encode(each))  # type: ignore[union-attr, arg-type]
    return out.getvalue()


TARGETS: dict[str, Callable[[bytes], None]] = {
    "wire": wire,
    "bundle": bundle,
    "graph": graph,
    "manifest": manifest,
    "media": media,
}
