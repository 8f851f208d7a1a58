"""From raw probabilities and maps to what is said about a frame: pure functions over an explicit state.

K classes, h x w map grid. Per class: heard (p^a), seen (p^v); both: a source on screen, heard only: off-screen.
Probabilities are smoothed in time; a class turns on at its threshold, off at `release` times that, and only when
the change has lasted for the minimum duration. What is heard but never seen contradicts the picture, and is mostly a
mixture of what is seen: it is said only once it was nearly certain for a while.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, replace

import numpy as np
import numpy.typing as npt

from avgn.runtime.arrays import Floats
from avgn.runtime.bundle import BundleInfo
from avgn.runtime.bundle_schema import Joint
from avgn.runtime.errors import InputError
from avgn.runtime.joint import Verdict, judge
from avgn.runtime.regions import Box, Point, peak_of, region_box

Flags = npt.NDArray[np.bool_]
Times = npt.NDArray[np.float64]

# how many are said of one source
ALTERNATIVES = 3
STATES = ("source", "off-screen", "unknown", "none")


@dataclass(frozen=True, kw_only=True)
class DecisionConfig:
    """Constants of the decision layer; durations in seconds, levels in dBFS of the audio window's RMS.

    A sound that was never seen is said to be off-screen once its probability has been above
    threshold + `off_screen_margin` * (1 - threshold) for `off_screen_seconds`.
    """

    audio_smoothing: float = 0.05
    visual_smoothing: float = 0.1
    release: float = 0.7
    min_on: float = 0.0
    min_off: float = 0.1
    silence_db: float = -60.0
    unknown_db: float = -40.0
    unknown_seconds: float = 0.3
    box_fraction: float = 0.5
    off_screen_margin: float = 0.75
    off_screen_seconds: float = 0.6

    def __post_init__(self) -> None:
        for name in (
            "audio_smoothing",
            "visual_smoothing",
            "min_on",
            "min_off",
            "unknown_seconds",
            "off_screen_seconds",
        ):
            if not 0 <= getattr(self, name) <= 60:
                raise InputError(f"decision.{name} must be from 0 to 60 seconds, got {getattr(self, name)}")
        for name in ("release", "box_fraction"):
            if not 0 < getattr(self, name) <= 1:
                raise InputError(f"decision.{name} must be above 0 and at most 1, got {getattr(self, name)}")
        if not 0 <= self.off_screen_margin < 1:
            raise InputError(f"decision.off_screen_margin must be from 0 to below 1, got {self.off_screen_margin}")
        for name in ("silence_db", "unknown_db"):
            if not -200 <= getattr(self, name) <= 20:
                raise InputError(f"decision.{name} must be from -200 to 20 dBFS, got {getattr(self, name)}")

    @classmethod
    def for_bundle(cls, info: BundleInfo) -> DecisionConfig:
        """Return the defaults with the bundle's own overrides; raises InputError for a name that is not known."""
        known = {entry.name for entry in fields(cls)}
        if unknown := sorted(set(info.decision) - known):
            raise InputError(f"bundle decision {unknown[0]!r} is not known: use some of {', '.join(sorted(known))}")
        return cls(**info.decision)


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What one stream decides by: the constants with the classes and thresholds [K] of a bundle."""

    config: DecisionConfig
    classes: tuple[str, ...]
    audio_thresholds: Floats
    visual_thresholds: Floats
    has_presence: bool
    joint: Joint | None = None

    @classmethod
    def for_bundle(cls, info: BundleInfo, config: DecisionConfig | None = None) -> Rules:
        return cls(
            config=config or DecisionConfig.for_bundle(info),
            classes=info.classes,
            audio_thresholds=np.asarray(info.thresholds.audio, np.float32),
            visual_thresholds=np.asarray(info.thresholds.visual, np.float32),
            has_presence=info.has_presence,
            joint=info.joint,
        )


@dataclass(frozen=True, kw_only=True)
class Hysteresis:
    """Holds smoothed values [K], which of them are on, and since when (seconds, NaN: not at all) each one wants to
    change.

    `said` [K] is the value that the decision stands for: the last one that did not speak for a change.
    """

    value: Floats
    on: Flags
    since: Times
    said: Floats


@dataclass(frozen=True, kw_only=True)
class DecisionState:
    """Everything that one frame's decision hands to the next. Never modified, only replaced.

    Of what is heard [K]: which are claimed, and since when (seconds, NaN: not) the others have been nearly certain.
    `joint`: what both halves say together, where the bundle has a rule for it.
    """

    time: float | None
    audio: Hysteresis
    visual: Hysteresis
    claimed: Flags
    certain_since: Times
    joint: Hysteresis
    loud_since: float = math.nan

    @classmethod
    def start(cls, count: int) -> DecisionState:
        """Return the state before the first frame."""
        zeros, never = np.zeros(count, np.float32), np.full(count, np.nan)
        gate = Hysteresis(value=zeros, on=np.zeros(count, bool), since=never, said=zeros)
        return cls(time=None, audio=gate, visual=gate, claimed=np.zeros(count, bool), certain_since=never, joint=gate)


@dataclass(frozen=True, kw_only=True)
class Heard:
    """One class that sounds. On screen it has a peak (x, y), a box (left, top, right, bottom) and its map [h, w].

    Peak and box are parts of the picture's width and height, from 0 to 1. `index` is the class's place among the
    bundle's; `audio_prob` and `visual_prob` are the model's probabilities that it sounds and that it is visible,
    smoothed. `certainty` is the decision's own: 0.5 at the class's threshold, 1 where nothing is left to doubt; a dip
    of the probabilities that has not changed the decision does not change it either. `alternatives` are classes that
    would stand for the same thing, with their probabilities.
    """

    label: str
    index: int
    audio_prob: float
    visual_prob: float
    on_screen: bool
    certainty: float = 1.0
    peak: Point | None = None
    box: Box | None = None
    map: Floats | None = field(default=None, compare=False)
    alternatives: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What is said about one frame; `state` is one of STATES."""

    state: str
    sources: tuple[Heard, ...]


def step(
    rules: Rules,
    state: DecisionState,
    *,
    time: float,
    audio_prob: Floats,
    visual_prob: Floats,
    maps: Floats,
    loudness_db: float,
) -> tuple[DecisionState, Decision]:
    """Decide one frame.

    `time` in seconds; audio_prob, visual_prob [K]; maps [K, h, w]; `loudness_db` of the frame's audio window.
    Without presence heads a class is heard when it is not silent, and seen when its map's maximum passes the
    visual threshold; the maximum then stands in for both probabilities.
    """
    config = rules.config
    elapsed = 0.0 if state.time is None else max(0.0, time - state.time)
    first = state.time is None
    silent = loudness_db < config.silence_db
    if rules.has_presence:
        heard_value, heard_threshold = audio_prob, rules.audio_thresholds
        seen_value = visual_prob
    else:
        heard_value, heard_threshold = np.ones_like(audio_prob), np.full_like(audio_prob, 0.5)
        seen_value = maps.reshape(len(maps), -1).max(axis=1)
    if silent:
        heard_value = np.zeros_like(heard_value)
    audio = _gate(state.audio, heard_value, heard_threshold, time, elapsed, config.audio_smoothing, config, first)
    visual = _gate(
        state.visual, seen_value, rules.visual_thresholds, time, elapsed, config.visual_smoothing, config, first
    )
    joint, verdict = state.joint, None
    if rules.joint is not None:
        verdict = judge(rules.joint, audio.value, visual.value, maps)
        together = np.zeros_like(verdict.prob) if silent else verdict.prob
        joint = _gate(state.joint, together, np.full_like(together, 0.5), time, elapsed, 0.0, config, first)
    claimed, certain_since = _claims(state, audio, visual, heard_threshold, time, config)
    if rules.joint is not None:
        # what both say together needs neither alone
        claimed = joint.on | (audio.on & (state.claimed | _lasted(certain_since, time, config)))
    loud_since = state.loud_since
    if loudness_db < config.unknown_db or claimed.any():
        loud_since = math.nan
    elif math.isnan(loud_since):
        loud_since = time
    following = DecisionState(
        time=time,
        audio=audio,
        visual=visual,
        claimed=claimed,
        certain_since=certain_since,
        joint=joint,
        loud_since=loud_since,
    )
    sources = tuple(_heard(rules, following, maps, int(index), verdict) for index in np.flatnonzero(claimed))
    if not rules.has_presence:
        sources = tuple(source for source in sources if source.on_screen)
    return following, Decision(state=_overall(config, following, sources), sources=sources)


def _gate(
    gate: Hysteresis,
    value: Floats,
    threshold: Floats,
    time: float,
    elapsed: float,
    smoothing: float,
    config: DecisionConfig,
    first: bool,
) -> Hysteresis:
    weight = 1.0 if first or smoothing == 0 else 1 - math.exp(-elapsed / smoothing)
    smooth = (gate.value + weight * (value - gate.value)).astype(np.float32)
    # a negative threshold (a map's) is released below itself, too
    release = np.where(threshold >= 0, threshold * config.release, threshold / config.release)
    wants = np.where(gate.on, smooth < release, smooth >= threshold)
    since = np.where(wants, np.where(np.isnan(gate.since), time, gate.since), np.nan)
    needed = np.where(gate.on, config.min_off, config.min_on)
    # times are sums of floats: a nanosecond must not cost a frame
    change = wants & (time - np.nan_to_num(since, nan=time) >= needed - 1e-9)
    on = gate.on ^ change
    said = np.where(wants & ~change, gate.said, smooth).astype(np.float32)
    return Hysteresis(value=smooth, on=on, since=np.where(change, np.nan, since), said=said)


def _claims(
    state: DecisionState, audio: Hysteresis, visual: Hysteresis, threshold: Floats, time: float, config: DecisionConfig
) -> tuple[Flags, Times]:
    """Return which classes are said to sound, and since when those that are heard alone have been nearly certain."""
    certain = audio.on & (audio.value >= threshold + config.off_screen_margin * (1 - threshold))
    since = np.where(certain, np.where(np.isnan(state.certain_since), time, state.certain_since), np.nan)
    # what was seen while it sounded may leave the picture
    return audio.on & (visual.on | state.claimed | _lasted(since, time, config)), since


def _lasted(certain_since: Times, time: float, config: DecisionConfig) -> Flags:
    known = ~np.isnan(certain_since)
    return known & (time - np.nan_to_num(certain_since, nan=time) >= config.off_screen_seconds - 1e-9)


def _certainty(value: float, threshold: float) -> float:
    return min(1.0, 0.5 + 0.5 * max(0.0, value - threshold) / max(1 - threshold, 1e-6))


def _heard(rules: Rules, state: DecisionState, maps: Floats, index: int, verdict: Verdict | None) -> Heard:
    on_screen = bool(state.visual.on[index] if verdict is None else state.joint.on[index])
    shown = state.audio if rules.has_presence else state.visual
    threshold = (rules.audio_thresholds if rules.has_presence else rules.visual_thresholds)[index]
    certainty = _certainty(float(shown.said[index]), float(threshold))
    alternatives: tuple[tuple[str, float], ...] = ()
    if verdict is not None and on_screen:
        certainty = _certainty(float(state.joint.said[index]), 0.5)
        others = verdict.instead_of.get(index, ())[:ALTERNATIVES]
        alternatives = tuple((rules.classes[k], prob) for k, prob in others)
    heard = Heard(
        label=rules.classes[index],
        index=index,
        audio_prob=float(shown.value[index]),
        visual_prob=float(state.visual.value[index]),
        on_screen=on_screen,
        certainty=certainty,
        alternatives=alternatives,
    )
    if not on_screen:
        return heard
    heat = maps[index]
    return replace(heard, peak=peak_of(heat), box=region_box(heat, rules.config.box_fraction), map=heat)


def _overall(config: DecisionConfig, state: DecisionState, sources: tuple[Heard, ...]) -> str:
    if any(source.on_screen for source in sources):
        return "source"
    if sources:
        return "off-screen"
    assert state.time is not None
    return "unknown" if state.time - state.loud_since >= config.unknown_seconds - 1e-9 else "none"
