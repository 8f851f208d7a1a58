"""What a lesson came to, said honestly: every example is judged by tokens that never met it.

Legend: N patches, P cells, K classes, h x w the grid.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from avgn.runtime.arrays import Floats
from avgn.runtime.bundle_schema import Joint
from avgn.runtime.joint import LIMIT, judge
from avgn.teach.bundles import Taught
from avgn.teach.examples import Examples, Picture
from avgn.teach.fit import Line
from avgn.teach.fitting import Learnt, Lessons, heat
from avgn.teach.judging import Judge, pool
from avgn.teach.tokens import Token
from avgn.world.settings import SEEN_OFFSET

# fewer examples than these are said to be few, and more than those change little
FEW, PLENTY = 5, 20
# a picture shows a class that peaks above this: halfway between what is in view and what is not
SEEN_AT = 5.0
# what is in plain view, in log-odds seen: the median of the built-in classes
PLAIN_VIEW = 11.0
# what is heard alone is said by this probability (DecisionConfig.off_screen_margin)
CERTAIN = 1.95
# of other sounds, what may be taken for the class while it is in view before its threshold rises, and by how much it
# may rise
MOST_FALSE, MOST_RISE = 0.02, 2.0


def report_on(
    source: Taught, tokens: Sequence[Token], lessons: Lessons, *, only: Collection[str] | None = None
) -> tuple[dict[str, Any], list[Token]]:
    """Judge each class that was taught, or `only` some; returns what is to be said of it, and the tokens with their
    thresholds."""
    info = source.bundle.info
    assert info.joint is not None
    changed = list(tokens)
    rows: dict[str, Any] = {}
    for examples, learnt in lessons.pairs:
        if only is not None and examples.label not in only:
            continue
        at = next(k for k, token in enumerate(changed) if token.label == examples.label)
        judged = _Judged(changed, at, examples, learnt, lessons, info.joint, Judge(changed, lessons.noises, info))
        threshold = judged.threshold(learnt.token.threshold)
        changed[at] = replace(changed[at], threshold=threshold)
        rows[examples.label] = judged.say(threshold)
    return rows, changed


class _Judged:
    """One class's examples, each heard and seen without what was learnt from it."""

    def __init__(
        self,
        tokens: Sequence[Token],
        at: int,
        examples: Examples,
        learnt: Learnt,
        lessons: Lessons,
        rule: Joint,
        hearing: Judge,
    ) -> None:
        self.at, self.examples, self.lessons, self.rule = at, examples, lessons, rule
        self.labels = [token.label for token in tokens]
        self.base = [token.threshold for token in tokens]
        self.judge = hearing
        self.heard = [
            self._hear(each.heard, line)
            for each, line in zip(examples.sounds, learnt.heard_without, strict=True)
            if each.heard is not None
        ]
        # one that shows nothing has no lines
        lines = learnt.seen_without or (None,) * len(examples.seen)
        self.seen = [self._see(each.pictures, line) for each, line in zip(examples.seen, lines, strict=True)]
        self.others = [(label, self._hear(part, None)) for label, part in self._foreign()]

    def threshold(self, usual: float) -> float:
        """The usual threshold, or a higher one where other sounds would be taken for the class."""
        weight = self.rule.visual_weight
        other = np.array([heard[self.at] for _, heard in self.others]) + weight * PLAIN_VIEW
        own = np.array([heard[self.at] for heard in self.heard]) + weight * PLAIN_VIEW
        if not len(other) or float((other >= usual).mean()) <= MOST_FALSE:
            return usual
        wanted = float(np.quantile(other, 1 - MOST_FALSE))
        # what it gains must not cost more of its own than one in five
        return round(max(usual, min(wanted, usual + MOST_RISE, float(np.quantile(own, 0.2)))), 3)

    def say(self, threshold: float) -> dict[str, Any]:
        """Everything that the report says of the class."""
        thresholds = list(self.base)
        thresholds[self.at] = threshold
        rule = replace(self.rule, thresholds=tuple(thresholds))
        pairs, taken = self._pairs(), Counter[str]()
        found = 0
        for heard, (seen, maps) in pairs:
            claimed = self._claimed(rule, heard, seen, maps)
            found += self.at in claimed
            if self.at not in claimed:
                taken.update(self.labels[k] for k in claimed)
        if not pairs:
            found = sum(float(heard[self.at]) >= CERTAIN for heard in self.heard)
        false = [label or "noise" for label, heard in self.others if self._taken(rule, heard)]
        count = len(pairs) or len(self.heard)
        # one example alone was met by everything that could judge it
        recall = found / count if len(self.heard) > 1 else None
        share = len(false) / max(1, len(self.others))
        facts: dict[str, Any] = {
            "examples": self._counts(),
            "left_out": [{"file": name, "reason": reason} for name, reason in self.examples.left_out],
            "recall": _rounded(recall),
            "precision": _rounded(None if recall is None else recall / (recall + share) if recall else 0.0),
            "heard": _share([self._hears(rule, heard) for heard in self.heard]),
            "seen": _share([float(seen[self.at]) >= SEEN_AT for seen, _ in self.seen]),
            "other_sounds": len(self.others),
            "other_sounds_taken_for_it": dict(Counter(false).most_common(5)),
            "confused_with": dict(taken.most_common(5)),
            "threshold": threshold,
        }
        facts["more_examples"] = self._more(recall)
        facts["warnings"] = self._warnings(facts)
        return facts

    def _counts(self) -> dict[str, int]:
        kinds = Counter(each.kind for each in self.examples.used)
        counts = {f"{kind}s": kinds[kind] for kind in ("clip", "picture", "sound") if kinds[kind]}
        return counts | ({"passed over": self.examples.passed} if self.examples.passed else {})

    def _more(self, recall: float | None) -> int:
        """How many more examples are likely to help: up to FEW always, up to PLENTY where some were not found."""
        have = min([len(self.heard), *([len(self.seen)] if self.seen else [])])
        if have < FEW:
            return FEW - have
        return 0 if recall is None or recall >= 0.9 or have >= PLENTY else min(have, PLENTY - have)

    def _warnings(self, facts: dict[str, Any]) -> list[str]:
        said = []
        if len(self.heard) < 2:
            said.append("one sound says nothing of the next one: how well it is heard is not known")
        if len(self.heard) < FEW or 0 < len(self.seen) < FEW:
            said.append(f"fewer than {FEW} examples of a kind: what is said of others is a guess")
        if not self.seen:
            said.append("it is heard, but no picture shows it: it is only ever said to be off-screen")
        elif _known(facts["seen"]) < 0.5 <= _known(facts["heard"]):
            said.append("it is heard, but can't be seen well: mark it with boxes, or give pictures that it fills")
        if self.seen and _known(facts["heard"]) < 0.5 <= _known(facts["seen"]):
            said.append("it is seen, but can't be heard well: give louder sounds with nothing else in them")
        if self.examples.passed:
            said.append(f"{self.examples.passed} more files were passed over: as many are read as help")
        return said

    def _foreign(self) -> list[tuple[str, Floats]]:
        """Sounds of other things: the bank's, and the other classes' examples."""
        things = self.lessons.bank.sounds
        parts = list(zip(things.labels, things.parts(), strict=True))
        for other, _ in self.lessons.pairs:
            if other is not self.examples:
                parts += [(other.label, each.heard) for each in other.sounds if each.heard is not None]
        return parts

    def _hear(self, features: Floats, line: Line | None) -> Floats:
        """Log-odds [K], those of the class by a line that did not meet the sound."""
        heard = self.judge.hear(features)
        if line is not None:
            heard[self.at] = pool(self.judge.gate(line(features)[:, None], features))[0]
        return heard

    def _see(self, pictures: Sequence[Picture], line: Line | None) -> tuple[Floats, Floats]:
        """Log-odds [K] and maps [K, h, w] of the picture that shows the class best."""
        best: tuple[Floats, Floats] | None = None
        for picture in pictures:
            seen, maps = self.judge.see(picture.cells)
            if line is not None:
                maps[self.at] = heat(line(picture.cells), picture.cells, self.judge.grid)
                seen[self.at] = maps[self.at].max() - SEEN_OFFSET
            if best is None or seen[self.at] > best[0][self.at]:
                best = seen, maps
        assert best is not None
        return best

    def _pairs(self) -> list[tuple[Floats, tuple[Floats, Floats]]]:
        """Each sound with a picture: of the same clip, or any of the class's."""
        if not self.seen:
            return []
        own = [number for number, each in enumerate(self.examples.seen) if each.heard is not None]
        places = {id(self.examples.seen[number]): number for number in own}
        return [
            (heard, self.seen[places.get(id(each), number % len(self.seen))])
            for number, (heard, each) in enumerate(zip(self.heard, self.examples.sounds, strict=True))
        ]

    def _claimed(self, rule: Joint, heard: Floats, seen: Floats, maps: Floats) -> list[int]:
        verdict = judge(rule, _probability(heard), _probability(seen), 0.2 * maps + heard[:, None, None])
        return [int(k) for k in np.flatnonzero(verdict.claimed)]

    def _hears(self, rule: Joint, heard: Floats) -> bool:
        """Whether a sound is enough for the class when it is in plain view."""
        return float(heard[self.at]) + rule.visual_weight * PLAIN_VIEW >= rule.thresholds[self.at]

    def _taken(self, rule: Joint, heard: Floats) -> bool:
        """Whether another thing's sound would be taken for the class while that is in plain view."""
        behind = float(heard.max()) - float(heard[self.at]) - rule.visual_weight * PLAIN_VIEW
        return self._hears(rule, heard) and behind <= rule.margin and float(heard[self.at]) >= rule.floor


def _share(hits: Sequence[bool]) -> float | None:
    """The share of examples that were left out; None where there was one, which everything had met, or none."""
    return None if len(hits) < 2 else _rounded(float(np.mean(hits)))


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _known(value: float | None) -> float:
    return 1.0 if value is None else value


def _percent(value: float | None) -> str:
    return "unknown" if value is None else f"{100 * value:.0f} %"


def _probability(odds: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-np.clip(odds, -LIMIT, LIMIT))), np.float32)


def report_lines(report: dict[str, Any]) -> list[str]:
    """The report for people."""
    lines = []
    for label, facts in report["classes"].items():
        counts = ", ".join(f"{count} {kind}" for kind, count in facts["examples"].items())
        lines.append(f"{label}: {counts}")
        lines.append(
            f"  left out in turn: found {_percent(facts['recall'])} (heard {_percent(facts['heard'])}, seen "
            f"{_percent(facts['seen'])}), precision {_percent(facts['precision'])}"
        )
        false = sum(facts["other_sounds_taken_for_it"].values())
        named = ", ".join(f"{name} {count}" for name, count in facts["other_sounds_taken_for_it"].items())
        named = f": {named}" if named else ""
        lines.append(f"  of {facts['other_sounds']} other sounds {false or 'none'} taken for it{named}")
        if facts["confused_with"]:
            names = ", ".join(f"{name} {count}" for name, count in facts["confused_with"].items())
            lines.append(f"  taken for others: {names}")
        more = facts["more_examples"]
        lines.append(f"  {more} more examples are likely to help" if more else "  more examples would help little")
        lines += [f"  warning: {text}" for text in facts["warnings"]]
        lines += [f"  left out {each['file']}: {each['reason']}" for each in facts["left_out"][:20]]
        if len(facts["left_out"]) > 20:
            lines.append(f"  and {len(facts['left_out']) - 20} more files left out")
    if report["named"]:
        lines.append(f"by their names, without examples: {', '.join(report['named'])}")
    lines += [f"note: {text}" for text in report.get("notes", [])]
    lines.append(f"{len(report['known'])} classes in {report['seconds']:.1f} s")
    return lines
