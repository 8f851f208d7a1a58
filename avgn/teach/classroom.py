"""Teaches a server's bundle what its visitors hold before the camera: a `Teacher` of avgn.runtime.web.lessons.

Neither pictures nor sounds are kept, only what the frozen encoders make of them, and these as long as the server runs.

Legend: P cells, h x w the grid.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from avgn.runtime.arrays import Floats, Pixels
from avgn.runtime.bundle import BUNDLE_FILE, Bundle
from avgn.runtime.contract import HALVES
from avgn.runtime.errors import InputError
from avgn.runtime.image import resize
from avgn.runtime.localizer import Localizer
from avgn.runtime.outputs import new_folder
from avgn.runtime.regions import Box, region_box
from avgn.runtime.web.lessons import LessonError, Looked, Recording
from avgn.runtime.web.lessons import Taught as Changed
from avgn.teach import tokens as edits
from avgn.teach.bank import Bank, read_bank
from avgn.teach.bundles import check_target, read_tokens
from avgn.teach.examples import Example, Examples, Picture, SilentError, hear, shows
from avgn.teach.features import Encoders
from avgn.teach.fitting import Learnt, fit_pictures, heat
from avgn.teach.judging import Judge
from avgn.teach.lesson import bank_for, learn_all, read_noises
from avgn.teach.marks import covered, draw_boxes
from avgn.teach.report import report_on
from avgn.teach.writing import Before, write_taught

# classes that visitors may teach, and examples of all of them: each holds 1.6 MB of features
MOST_CLASSES, MOST_EXAMPLES = 20, 60
# of the map's range, what counts as the region that is offered
REGION = 0.5
# what a picture holds at a place is what it holds there in another one where both go together so well
SAME = 0.8
# log-odds from which on a class that is there already would take the sound for its own
LIKE = 0.0
# log-odds heard from which on a class that was taught needs to know of the new example
NEAR = -4.0
ARCHIVE = "avgn-taught"

Load = Callable[[Bundle], Localizer]


@dataclass(frozen=True, kw_only=True)
class _Edition(Changed):
    """A bundle with what was taught so far; `folder` is ours and goes with it."""

    bundle: Bundle
    folder: Path | None
    classes: Mapping[str, Examples]
    learnt: Mapping[str, Learnt]
    reports: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Seen:
    """An example with its pictures [H, W, 3], of which the last one may be marked."""

    example: Example
    pictures: tuple[Pixels, ...]


class Classroom:
    """Teaches the bundle of one server, for all of its visitors. Use as a context manager, or `close` it: its folder
    goes then."""

    def __init__(self, localizer: Localizer, load: Load, output: str | os.PathLike[str] | None = None) -> None:
        """`load`: loads a bundle into what the server runs, as `Localizer.load` does; `output`: a new folder that
        always holds the bundle as it is after a lesson.

        Raises InputError, with the reason, for a bundle that can't be taught one class at a time, and for a folder that
        can't be written; MissingExtraError without onnx.
        """
        if not isinstance(localizer.bundle, Bundle):
            raise InputError("an engine without a bundle can't be taught: load one with Localizer.load")
        self._source = read_tokens(localizer.bundle)
        self._load = load
        self._output = None if output is None else Path(output)
        if self._output is not None:
            check_target(localizer.bundle, self._output, overwrite=False)
        self._encoders = Encoders(self._source)
        # one class alone stands against the bank, or against nothing
        self._bank = read_bank()
        self._bank_for([""])
        self._before = Before(self._source)
        self._noises = read_noises(self._source)
        self._folder = Path(tempfile.mkdtemp(prefix="avgn-teach-"))
        self._writing = threading.Lock()
        self._closed = False
        self._count = self._packed = 0
        self._archive: Path | None = None
        self._now = _Edition(
            localizer=localizer, bundle=localizer.bundle, folder=None, classes={}, learnt={}, reports={}
        )

    def __enter__(self) -> Classroom:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave nothing behind; what is being written is waited for, and then goes, too."""
        self._closed = True
        try:
            with self._writing:
                pass
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def taught(self) -> Mapping[str, int]:
        """The number of examples of each class that was taught here."""
        return {label: len(examples.used) for label, examples in self._now.classes.items()}

    @property
    def known(self) -> tuple[str, ...]:
        """All classes that there are now."""
        return self._now.bundle.info.classes

    def look(self, recording: Recording) -> Looked:
        """Make an example of a recording: its region is the hottest one of the map that the class would have by it."""
        info = self._encoders.info
        try:
            samples = (recording.samples / 32768).astype(np.float32)
            heard, _ = hear(samples, recording.rate, self._encoders)
        except SilentError:
            raise LessonError("silent") from None
        pictures = [resize(picture, info.image_size) for picture in recording.pictures]
        if not shows(pictures[-1]):
            raise LessonError("dark")
        shown = [picture for picture in pictures if shows(picture)]
        cells = self._encoders.see(np.stack(shown))
        example = Example(
            name="recording", kind="clip", pictures=tuple(Picture(cells=each) for each in cells), heard=heard
        )
        hottest = self._try(example)
        judge = Judge(self._source.tokens, self._noises, info)
        odds = judge.hear(heard)
        best = int(odds.argmax())
        like = judge.tokens[best].label if odds[best] >= LIKE else None
        seconds = round(len(recording.samples) / recording.rate, 1)
        return Looked(
            example=_Seen(example=example, pictures=tuple(shown)),
            box=region_box(hottest, REGION),
            facts={"like": like, "heard_seconds": seconds},
        )

    def learn(self, name: str, looked: Looked, box: Box | None, *, replace: bool) -> Changed:
        """Add an example to a class, which may be new."""
        classes = dict(self._now.classes)
        if name not in classes and len(classes) >= MOST_CLASSES:
            raise LessonError("many-classes", most=MOST_CLASSES)
        if sum(len(examples.used) for examples in classes.values()) >= MOST_EXAMPLES:
            raise LessonError("many-examples", most=MOST_EXAMPLES)
        if not replace and name not in classes and name in self.known:
            raise LessonError("exists", name=name)
        before = classes[name].used if name in classes else []
        classes[name] = Examples(label=name, used=[*before, self._marked(looked.example, box)])
        return self._write(classes, name)

    def forget(self, name: str) -> Changed:
        """Take back what was taught of a class; one that it has replaced is there again."""
        classes = {label: examples for label, examples in self._now.classes.items() if label != name}
        return self._write(classes, None)

    def keep(self, taught: Changed) -> None:
        """Take what was learnt or forgotten for good."""
        assert isinstance(taught, _Edition)
        if self._output is not None:
            with new_folder(self._output, "bundle", overwrite=True) as folder:
                for file in _files(taught.bundle):
                    shutil.copyfile(taught.bundle.path / file, folder / file)
        old, self._now = self._now, taught
        self._archive = None
        if old.folder is not None:
            shutil.rmtree(old.folder, ignore_errors=True)

    def pack(self) -> Path:
        """Return a .zip of the bundle as it is now, in one folder; `avgn` takes that after unpacking."""
        if self._archive is None:
            self._packed += 1
            path = self._folder / f"{ARCHIVE}-{self._packed}.zip"
            with zipfile.ZipFile(path, "w") as archive:
                for file in _files(self._now.bundle):
                    archive.write(self._now.bundle.path / file, f"{ARCHIVE}/{file}")
            for old in self._folder.glob("*.zip"):
                if old != path:
                    old.unlink()
            self._archive = path
        return self._archive

    def _try(self, example: Example) -> Floats:
        """The map [h, w] of the last picture that a class of this example alone would have."""
        grid = self._encoders.info.grid
        found = fit_pictures(Examples(label="", used=[example]), [], self._bank_for([""]).cells, grid)
        assert found is not None
        cells = example.pictures[-1].cells
        return heat(found.line(cells), cells, grid)

    def _bank_for(self, labels: Sequence[str]) -> Bank:
        """What the classes must not fire on."""
        return bank_for(self._source, self._encoders, self._source.tokens, labels, self._bank)[0]

    def _marked(self, seen: _Seen, box: Box | None) -> Example:
        """The example with its box in all pictures that show the same there; the others are left out."""
        if box is None:
            return seen.example
        inside = covered(draw_boxes([box], self._encoders.info.image_size), self._encoders.info.grid)
        last = _cut(seen.pictures[-1], box)
        same = [_alike(_cut(picture, box), last) for picture in seen.pictures]
        pictures = tuple(
            replace(each, inside=inside) for each, kept in zip(seen.example.pictures, same, strict=True) if kept
        )
        return replace(seen.example, pictures=pictures)

    def _write(self, classes: Mapping[str, Examples], name: str | None) -> _Edition:
        """Write, verify and load the bundle with these classes; `name`: the one whose report is asked for."""
        if not classes:
            bundle = self._source.bundle
            return _Edition(localizer=self._load(bundle), bundle=bundle, folder=None, classes={}, learnt={}, reports={})
        source, tokens = self._source, list(self._source.tokens)
        bank = self._bank_for(list(classes))
        known = self._far_from(classes, name)
        lessons = learn_all(source, list(classes.values()), bank, self._noises, known=known)
        tokens = edits.add(tokens, [learnt.token for _, learnt in lessons.pairs], replacing=True)
        fresh, tokens = report_on(source, tokens, lessons, only=set(classes) - set(known))
        reports = {label: fresh.get(label) or self._now.reports[label] for label in classes}
        thresholds = {token.label: token.threshold for token in tokens}
        learnt = {
            examples.label: replace(each, token=replace(each.token, threshold=thresholds[examples.label]))
            for examples, each in lessons.pairs
        }
        self._count += 1
        folder = self._folder / f"edition{self._count}"
        with self._writing:
            if self._closed:
                raise LessonError("failed", reason="")
            try:
                bundle = write_taught(source, tokens, folder, provenance=self._provenance(reports), before=self._before)
                localizer = self._load(bundle)
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise
        facts = {} if name is None else _told(reports[name], len(classes[name].used))
        return _Edition(
            localizer=localizer,
            bundle=bundle,
            folder=folder,
            classes=dict(classes),
            learnt=learnt,
            reports=reports,
            facts=facts,
        )

    def _far_from(self, classes: Mapping[str, Examples], name: str | None) -> dict[str, Learnt]:
        """What was learnt of classes that need not be fitted anew: those that do not hear the newest example.

        With many classes a lesson takes as long as with few.
        """
        known = {label: learnt for label, learnt in self._now.learnt.items() if label in classes and label != name}
        if name is None or not known:
            return known
        newest = classes[name].used[-1]
        judge = Judge([learnt.token for learnt in known.values()], self._noises, self._encoders.info)
        # before the same camera all of them may be seen, but what is not heard is not said
        near = np.zeros(len(known), bool) if newest.heard is None else judge.hear(newest.heard) > NEAR
        return {label: learnt for (label, learnt), close in zip(known.items(), near.tolist(), strict=True) if not close}

    def _provenance(self, report: Mapping[str, Any]) -> dict[str, Any]:
        before = self._source.bundle.info.provenance.get("taught", {})
        known = before if isinstance(before, dict) else {}
        return {"taught": known | {label: facts["examples"] for label, facts in report.items()}}


def _told(facts: Mapping[str, Any], count: int) -> dict[str, Any]:
    """What a page shows of a class's report."""
    mistaken = {**facts["other_sounds_taken_for_it"], **facts["confused_with"]}
    return {
        "examples": count,
        "found": facts["recall"],
        "more": facts["more_examples"],
        "mistaken": [label for label in mistaken if label and label != "noise"][:3],
    }


def _files(bundle: Bundle) -> Sequence[str]:
    """The files of a bundle, its facts last."""
    graphs = [getattr(variant, half) for variant in bundle.info.variants for half in HALVES]
    return [*dict.fromkeys(graphs), BUNDLE_FILE]


def _cut(picture: Pixels, box: Box) -> Floats:
    """A box of a picture [H, W, 3], as grey levels of a fixed size."""
    height, width = picture.shape[:2]
    x1, y1, x2, y2 = box
    left, top = min(int(x1 * width), width - 1), min(int(y1 * height), height - 1)
    part = picture[top : max(top + 1, round(y2 * height)), left : max(left + 1, round(x2 * width))]
    return resize(part, (32, 32)).mean(axis=2, dtype=np.float32)


def _alike(one: Floats, other: Floats) -> bool:
    """Whether two cuts show the same: their correlation."""
    if one is other or np.array_equal(one, other):
        return True
    a, b = one - one.mean(), other - other.mean()
    scale = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return scale > 0 and float((a * b).sum()) >= SAME * scale
