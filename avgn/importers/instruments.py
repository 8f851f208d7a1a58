"""Imports VGGSound-Instruments: single items and pairs with pixel masks, which come as pickled numpy arrays."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avgn.importers.base import SAME_CLASS, UNSCORABLE, Finder, Import, ImportOptions, class_list, note_overlap
from avgn.importers.clips import files_of
from avgn.importers.files import Files, canonical, read_rows
from avgn.importers.report import Report
from avgn.runtime.errors import InputError
from avgn.runtime.files import write_whole
from avgn.runtime.limits import LARGEST_STILL
from avgn.runtime.manifest import Item, Part, Source
from avgn.runtime.regular import read_regular

MASK_FOLDERS = ("masks", "seg", "segmentations", "annotations")
MASKS = (".pkl", ".pickle", ".npy")
MAX_SIDE_PIXELS = 8192
# what the pickle of a numpy array calls, in numpy 1 and 2
ALLOWED = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy.core.numeric", "_frombuffer"),
    ("numpy._core.numeric", "_frombuffer"),
    ("_codecs", "encode"),
}


def import_instruments(options: ImportOptions) -> Import:
    """Import rows of (id, class), or with `extended` the pairs: (id, class, mix_id, mix_class)."""
    report = Report()
    kind = "vgginstruments_multi" if options.extended else "vgginstruments"
    train_path = options.metadata / f"{kind}_train.txt"
    train = read_rows(train_path, (2,)) if train_path.is_file() else None
    if options.split == "train":
        rows = train if train is not None else read_rows(train_path, (2,))
    else:
        rows = read_rows(options.metadata / f"{kind}_test.csv", (4,) if options.extended else (2,))
        note_overlap([id for row in rows for id in row[::2]], [row[0] for row in train or ()], report)
    labels = [canonical(label) for row in rows for label in row[1::2]]
    trained = None if train is None else [canonical(row[1]) for row in train]
    classes = class_list(options, trained, labels, report)
    masks = _Masks(options, report) if options.split == "test" else None
    finder = Finder(*files_of(options, [id for row in rows for id in row[::2]], report), report)
    items = []
    for row in rows:
        ids, names = row[::2], [canonical(label) for label in row[1::2]]
        if not finder.is_new("+".join(ids)):
            continue
        files = [found for found in (finder.find(id, id) for id in ids) if found is not None]
        if len(files) < len(ids):
            continue
        several = len(ids) > 1
        sources = tuple(
            Source(
                label=name,
                sounding=True,
                on_screen=True,
                mask=None if masks is None else masks.png(id),
                part=part if several else None,
            )
            for part, (id, name) in enumerate(zip(ids, names, strict=True))
        )
        report.counts[SAME_CLASS] += several and names[0] == names[1]
        items.append(
            Item(
                id="+".join(ids),
                sources=sources,
                split=options.split,
                dataset="vggsound-instruments",
                video=ids[0],
                frame=None if several else files[0][0],
                audio=None if several else files[0][1],
                parts=tuple(Part(frame=frame, audio=audio) for frame, audio in files) if several else (),
            )
        )
    return Import(classes=classes, items=items, report=report)


class _Masks:
    """Writes masks as PNG beside the manifest, once each."""

    def __init__(self, options: ImportOptions, report: Report) -> None:
        self._files = Files([options.root / name for name in MASK_FOLDERS], MASKS, "masks/<id>.pkl")
        self._out = options.output.with_name(options.output.stem + "_masks")
        self._report = report
        self._done: dict[str, Path | None] = {}

    def png(self, id: str) -> Path | None:
        if id not in self._done:
            self._done[id] = self._write(id)
        return self._done[id]

    def _write(self, id: str) -> Path | None:
        import cv2

        path = self._files.get(id)
        if path is None:
            self._report.problem("without a mask on disk", id)
            return None
        mask = read_mask_array(path)
        if not mask.any():
            self._report.problem(UNSCORABLE, id, harmless=True)
            return None
        self._out.mkdir(parents=True, exist_ok=True)
        _, data = cv2.imencode(".png", mask.astype(np.uint8) * 255)
        return write_whole(self._out / f"{id}.png", data.tobytes(), "mask")


def read_mask_array(path: Path) -> NDArray[np.bool_]:
    """Read a mask [H, W] from a pickled or .npy numpy array; nothing but arrays is unpickled.

    Raises InputError for a pickle that calls anything else, and for arrays that aren't masks.
    """
    try:
        data = read_regular(path, LARGEST_STILL)
        if path.suffix.lower() == ".npy":
            array: Any = np.load(io.BytesIO(data), allow_pickle=False)
        else:
            array = _ArraysOnly(io.BytesIO(data)).load()
    except InputError as error:
        raise InputError(f"mask {path} {error}") from None
    except Exception as error:
        raise InputError(f"mask {path} can't be read ({type(error).__name__}: {error}): give a numpy array") from None
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "buif":
        raise InputError(f"mask {path} holds {type(array).__name__}, no array of numbers: give [H, W]")
    array = np.squeeze(array)
    if array.ndim == 3 and array.shape[2] <= 4:
        array = array.max(axis=2)
    if array.ndim != 2 or max(array.shape) > MAX_SIDE_PIXELS:
        raise InputError(f"mask {path} has shape {list(array.shape)}: give [H, W] of at most {MAX_SIDE_PIXELS} a side")
    return np.asarray(array > 0)


class _ArraysOnly(pickle.Unpickler):
    """Unpickles numpy arrays of numbers; everything else a pickle could call is refused before it is called."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise InputError(f"is a pickle that calls {module}.{name}: it may hold arrays of numbers and nothing else")
        if module == "_codecs":
            # old pickles write bytes as text in latin 1; no other codec is needed
            return _latin
        return super().find_class(module, name)

    def persistent_load(self, pid: Any) -> Any:
        raise InputError("is a pickle with references to the outside: it may hold arrays of numbers and nothing else")


def _latin(text: str, codec: str = "latin1") -> bytes:
    if codec.replace("-", "").replace("_", "").lower() not in ("latin1", "iso88591"):
        raise InputError(f"is a pickle that asks for the codec {codec!r}: it may hold arrays of numbers only")
    return text.encode("latin1")
