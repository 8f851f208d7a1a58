"""One lesson: a bundle, what it shall know or forget, and the bundle that comes of it, with an honest report.

Legend: K classes.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from avgn.runtime.bundle import Bundle
from avgn.runtime.errors import InputError
from avgn.teach import tokens as edits
from avgn.teach.audio_graph import AudioGraph
from avgn.teach.bank import Bank, read_bank
from avgn.teach.bundles import Taught, check_target, probes, read_tokens
from avgn.teach.examples import Examples, Found, check_contradictions, find_examples, read_examples
from avgn.teach.features import Encoders
from avgn.teach.fitting import Learnt, Lessons, learn
from avgn.teach.names import label_of, named_tokens
from avgn.teach.report import report_on
from avgn.teach.tokens import Rows, Token
from avgn.teach.training import write_examples
from avgn.teach.writing import write_taught

Folder = str | os.PathLike[str]
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What a bundle shall become, in this order: `merge` {new: [old, ...]}, `rename` {old: new}, `keep` or `remove`
    classes, then `names` of the published classifiers and `classes` {name: folder of examples} are added."""

    classes: Mapping[str, Folder] = field(default_factory=dict)
    names: Sequence[str] = ()
    merge: Mapping[str, Sequence[str]] = field(default_factory=dict)
    rename: Mapping[str, str] = field(default_factory=dict)
    keep: Sequence[str] = ()
    remove: Sequence[str] = ()
    replace: bool = False

    def __post_init__(self) -> None:
        if self.keep and self.remove:
            raise InputError("--keep and --remove say the same from two sides: give one of them")
        asked = (self.classes, self.names, self.merge, self.rename, self.keep, self.remove)
        if not any(asked):
            raise InputError(
                "nothing to teach: give --class NAME=FOLDER, --names, --merge, --rename, --keep or --remove"
            )
        # what is stored, and looked for in the tokens, has one spelling
        object.__setattr__(self, "classes", _composed(self.classes))
        object.__setattr__(self, "merge", _composed(self.merge))
        object.__setattr__(self, "rename", {old: edits.composed(new) for old, new in self.rename.items()})
        object.__setattr__(self, "names", tuple(map(edits.composed, self.names)))
        double = sorted(set(self.classes) & set(map(label_of, self.names)))
        if double:
            raise InputError(f"class {double[0]!r} is asked for by examples and by its name: give one of them")
        asked_for = Counter(map(label_of, self.names))
        twice = next((label for label, count in asked_for.items() if count > 1), None)
        if twice is not None:
            raise InputError(f"--names asks for {twice!r} twice: give it once")
        for label in (*self.classes, *asked_for):
            edits.check_label(label)


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """The new bundle, and what is to be said of each class that was taught (`report` as JSON can hold it)."""

    bundle: Bundle
    report: dict[str, Any]


def teach(
    bundle: Folder | Bundle,
    examples: Mapping[str, Folder],
    output: Folder | None = None,
    *,
    replace: bool = False,
    overwrite: bool = False,
) -> Bundle:
    """Teach a bundle classes by folders of examples {name: folder}, and return the new one.

    `output`: its folder; None: one that goes when the program ends. Raises InputError for what can't be used, and
    FailureError where the new graphs are not what they shall be. `give_lesson` also returns the report.
    """
    return give_lesson(bundle, Changes(classes=examples, replace=replace), output, overwrite=overwrite).bundle


def give_lesson(
    bundle: Folder | Bundle,
    changes: Changes,
    output: Folder | None = None,
    *,
    overwrite: bool = False,
    manifest: Folder | None = None,
    say: Say = lambda message: None,
) -> Lesson:
    """Make the changes and write the new bundle, verified; it appears whole or not at all.

    `output`: its folder; None: one that goes when the program ends. `overwrite`: replace a bundle that is there.
    `manifest`: a folder that the same examples are written to as `avgn train` reads them. `say`: is given sentences of
    what is being done. Raises InputError for changes and examples that can't be used, FailureError where the new graphs
    are not what they shall be.
    """
    begin = time.perf_counter()
    source = read_tokens(bundle if isinstance(bundle, Bundle) else Bundle.load(bundle))
    target = _temporary() if output is None else Path(output)
    check_target(source.bundle, target, overwrite)
    tokens = edit(source.tokens, changes)
    found = {label: find_examples(label, folder) for label, folder in changes.classes.items()}
    for label in (*changes.classes, *map(label_of, changes.names)):
        if not changes.replace and any(token.label == label for token in tokens):
            raise edits.taken(label)
    check_contradictions({label: files for label, (files, _) in found.items()})
    named = named_tokens(changes.names, source, say) if changes.names else []
    tokens = edits.add(tokens, named, replacing=changes.replace)
    report: dict[str, Any] = {"classes": {}, "named": [token.label for token in named]}
    if found:
        lessons = _learn(source, tokens, found, say)
        tokens = edits.add(tokens, [learnt.token for _, learnt in lessons.pairs], replacing=changes.replace)
        report["classes"], tokens = report_on(source, tokens, lessons)
        report["notes"] = lessons.notes
        if manifest is not None:
            write_examples([examples for examples, _ in lessons.pairs], manifest, overwrite=overwrite)
    say("writing the bundle")
    provenance = _provenance(source, changes, report, [token.label for token in tokens])
    made = write_taught(source, tokens, target, provenance=provenance, overwrite=overwrite, say=say)
    report["known"] = list(made.info.classes)
    report["seconds"] = round(time.perf_counter() - begin, 1)
    return Lesson(bundle=made, report=report)


def edit(tokens: Sequence[Token], changes: Changes) -> list[Token]:
    """Merge, rename, keep and remove."""
    found = list(tokens)
    for label, names in changes.merge.items():
        found = edits.merge(found, names, label)
    if changes.rename:
        found = edits.rename(found, changes.rename)
    # what was renamed may be meant by either name
    if changes.keep:
        found = edits.keep(found, [changes.rename.get(name, name) for name in changes.keep])
    if changes.remove:
        found = edits.remove(found, [changes.rename.get(name, name) for name in changes.remove])
    return found


def _composed(named: Mapping[str, Any]) -> dict[str, Any]:
    found = {edits.composed(label): value for label, value in named.items()}
    if len(found) < len(named):
        labels = Counter(map(edits.composed, named))
        raise InputError(f"two classes would be called {max(labels, key=labels.__getitem__)!r}: choose other names")
    return found


def _learn(source: Taught, tokens: Sequence[Token], found: Mapping[str, tuple[list[Found], int]], say: Say) -> Lessons:
    encoders = Encoders(source)
    read: list[Examples] = []
    for label, (files, passed) in found.items():
        say(f"{label}: reading {len(files)} examples")
        examples = read_examples(label, files, encoders, lambda: None)
        examples.passed = passed
        _check_usable(examples)
        read.append(examples)
    bank, notes = bank_for(source, encoders, tokens, list(found))
    return learn_all(source, read, bank, read_noises(source), notes=notes, say=say)


def learn_all(
    source: Taught,
    classes: Sequence[Examples],
    bank: Bank,
    noises: Rows,
    *,
    known: Mapping[str, Learnt] = MappingProxyType({}),
    notes: Sequence[str] = (),
    say: Say = lambda message: None,
) -> Lessons:
    """Fit classes against each other and against the bank; those that are `known` stay as they are."""
    threshold = float(np.median([token.threshold for token in source.tokens]))
    pairs = []
    for examples in classes:
        learnt = known.get(examples.label)
        if learnt is None:
            say(f"{examples.label}: fitting")
            others = [other for other in classes if other is not examples]
            learnt = learn(examples, others, bank, noises, source.bundle.info.grid, threshold)
        pairs.append((examples, learnt))
    return Lessons(pairs=tuple(pairs), bank=bank, noises=noises, notes=list(notes))


def read_noises(source: Taught) -> Rows:
    """The rows of what the bundle counts as noise."""
    return AudioGraph(source.bundle.graph(source.exact, "audio")).read_noises()


def _check_usable(examples: Examples) -> None:
    """Raise InputError for a class that nothing lets hear, with what was wrong with its files."""
    if examples.sounds:
        return
    if examples.used:
        raise InputError(
            f"class {examples.label!r} has {len(examples.used)} pictures and no sound that can be used"
            f"{_why(examples)}: what never sounds is never found, so add clips or sounds of it"
        )
    raise InputError(f"no example of class {examples.label!r} can be used{_why(examples)}: mend or replace them")


def _why(examples: Examples) -> str:
    if not examples.left_out:
        return ""
    name, reason = examples.left_out[0]
    more = f", and {len(examples.left_out) - 1} more" if len(examples.left_out) > 1 else ""
    return f" ({name}: {reason}{more})"


def bank_for(
    source: Taught, encoders: Encoders, tokens: Sequence[Token], new: Sequence[str], bank: Bank | None = None
) -> tuple[Bank, list[str]]:
    """What the new classes must not fire on: things that the bundle knows, and what has no name.

    Raises InputError for encoders that the bank does not fit, where no other example stands against a class.
    """
    notes: list[str] = []
    bank = bank or read_bank()
    waveform, image = probes(source.bundle.info)
    patch = waveform[1, None, : source.bundle.info.graph_samples]
    known = {token.label for token in tokens} - set(new)
    sounds = bank.sounds.without(set(bank.sounds.labels) - known - {""})
    cells = bank.cells.without(set(bank.cells.labels) - known - {""})
    changed = []
    if not bank.sounds.fits(encoders.hear(patch)):
        sounds = sounds.nothing()
        changed.append("sounds")
    if not bank.cells.fits(encoders.see(image[:1])[0, ::7]):
        cells = cells.nothing()
        changed.append("pictures")
    if changed:
        reason = f"the bundle's encoder of {' and of '.join(changed)} was trained further, or its pictures have another"
        reason += " size: what other things give is not known"
        if len(new) < 2:
            raise InputError(f"{reason}; teach two classes or more at once, which stand against each other")
        notes.append(f"{reason}, and only the classes' examples stand against each other")
    return Bank(sounds=sounds, cells=cells), notes


def _provenance(source: Taught, changes: Changes, report: Mapping[str, Any], labels: Sequence[str]) -> dict[str, Any]:
    """What bundle.json says of the lesson: its classes and numbers of examples, no path and no date."""
    before = source.bundle.info.provenance.get("taught", {})
    taught: dict[str, Any] = dict(before) if isinstance(before, dict) else {}
    gone = {*changes.remove, *changes.rename, *(name for names in changes.merge.values() for name in names)}
    taught = {label: facts for label, facts in taught.items() if label not in gone}
    taught |= {label: {"merged": list(names)} for label, names in changes.merge.items()}
    taught |= {new: {"renamed": old} for old, new in changes.rename.items()}
    taught |= {label_of(asked): {"named": asked} for asked in changes.names}
    taught |= {label: facts["examples"] for label, facts in report["classes"].items()}
    # what was merged or renamed may have been left out afterwards
    return {"taught": {label: facts for label, facts in taught.items() if label in labels}}


def _temporary() -> Path:
    folder = tempfile.mkdtemp(prefix="avgn-teach-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder) / "bundle"
