"""Writes procedural scenes in the layouts of the public data sets, to try importers, recipes and commands on."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avgn.runtime.errors import InputError
from avgn.runtime.image import import_cv2
from avgn.runtime.manifest import Item, Source, read_manifest
from avgn.runtime.outputs import new_folder
from avgn.runtime.reading import read_still
from avgn.scenes import SceneConfig, synthesize


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Says how many training and test scenes each set gets; `silent` objects are shown beside those that sound."""

    train: int = 24
    test: int = 8
    silent: int = 0
    size: tuple[int, int] | None = None
    seconds: float = 3.0


def write_layouts(root: Path, roots: set[str], sizes: Sizes, *, seed: int = 0, jobs: int = 1) -> None:
    """Write those of ROOT/MUSIC, ROOT/VGGSound and ROOT/VGGSound-Instruments that `roots` names."""
    for place, name in enumerate(LAYOUTS):
        if name in roots:
            write_layout(root / name, name, sizes, seed=seed + 10 * place, jobs=jobs)


def write_layout(folder: Path, name: str, sizes: Sizes, *, seed: int = 0, jobs: int = 1) -> None:
    """Write one data set's layout into a new or empty folder. Raises InputError for unknown names and used folders."""
    if name not in LAYOUTS:
        raise InputError(f"layout {name!r} is not known: choose from {', '.join(LAYOUTS)}")
    if sizes.train < 2 or sizes.test < 1:
        raise InputError(f"{sizes.train} training and {sizes.test} test scenes are too few: give at least 2 and 1")
    with new_folder(folder) as partial:
        LAYOUTS[name](partial, sizes, seed, jobs)


def _music(root: Path, sizes: Sizes, seed: int, jobs: int) -> None:
    for kind, count in (("solo", 1), ("duet", 2)):
        annotations: list[dict[str, Any]] = []
        for split in ("train", "test"):
            lines = []
            for place, item in enumerate(_scenes(root, kind, split, count, sizes, seed, jobs)):
                # solos and duets share the folders
                id = f"{split[:2]}{kind[0]}{place:08d}_000_00000"
                _copy(item, root, id, id[:-10])
                named = _sounding(item)
                lines.append(",".join([id, *(source.label for source in named)]))
                if split == "test":
                    annotations.append({"file": id, **_music_truth(kind, named)})
            suffix = "txt" if split == "train" else "csv"
            kept = [line.split(",")[0] if kind == "duet" and split == "test" else line for line in lines]
            _write(root / "metadata" / f"music_{kind}_{split}.{suffix}", "\n".join(kept) + "\n")
        _write(root / "metadata" / f"music_{kind}.json", json.dumps(annotations))


def _music_truth(kind: str, sources: list[Source]) -> dict[str, Any]:
    truth: dict[str, Any] = {}
    for number, source in enumerate(sources, start=1):
        suffix = "" if kind == "solo" else f"_src{number}"
        x1, y1, x2, y2 = source.boxes[0]
        truth |= {f"class{suffix}": source.label, f"bbox{suffix}": [x1, y1, x2 - x1, y2 - y1]}
    return truth


def _vggsound(root: Path, sizes: Sizes, seed: int, jobs: int) -> None:
    boxes: list[dict[str, Any]] = []
    tested: list[tuple[str, str]] = []
    for split in ("train", "test"):
        lines = []
        for place, item in enumerate(_scenes(root, "vgg", split, 1, sizes, seed, jobs)):
            id = f"{split[:2]}{place:09d}_{30 + place % 60:06d}"
            _copy(item, root, id, id)
            (source,) = _sounding(item)
            lines.append(f"{id},{source.label}")
            if split == "test":
                tested.append((id, source.label))
                boxes.append({"file": id, "class": source.label, "bbox": [list(box) for box in source.boxes]})
        name = "vggsound_train.txt" if split == "train" else "vggsound_single_test.csv"
        _write(root / "metadata" / name, "\n".join(lines) + "\n")
    _write(root / "metadata" / "vggss.json", json.dumps(boxes))
    _write(root / "metadata" / "vggss_test.csv", "".join(f"{id}\n" for id, _ in tested))
    pairs = _pairs(tested)
    _write(root / "metadata" / "vggsound_duet_test.csv", "".join(f"{','.join(pair)}\n" for pair in pairs))


def _instruments(root: Path, sizes: Sizes, seed: int, jobs: int) -> None:
    tested: list[tuple[str, str]] = []
    (root / "masks").mkdir(parents=True, exist_ok=True)
    for split in ("train", "test"):
        lines = []
        for place, item in enumerate(_scenes(root, "instruments", split, 1, sizes, seed, jobs)):
            id = f"tr{place:09d}_{place % 60:06d}" if split == "train" else f"sample{place:04d}"
            _copy(item, root, id, id)
            (source,) = _sounding(item)
            lines.append(f"{id},{source.label}")
            if split == "test":
                tested.append((id, source.label))
                assert source.mask is not None
                mask = read_still("mask", source.mask, import_cv2().IMREAD_GRAYSCALE)
                (root / "masks" / f"{id}.pkl").write_bytes(pickle.dumps(mask > 0))
        suffix = "txt" if split == "train" else "csv"
        _write(root / "metadata" / f"vgginstruments_{split}.{suffix}", "\n".join(lines) + "\n")
        if split == "train":
            _write(root / "metadata" / "vgginstruments_multi_train.txt", "\n".join(lines) + "\n")
    _write(root / "metadata" / "vgginstruments_multi_test.csv", "".join(f"{','.join(p)}\n" for p in _pairs(tested)))


# each function writes one data set below its own root
LAYOUTS: dict[str, Callable[[Path, Sizes, int, int], None]] = {
    "MUSIC": _music,
    "VGGSound": _vggsound,
    "VGGSound-Instruments": _instruments,
}


def _scenes(root: Path, kind: str, split: str, count: int, sizes: Sizes, seed: int, jobs: int) -> list[Item]:
    """Render the scenes of a split below root/rendered and return those in which `count` sources are visible.

    kind: "solo" or another name of the folder. sizes: how many scenes, and their (width, height) and seconds. jobs:
    processes.
    """
    config = SceneConfig(
        split=split,
        sources=(count, count),
        silent=(sizes.silent, sizes.silent),
        off_screen=0.0,
        size=sizes.size,
        seconds=sizes.seconds,
    )
    folder = root / "rendered" / f"{kind}-{split}"
    wanted = sizes.train if split == "train" else sizes.test
    manifest = synthesize(folder, scenes=wanted, config=config, seed=seed, jobs=jobs)
    items = read_manifest(manifest).items
    if split == "test":
        # the test list of a data set has only the classes of its training list
        trained = read_manifest(folder.with_name(f"{kind}-train") / "manifest.jsonl").items
        known = {source.label for item in trained for source in _sounding(item)}
        items = tuple(item for item in items if {source.label for source in _sounding(item)} <= known)
    # scenes in which something is entirely hidden are left out of the lists
    return [item for item in items if len(_sounding(item)) == count]


def _sounding(item: Item) -> list[Source]:
    return [source for source in item.sources if source.sounding and source.on_screen and source.boxes]


def _copy(item: Item, root: Path, frame: str, audio: str) -> None:
    assert item.frame is not None and item.audio is not None
    for name in ("frames", "audio"):
        (root / name).mkdir(parents=True, exist_ok=True)
    shutil.copy(item.frame, root / "frames" / f"{frame}.jpg")
    shutil.copy(item.audio, root / "audio" / f"{audio}.wav")


def _pairs(tested: list[tuple[str, str]]) -> list[tuple[str, str, str, str]]:
    """Pair each item with the next one of another class."""
    found = []
    for place, (id, label) in enumerate(tested):
        others = [other for other in tested[place + 1 :] + tested[:place] if other[1] != label]
        if others:
            found.append((id, label, *others[0]))
    return found


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
