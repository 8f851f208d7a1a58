"""Files that strangers could send, each with the command that meets it and the words of its refusal."""

# a table: one attack a line
# ruff: noqa: E501
from __future__ import annotations

import json
import os
import shutil
import socket
import struct
import subprocess
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

import avgn

TINY = Path(avgn.__file__).parent / "models" / "tiny"
Arguments = list[object]


@dataclass(frozen=True, kw_only=True)
class Attack:
    """`make(folder)` lays the files and returns the command; `said` is part of its one sentence."""

    name: str
    make: Callable[[Path], Arguments]
    said: str

    def __str__(self) -> str:
        return self.name.replace(" ", "-")


# bundles


def bundle_text(text: str | bytes) -> Callable[[Path], Arguments]:
    """A bundle whose bundle.json holds this."""

    def make(folder: Path) -> Arguments:
        (folder / "b").mkdir()
        (folder / "b" / "bundle.json").write_bytes(text if isinstance(text, bytes) else text.encode())
        return ["localize", folder / "b", folder / "none.mp4"]

    return make


def bundle_with(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], Arguments]:
    """The shipped bundle with its facts changed."""

    def make(folder: Path) -> Arguments:
        shutil.copytree(TINY, folder / "b")
        facts = json.loads((folder / "b" / "bundle.json").read_text())
        change(facts)
        (folder / "b" / "bundle.json").write_text(json.dumps(facts))
        return ["localize", folder / "b", folder / "none.mp4"]

    return make


def bundle_file(lay: Callable[[Path], object]) -> Callable[[Path], Arguments]:
    """A bundle in whose place of bundle.json something else lies."""

    def make(folder: Path) -> Arguments:
        (folder / "b").mkdir()
        lay(folder / "b" / "bundle.json")
        return ["localize", folder / "b", folder / "none.mp4"]

    return make


def named(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda facts: facts.update({key: value})


def classes(*names: str) -> Callable[[dict[str, Any]], None]:
    def change(facts: dict[str, Any]) -> None:
        facts["classes"][: len(names)] = names

    return change


def first_variant(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda facts: facts["variants"][0].update(values)


def tensor_name(name: str) -> Callable[[dict[str, Any]], None]:
    def change(facts: dict[str, Any]) -> None:
        facts["variants"][0]["outputs"]["audio"][0]["name"] = name

    return change


def sparse(path: Path, size: int) -> None:
    with path.open("wb") as file:
        file.truncate(size)


def a_socket(path: Path) -> None:
    # the path of a socket is short, wherever the tests run
    here = os.getcwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


PLACES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a FIFO": (os.mkfifo, "it is a FIFO"),
    "an endless device": (lambda path: path.symlink_to("/dev/zero"), "it is a device"),
    "a terminal": (lambda path: path.symlink_to("/dev/tty"), ""),
    "a socket": (a_socket, "it is a socket"),
    "a folder": (lambda path: path.mkdir(), "directory"),
    "a link to itself": (lambda path: path.symlink_to(path), "symbolic links"),
    "5 GB of nothing": (lambda path: sparse(path, 5 << 30), "bytes"),
}
# what a path is that leads to no file
NO_FILES = {
    "a FIFO": "is a FIFO, not a file",
    "an endless device": "is a device, not a file",
    "a terminal": "is a device, not a file",
    "a socket": "is a socket, not a file",
    "a folder": "is a folder, not a file",
    "a link to itself": "does not exist",
}

DEEP = "[" * 200_000
DIGITS = "9" * 200_000
BUNDLES = [
    *(Attack(name=f"bundle.json is {what}", make=bundle_file(lay), said=said) for what, (lay, said) in PLACES.items()),
    Attack(name="bundle.json: 200,000 brackets", make=bundle_text(DEEP), said="nested deeper"),
    Attack(name="bundle.json: 900 objects inside one another", make=bundle_text('{"a":' * 900 + "1" + "}" * 900), said="nested deeper"),
    Attack(name="bundle.json: provenance of 300 levels", make=bundle_with(named("provenance", json.loads('{"a":' * 300 + "1" + "}" * 300))), said="nested deeper"),
    Attack(name="bundle.json: a number of 200,000 digits", make=bundle_text('{"format": ' + DIGITS + "}"), said="digits"),
    Attack(name="bundle.json: 1e999999", make=bundle_with(named("window_seconds", float("inf"))), said="not valid JSON"),
    Attack(name="bundle.json: NaN", make=bundle_with(named("window_seconds", float("nan"))), said="NaN is not JSON"),
    Attack(name="bundle.json: a name twice", make=bundle_text('{"format": "avgn-bundle", "format": "x"}'), said="twice"),
    Attack(name="bundle.json: bytes that are no text", make=bundle_text(b"\xff\xfe\x00\xd8" * 8), said="can't be read"),
    Attack(name="bundle.json: 4 MB of brackets", make=bundle_text("[" + "[]," * 1_398_000 + "[]]"), said="not a bundle"),
    Attack(name="bundle: a class that colours the terminal", make=bundle_with(classes("\x1b[31mred")), said="control characters"),
    Attack(name="bundle: a class with a line break", make=bundle_with(classes("a\nb")), said="control characters"),
    Attack(name="bundle: a class that turns text around", make=bundle_with(classes("a\u202eb")), said="control characters"),
    Attack(name="bundle: a class of half a letter", make=bundle_with(classes("a\udc80")), said="can be shown"),
    Attack(name="bundle: a blank class", make=bundle_with(classes(" \t")), said="control characters"),
    Attack(name="bundle: a class of a million letters", make=bundle_with(classes("a" * 10**6)), said="at most 256 letters"),
    Attack(name="bundle: a tensor's name with a field of its own", make=bundle_with(tensor_name('x"\n}\nbackend: "python')), said="control characters"),
    Attack(name="bundle: a model's name with a title for the terminal", make=bundle_with(named("model", {"name": "\x1b]0;x\x07"})), said="control characters"),
    Attack(name="bundle: a decision named by a line break", make=bundle_with(named("decision", {"a\nb": 1})), said="control characters"),
    Attack(name="bundle: 200,000 classes", make=bundle_with(named("classes", [str(n) for n in range(200_000)])), said="at most 10000 names"),
    Attack(name="bundle: 100,000 variants", make=bundle_with(named("variants", [{}] * 100_000)), said="variants must be at most"),
    Attack(name="bundle: a window of 600 s at 768 kHz", make=bundle_with(lambda facts: facts.update(window_seconds=600, sample_rate=768_000)), said="samples"),
    Attack(name="bundle: pictures of 65536x65536", make=bundle_with(named("image_size", [65536, 65536])), said="million pixels"),
    Attack(name="bundle: maps of 65536x65536", make=bundle_with(named("grid", [65536, 65536])), said="cells"),
    Attack(name="bundle: a graph at a path with NUL", make=bundle_with(first_variant(audio="a\0.onnx")), said="must be a name"),
    Attack(name="bundle: a graph outside", make=bundle_with(first_variant(audio="../../etc/passwd")), said="leaves the folder"),
]  # fmt: skip


def graph_place(lay: Callable[[Path], object]) -> Callable[[Path], Arguments]:
    def make(folder: Path) -> Arguments:
        shutil.copytree(TINY, folder / "b")
        (folder / "b" / "audio.onnx").unlink()
        lay(folder / "b" / "audio.onnx")
        return ["localize", folder / "b", folder / "none.mp4"]

    return make


def folder_place(command: Callable[[Path], Arguments], lay: Callable[[Path], object]) -> Callable[[Path], Arguments]:
    """Something else in a folder's place."""

    def make(folder: Path) -> Arguments:
        lay(folder / "f")
        return command(folder)

    return make


FOLDERS = [
    Attack(name=f"{kind} folder is {what}", make=folder_place(command, lay), said="f")
    for kind, command in (
        ("bundle", lambda folder: ["localize", folder / "f", folder / "none.mp4"]),
        ("checkpoint", lambda folder: ["export", folder / "f", folder / "out"]),
    )
    for what, (lay, _) in PLACES.items()
    if what != "5 GB of nothing"
]  # fmt: skip


GRAPHS = [
    Attack(name=f"graph is {what}", make=graph_place(lay), said="missing" if what != "5 GB of nothing" else "bytes")
    for what, (lay, _) in PLACES.items()
    if what not in ("an endless device", "a terminal", "a link to itself")
] + [
    Attack(name="graph is a link out", make=graph_place(lambda path: path.symlink_to("/etc/passwd")), said="leaves the folder"),
    Attack(name="graph is a link to itself", make=graph_place(lambda path: path.symlink_to(path)), said="graph 'audio.onnx'"),
]  # fmt: skip

# manifests

HEADER = {"format": "avgn-manifest", "version": 1, "classes": ["a", "b"]}
ITEM = {"id": "x", "split": "test", "sources": []}


def manifest(*lines: str | dict[str, Any], header: dict[str, Any] | str = HEADER) -> Callable[[Path], Arguments]:
    def make(folder: Path) -> Arguments:
        texts = [line if isinstance(line, str) else json.dumps(line) for line in (header, *lines)]
        (folder / "m.jsonl").write_text("\n".join(texts) + "\n", encoding="utf-8")
        return ["inspect", folder / "m.jsonl"]

    return make


def manifest_place(lay: Callable[[Path], object]) -> Callable[[Path], Arguments]:
    def make(folder: Path) -> Arguments:
        lay(folder / "m.jsonl")
        return ["inspect", folder / "m.jsonl"]

    return make


def many_lines(line: str, count: int) -> Callable[[Path], Arguments]:
    def make(folder: Path) -> Arguments:
        with (folder / "m.jsonl").open("w") as file:
            file.write(json.dumps(HEADER) + "\n")
            for _ in range(count // 1000):
                file.write(line * 1000)
        return ["inspect", folder / "m.jsonl"]

    return make


def beside(lay: Callable[[Path], object]) -> Callable[[Path], Arguments]:
    """A manifest whose item's picture is something else."""

    def make(folder: Path) -> Arguments:
        lay(folder / "a.jpg")
        return manifest({**ITEM, "frame": "a.jpg"})(folder)

    return make


def source(**values: Any) -> dict[str, Any]:
    return {**ITEM, "sources": [{"label": "a", "sounding": True, "on_screen": True, **values}]}


MANIFESTS = [
    *(
        Attack(name=f"manifest is {what}", make=manifest_place(lay), said=said if what != "5 GB of nothing" else "more than")
        for what, (lay, said) in PLACES.items()
    ),
    *(
        Attack(name=f"a manifest's picture is {what}", make=beside(lay), said=NO_FILES[what])
        for what, (lay, _) in PLACES.items()
        if what in NO_FILES
    ),
    Attack(name="manifest: 200,000 brackets", make=manifest(DEEP), said="line 2: not valid JSON"),
    Attack(name="manifest: 200,000 brackets first", make=manifest(header=DEEP), said="not a manifest"),
    Attack(name="manifest: a number of 200,000 digits", make=manifest('{"id": ' + DIGITS + "}"), said="digits"),
    Attack(name="manifest: a name twice", make=manifest('{"id": "x", "id": "y", "split": "a", "sources": []}'), said="twice"),
    Attack(name="manifest: a million empty lines", make=many_lines("\n", 1_000_000), said="more than 250000 lines"),
    Attack(name="manifest: a million broken lines", make=many_lines("{}\n", 1_000_000), said="has no 'id'"),
    Attack(name="manifest: a line of 20 MB", make=manifest(json.dumps({**ITEM, "note": "x" * (20 << 20)})), said="bytes"),
    Attack(name="manifest: 300,000 boxes that are none", make=manifest(source(boxes=[0] * 300_000)), said="a box must be"),
    Attack(name="manifest: a path with NUL", make=manifest({**ITEM, "frame": "a\0b"}), said="NUL"),
    Attack(name="manifest: a mask with NUL", make=manifest(source(mask="a\0b")), said="does not exist"),
    Attack(name="manifest: a part with NUL", make=manifest({**ITEM, "parts": [{"frame": "\0", "audio": "a"}] * 2}), said="a part must name"),
    Attack(name="manifest: an id with an escape code", make=manifest({**ITEM, "id": "\x1b[2J"}), said="control characters"),
    Attack(name="manifest: an id that is a list", make=manifest({**ITEM, "id": [[]]}), said="id must be a text"),
    Attack(name="manifest: a split with a line break", make=manifest({**ITEM, "split": "a\nb"}), said="control characters"),
    Attack(name="manifest: a class with an escape code", make=manifest(header={**HEADER, "classes": ["\x1b[31ma"]}), said="control characters"),
    Attack(name="manifest: a class that turns text around", make=manifest(header={**HEADER, "classes": ["\u2066a"]}), said="control characters"),
    Attack(name="manifest: a label that is an object", make=manifest(source(label={"a": 1})), said="not in the manifest's class list"),
    Attack(name="manifest: a box of 1e999", make=manifest(source(boxes=[[0, 0, 1, float("inf")]])), said="outside the image"),
    Attack(name="manifest: a box of 19 digits", make=manifest(source(boxes=[[0, 0, 1, 10**18]])), said="outside the image"),
    Attack(name="manifest: a box of NaN", make=manifest(source(boxes=[[0, 0, 1, float("nan")]])), said="outside the image"),
    Attack(name="manifest: 20,000 classes", make=manifest(header={**HEADER, "classes": [str(n) for n in range(20_000)]}), said="more than 10000"),
]  # fmt: skip

# checkpoints


def checkpoint(**config: Any) -> Callable[[Path], Arguments]:
    """A checkpoint of the smallest model, its configuration changed."""

    def make(folder: Path) -> Arguments:
        _checkpoint(folder / "c", config)
        return ["export", folder / "c", folder / "out"]

    return make


def _checkpoint(folder: Path, config: dict[str, Any]) -> None:
    folder.mkdir()
    sizes = {"width_visual": 4, "width_audio": 4, "dim": 16, "heads": 4, "depth": 1}
    values = {"name": "avgn-tiny", "classes": ["a", "b"], "window_seconds": 1.0, "image_size": [160, 160], **sizes}
    facts = {"format": "avgn-checkpoint", "version": 1, "config": {**values, **config}, "thresholds": None}
    (folder / "config.json").write_text(json.dumps(facts))
    (folder / "model.safetensors").write_bytes(tensors({}))


def tensors(header: dict[str, Any] | bytes, length: int | None = None, body: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


def weights(data: bytes | Callable[[Path], object]) -> Callable[[Path], Arguments]:
    def make(folder: Path) -> Arguments:
        _checkpoint(folder / "c", {})
        path = folder / "c" / "model.safetensors"
        path.unlink()
        data(path) if callable(data) else path.write_bytes(data)
        return ["export", folder / "c", folder / "out"]

    return make


def facts_text(text: str | Callable[[Path], object]) -> Callable[[Path], Arguments]:
    def make(folder: Path) -> Arguments:
        _checkpoint(folder / "c", {})
        path = folder / "c" / "config.json"
        path.unlink()
        text(path) if callable(text) else path.write_text(text)
        return ["export", folder / "c", folder / "out"]

    return make


CHECKPOINTS = [
    *(
        Attack(name=f"config.json is {what}", make=facts_text(lay), said=said if what != "a link to itself" else "holds no config.json")
        for what, (lay, said) in PLACES.items()
    ),
    *(
        Attack(name=f"model.safetensors is {what}", make=weights(lay), said=said if what != "5 GB of nothing" else "can't be read")
        for what, (lay, said) in PLACES.items()
    ),
    Attack(name="config.json: 200,000 brackets", make=facts_text(DEEP), said="nested deeper"),
    Attack(name="config.json: a number of 200,000 digits", make=facts_text('{"version": ' + DIGITS + "}"), said="digits"),
    Attack(name="config.json: a configuration that is text", make=facts_text('{"format": "avgn-checkpoint", "version": 1, "config": "x"}'), said="no usable configuration"),
    Attack(name="config.json: training of 300 levels", make=facts_text('{"training": ' + "[" * 300 + "]" * 300 + "}"), said="nested deeper"),
    Attack(name="config.json: a width of 10^18", make=checkpoint(dim=10**18), said="dim must be at most"),
    Attack(name="config.json: the largest sizes that may be", make=checkpoint(dim=8192, depth=64, heads=8, mlp_ratio=64, width_visual=1024), said="doesn't fit its configuration"),
    Attack(name="config.json: a window of a year", make=checkpoint(window_seconds=3e7), said="must be at most"),
    Attack(name="config.json: a window of NaN", make=checkpoint(window_seconds=float("nan")), said="no usable configuration"),
    Attack(name="config.json: pictures of 10^6 a side", make=checkpoint(image_size=[1_000_000, 1_000_000]), said="pixels"),
    Attack(name="config.json: text for a number", make=checkpoint(depth="1"), said="depth must be a whole number"),
    Attack(name="config.json: a list for a text", make=checkpoint(variant=[1]), said="no usable configuration"),
    Attack(name="config.json: a class with an escape code", make=checkpoint(classes=["\x1b[31m", "b"]), said="control characters"),
    Attack(name="config.json: 20,000 classes", make=checkpoint(classes=[str(n) for n in range(20_000)]), said="at most 10000"),
    Attack(name="safetensors: a header of 2^60 bytes", make=weights(tensors({}, 1 << 60)), said="claims"),
    Attack(name="safetensors: a header of 100 MB", make=weights(lambda path: sparse_header(path, 100 << 20)), said="claims"),
    Attack(name="safetensors: 200,000 brackets", make=weights(tensors(DEEP.encode())), said="nested deeper"),
    Attack(name="safetensors: a tensor twice", make=weights(tensors(b'{"a": 1, "a": 2}')), said="twice"),
    Attack(name="safetensors: a tensor of 10^18 values", make=weights(tensors({"a": {"dtype": "F32", "shape": [10**9, 10**9], "data_offsets": [0, 4]}}, body=b"abcd")), said="doesn't fit"),
    Attack(name="safetensors: a pickle under that name", make=weights(b"\x80\x02ctorch\nload\n."), said="claims"),
    Attack(name="safetensors: empty", make=weights(b""), said="cut off"),
]  # fmt: skip


def sparse_header(path: Path, size: int) -> None:
    sparse(path, size + 8)
    with path.open("r+b") as file:
        file.write(struct.pack("<Q", size) + b"{")


# published checkpoints


def released(save: Callable[[Path], object]) -> Callable[[Path], Arguments]:
    def make(folder: Path) -> Arguments:
        save(folder / "r.pth")
        return ["convert", folder / "r.pth", folder / "out"]

    return make


def saved(content: Callable[[], Any]) -> Callable[[Path], Arguments]:
    def save(path: Path) -> None:
        import torch

        torch.save(content(), path)

    return released(save)


def _tokens(**shape: Any) -> Any:
    import torch

    return torch.zeros(1).as_strided(shape["size"], [0] * len(shape["size"]))


def zip_bomb(path: Path) -> None:
    import torch

    torch.save({"av_token": torch.zeros(4)}, path)
    with zipfile.ZipFile(path) as whole:
        members = {name: whole.read(name) for name in whole.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, data in members.items():
            packed.writestr(name, b"\0" * (1 << 26) if name.endswith("/data/0") else data)


RELEASED = [
    *(
        Attack(name=f"convert: {what}", make=released(lay), said=NO_FILES.get(what, "can't be read"))
        for what, (lay, _) in PLACES.items()
    ),
    Attack(name="convert: text", make=released(lambda path: path.write_text("hello\n")), said="r.pth"),
    Attack(name="convert: text with an escape code", make=released(lambda path: path.write_text("\x1b[31mhello\n")), said="r.pth"),
    Attack(name="convert: a million letters", make=released(lambda path: path.write_text("(" * 10**6)), said="r.pth"),
    Attack(name="convert: integer keys", make=saved(lambda: {1: _tokens(size=[2, 2])}), said="is no name of a tensor"),
    Attack(name="convert: keys of bytes", make=saved(lambda: {b"a": _tokens(size=[2, 2])}), said="is no name of a tensor"),
    Attack(name="convert: a list", make=saved(lambda: [1, 2]), said="no state dict"),
    Attack(name="convert: text for a tensor", make=saved(lambda: {"av_token": "x"}), said="no tensor"),
    Attack(name="convert: a billion tokens in four bytes", make=saved(lambda: {"av_token": _tokens(size=[10**9, 512])}), said="more values than the file"),
    Attack(name="convert: 64 MB in a few KB", make=released(zip_bomb), said="compressed"),
    Attack(name="convert: half an archive", make=released(lambda path: path.write_bytes(b"PK\x03\x04" + b"\0" * 100)), said="can't be read"),
]  # fmt: skip

# YAML

EXPLOSION = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10)
)
MERGES = "a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n} {{<<: [{','.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 10))
YAMLS = {
    "anchors that explode": (EXPLOSION, "aliases"),
    "merges that explode": (MERGES, "aliases"),
    "an anchor inside itself": ("a: &a [*a]\n", "holds itself"),
    "200,000 brackets": ("a: " + DEEP, "nested deeper"),
    "200,000 dashes": ("- " * 200_000, "nested deeper"),
    "200,000 entries": ("- a\n" * 200_000, "more than 10000 values"),
    "a number of 200,000 digits": ("steps: " + DIGITS, "letters"),
    "a number of 4,000 digits in base 60": ("steps: " + "1:" * 1500 + "1\n", ""),
    "a day that is none": ("steps: 2001-99-99\n", "month"),
    "a Python object": ("steps: !!python/object/apply:os.system [exit]\n", "constructor"),
    "a list for a name": ("? [a]\n: b\n", "unhashable"),
    "bytes": ("steps: !!binary aGVsbG8=\n", ""),
    "a list of all": ("- a\n", ""),
    "nothing": ("", ""),
}


def yaml_file(
    command: Callable[[Path], Arguments], content: str | Callable[[Path], object]
) -> Callable[[Path], Arguments]:
    def make(folder: Path) -> Arguments:
        path = folder / "c.yaml"
        content(path) if callable(content) else path.write_text(content)
        return command(path)

    return make


def configured(path: Path) -> Arguments:
    return ["train", path.parent / "none.jsonl", "--output", path.parent / "out", "--config", path]


def recipe(path: Path) -> Arguments:
    return ["reproduce", path, "--data", "synthetic", "--output", path.parent / "out"]


CONFIGS = [
    Attack(name=f"train --config: {what}", make=yaml_file(configured, text), said=said)
    for what, (text, said) in YAMLS.items()
] + [Attack(name=f"recipe: {what}", make=yaml_file(recipe, text), said=said) for what, (text, said) in YAMLS.items()]
CONFIGS += [
    Attack(name=f"{kind} is {what}", make=yaml_file(command, lay), said=said)
    for kind, command in (("train --config", configured), ("recipe", recipe))
    for what, (lay, said) in PLACES.items()
    if (kind, what) != ("recipe", "a link to itself")
]
CONFIGS += [
    Attack(name="train --config names another file", make=yaml_file(configured, "config: other.yaml\n"), said="is not known"),
    Attack(name="train --config: a path with NUL", make=yaml_file(configured, 'audio_cache: "a\\0b"\n'), said="NUL"),
    Attack(name="train --config names a file for its model", make=yaml_file(configured, "model: other.yaml\n"), said="must be names with values"),
    Attack(name="train --config: an option with an escape code", make=yaml_file(configured, '"\\e[31m": 1\n'), said="is not known"),
]  # fmt: skip

# shards


def shards(text: str | Callable[[Path], object]) -> Callable[[Path], Arguments]:
    def make(folder: Path) -> Arguments:
        (folder / "s").mkdir()
        path = folder / "s" / "index.json"
        text(path) if callable(text) else path.write_text(text)
        return ["train", folder / "s", "--output", folder / "out"]

    return make


SHARDS = [
    *(Attack(name=f"index.json is {what}", make=shards(lay), said="index.json") for what, (lay, _) in PLACES.items()),
    Attack(name="index.json: 200,000 brackets", make=shards(DEEP), said="nested deeper"),
    Attack(name="index.json: a number of 200,000 digits", make=shards('{"version": ' + DIGITS + "}"), said="digits"),
    Attack(name="index.json names a command", make=shards(json.dumps({"format": "avgn-shards", "version": 1, "classes": ["a"], "files": [["a.tar::pipe:touch ran", 1]]})), said="no plain file name"),
    Attack(name="index.json: a class with an escape code", make=shards(json.dumps({"format": "avgn-shards", "version": 1, "classes": ["\x1b[31m"], "files": [["a.tar", 1]]})), said="classes must be"),
]  # fmt: skip

# media

HLS = "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5.0,\n{}\n#EXT-X-ENDLIST\n"
SDP = "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n"
SCRIPTS = {
    "an HLS playlist": HLS.format("secret.ts"),
    "an HLS playlist with a byte-order mark": "\ufeff" + HLS.format("secret.ts"),
    "an HLS playlist of another host": HLS.format("http://127.0.0.1:9/a.ts"),
    "an HLS playlist of a part of a file": HLS.format("subfile,,start,0,end,100,,:secret.ts"),
    "an HLS playlist of data": HLS.format("data:video/mp2t;base64,AAAA"),
    "an FFmpeg script": "ffconcat version 1.0\nfile secret.ts\n",
    "a session description": SDP,
    "a DASH presentation": '<?xml version="1.0"?>\n<MPD type="static"><Period><AdaptationSet mimeType="video/mp4">'
    '<Representation id="1"><BaseURL>secret.ts</BaseURL></Representation></AdaptationSet></Period></MPD>',
    "an address list": "[playlist]\nFile1=secret.ts\n",
}


def script(text: str, name: str) -> Callable[[Path], Arguments]:
    def make(folder: Path) -> Arguments:
        secret_media(folder / "secret.ts")
        (folder / name).write_text(text, encoding="utf-8")
        return ["localize", "tiny", folder / name]

    return make


def secret_media(path: Path) -> None:
    """A video that nobody named; its last reading is long ago."""
    path.write_bytes(_media())
    os.utime(path, (0, path.stat().st_mtime))


@lru_cache(maxsize=1)
def _media() -> bytes:
    inputs = ["-f", "lavfi", "-i", "testsrc=size=64x48:rate=5:duration=1", "-f", "lavfi", "-i", "sine=duration=1"]
    command = ["ffmpeg", "-v", "error", *inputs, "-c:v", "mpeg2video", "-c:a", "mp2", "-f", "mpegts", "-"]
    return subprocess.run(command, check=True, capture_output=True, timeout=60).stdout


def called(text: str) -> Callable[[Path], Arguments]:
    """A name that FFmpeg would take for a protocol."""

    def make(folder: Path) -> Arguments:
        secret_media(folder / "secret.ts")
        return ["localize", "tiny", text.replace("FOLDER", str(folder))]

    return make


def media_place(lay: Callable[[Path], object]) -> Callable[[Path], Arguments]:
    def make(folder: Path) -> Arguments:
        lay(folder / "v.mp4")
        return ["localize", "tiny", folder / "v.mp4"]

    return make


def sequence(folder: Path) -> Arguments:
    """A picture whose name would stand for others."""
    secret_media(folder / "secret.ts")
    (folder / "secret%d.ts").symlink_to("secret.ts")
    return ["localize", "tiny", folder / "*.ts"]


MEDIA = [
    Attack(name="a name that stands for others", make=sequence, said="does not exist"),
] + [
    Attack(name=f"{what} as {name}", make=script(text, name), said="/v" if what in ("a DASH presentation", "an address list") else "names other files")
    for what, text in SCRIPTS.items()
    for name in ("v.m3u8", "v.mp4", "v")
] + [
    Attack(name=f"a video called {text}", make=called(text), said="exist")
    for text in (
        "concat:FOLDER/secret.ts|FOLDER/secret.ts",
        "subfile,,start,0,end,0,,:FOLDER/secret.ts",
        "data:video/mp2t;base64,AAAA",
        "pipe:0",
        "fd:0",
        "crypto:FOLDER/secret.ts",
        "async:FOLDER/secret.ts",
        "cache:FOLDER/secret.ts",
        "lavfi:testsrc",
    )
] + [
    Attack(name=f"a video is {what}", make=media_place(lay), said="v.mp4")
    for what, (lay, _) in PLACES.items()
]  # fmt: skip


def masks(path: Path) -> None:
    """A few KB that claim to become a mask video of 4 GB."""
    array = np.lib.format.header_data_from_array_1_0(np.zeros(0, np.uint8)) | {"shape": (1 << 16, 256, 256)}
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed,
        packed.open("index.npy", "w", force_zip64=True) as out,
    ):
        np.lib.format.write_array_header_1_0(out, array)
        for _ in range(300):
            out.write(bytes(1 << 20))


ATTACKS = [*FOLDERS, *BUNDLES, *GRAPHS, *MANIFESTS, *CHECKPOINTS, *RELEASED, *CONFIGS, *SHARDS, *MEDIA]
