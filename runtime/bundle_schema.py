"""What bundle.json says, as frozen dataclasses, with strict reading and writing.

Nothing but InputError leaves `from_json`, whatever the text holds.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, NoReturn

from avgn.runtime.contract import HALVES, TensorSpec
from avgn.runtime.documents import BadDocumentError, parse_json, shown
from avgn.runtime.errors import InputError
from avgn.runtime.limits import MAX_PIXELS, MAX_RATE, MOST_CLASSES
from avgn.runtime.texts import is_name, is_text

FORMAT = "avgn-bundle"
VERSION = 1
DTYPES = ("float32", "float16", "uint8", "int64", "int32", "int8", "bool")
# what one bundle may ask for: pairs of graphs, samples of a window and values of its maps
MOST_VARIANTS = 64
MOST_SAMPLES = 1 << 25
MOST_CELLS = 1 << 25
LONGEST_NAME = 256


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One pair of graphs. `audio` and `image` are file names in the bundle's folder.

    `sha256`, `inputs` and `outputs` have the keys "audio" and "image"; `verified` holds the measured differences
    from the core ({metric: value}), or None when this variant could not be run where it was made.
    """

    precision: str
    engine: str
    target: str
    audio: str
    image: str
    sha256: dict[str, str]
    inputs: dict[str, tuple[TensorSpec, ...]]
    outputs: dict[str, tuple[TensorSpec, ...]]
    verified: dict[str, float] | None = None


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """Probabilities [K] at which a class counts as heard and as seen.

    With `has_presence` false there are no probabilities: `visual` holds thresholds on the map's maximum, and
    `audio` is not used.
    """

    audio: tuple[float, ...]
    visual: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Joint:
    """How both halves decide together: log-odds heard + `visual_weight` * log-odds seen against `thresholds` [K].

    `margin`: how far behind the best class another one may be; `apart`: how far from each other, in parts of the
    picture's sides, the maps of two sources peak. What is heard by log-odds below `floor`, or seen by log-odds below
    `seen_floor`, is no source on screen. `scale` turns the log-odds above a threshold into those of a probability that
    can be believed.
    """

    visual_weight: float
    thresholds: tuple[float, ...]
    margin: float
    apart: float
    floor: float
    scale: float = 1.0
    seen_floor: float = -1e6


@dataclass(frozen=True, kw_only=True)
class Patches:
    """How a window is heard in patches of `samples`, one audio hop apart: its log-odds are the mean of the `loudest`.

    The audio graph takes one patch; its `sources` [K, 1] are log-odds.
    """

    samples: int
    loudest: int


@dataclass(frozen=True, kw_only=True)
class BundleInfo:
    """The facts of a bundle. `classes` names the K maps; sizes are (height, width)."""

    model: dict[str, Any]
    classes: tuple[str, ...]
    sample_rate: int
    window_seconds: float
    image_size: tuple[int, int]
    grid: tuple[int, int]
    thresholds: Thresholds
    variants: tuple[Variant, ...]
    has_presence: bool = True
    audio_hop_seconds: float = 0.2
    color_order: str = "RGB"
    provenance: dict[str, Any] = field(default_factory=dict)
    decision: dict[str, float] = field(default_factory=dict)
    patches: Patches | None = None
    joint: Joint | None = None
    format: str = FORMAT
    version: int = VERSION

    @property
    def window_samples(self) -> int:
        """T, the samples of one audio window."""
        return round(self.window_seconds * self.sample_rate)

    @property
    def graph_samples(self) -> int:
        """The samples that the audio graph takes: a window's, or a patch's."""
        return self.window_samples if self.patches is None else self.patches.samples

    @property
    def hop_samples(self) -> int:
        """The samples between two audio windows."""
        return round(self.audio_hop_seconds * self.sample_rate)


def source_names(count: int) -> tuple[str, ...]:
    """Return the `classes` of a bundle whose maps are of sources without a name, from two maps on."""
    return tuple(f"source {index}" for index in range(1, count + 1))


def to_json(info: BundleInfo) -> str:
    """Return the text of bundle.json."""
    try:
        facts = {"format": info.format, "version": info.version, **asdict(info)}
        for name in ("patches", "joint"):
            if facts[name] is None:
                del facts[name]
        return json.dumps(facts, indent=1, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise InputError(f"bundle.json can't hold these facts ({error}): use plain finite values") from None


def graph_facts(info: BundleInfo) -> dict[str, str]:
    """Return the bundle's facts as an ONNX graph can hold them."""
    facts = {
        "format": info.format,
        "version": info.version,
        "model": info.model,
        "classes": info.classes,
        "sample_rate": info.sample_rate,
        "window_seconds": info.window_seconds,
        "audio_hop_seconds": info.audio_hop_seconds,
        "image_size": info.image_size,
        "color_order": info.color_order,
        "grid": info.grid,
        "thresholds": {"audio": info.thresholds.audio, "visual": info.thresholds.visual},
        "has_presence": info.has_presence,
        "provenance": info.provenance,
    }
    return {name: json.dumps(value) for name, value in facts.items()}


def from_json(text: str, where: str = "bundle.json") -> BundleInfo:
    """Parse bundle.json; raises InputError that names `where`, the field and the way out."""
    try:
        raw = parse_json(text, constants=False)
    except BadDocumentError as error:
        raise InputError(f"{where}: not valid JSON ({error}): export the bundle again") from None
    return _Reader(where).info(raw)


class _Reader:
    """Checks the fields one by one; every complaint names the file."""

    def __init__(self, where: str) -> None:
        self.where = where

    def fail(self, rule: str, value: Any) -> NoReturn:
        raise InputError(f"{self.where}: {rule}, got {shown(value)}: export the bundle again")

    def info(self, raw: Any) -> BundleInfo:
        if not isinstance(raw, dict) or raw.get("format") != FORMAT:
            found = raw.get("format") if isinstance(raw, dict) else raw
            self.fail(f'not a bundle: "format" must be "{FORMAT}"', found)
        version = raw.get("version")
        if type(version) is not int or version != VERSION:
            raise InputError(
                f"{self.where}: bundle version {str(version)[:20]} is not known: this avgn reads version {VERSION}, "
                "so update avgn or export the bundle again"
            )
        classes = self.classes(raw.get("classes"))
        color_order = raw.get("color_order", "RGB")
        if color_order != "RGB":
            self.fail("color_order must be RGB", color_order)
        has_presence = raw.get("has_presence", True)
        if not isinstance(has_presence, bool):
            self.fail("has_presence must be true or false", has_presence)
        variants = raw.get("variants")
        if not isinstance(variants, list) or not variants:
            self.fail("variants must be a list with at least one entry", variants)
        if len(variants) > MOST_VARIANTS:
            self.fail(f"variants must be at most {MOST_VARIANTS}", len(variants))
        decision = self.mapping(raw.get("decision", {}), "decision")
        self.shows(decision, "decision")
        info = BundleInfo(
            model=self.model(raw.get("model")),
            classes=classes,
            sample_rate=self.integer(raw.get("sample_rate"), "sample_rate", 1000, MAX_RATE),
            window_seconds=self.number(raw.get("window_seconds"), "window_seconds", 0.01, 600),
            image_size=self.pair(raw.get("image_size"), "image_size"),
            grid=self.pair(raw.get("grid"), "grid"),
            thresholds=self.thresholds(raw.get("thresholds"), len(classes)),
            variants=tuple(self.variant(entry, number) for number, entry in enumerate(variants)),
            has_presence=has_presence,
            # at least one sample at the lowest rate
            audio_hop_seconds=self.number(raw.get("audio_hop_seconds", 0.2), "audio_hop_seconds", 0.001, 600),
            provenance=self.mapping(raw.get("provenance", {}), "provenance"),
            decision={key: self.number(value, f"decision.{key[:40]}", -1e6, 1e6) for key, value in decision.items()},
            patches=self.patches(raw.get("patches")),
            joint=self.joint(raw.get("joint"), len(classes)),
        )
        self.check_sizes(info)
        return info

    def classes(self, raw: Any) -> tuple[str, ...]:
        classes = self.strings(raw, "classes")
        if not classes or len(set(classes)) != len(classes):
            self.fail("classes must be unique names, at least one", list(classes))
        if len(classes) > MOST_CLASSES:
            self.fail(f"classes must be at most {MOST_CLASSES} names", len(classes))
        return classes

    def model(self, raw: Any) -> dict[str, Any]:
        model = self.mapping(raw, "model")
        if not isinstance(model.get("name"), str):
            self.fail("model must have a name", model.get("name"))
        self.shows([model["name"]], "model.name")
        return model

    def check_sizes(self, info: BundleInfo) -> None:
        """Refuse what would take more memory than any model needs, and windows that are no whole patches."""
        if info.window_samples > MOST_SAMPLES:
            self.fail(f"window_seconds must be at most {MOST_SAMPLES} samples", info.window_samples)
        if math.prod(info.image_size) > MAX_PIXELS:
            self.fail(f"image_size must be at most {MAX_PIXELS // 10**6} million pixels", list(info.image_size))
        if len(info.classes) * math.prod(info.grid) > MOST_CELLS:
            self.fail(f"the maps of all classes must have at most {MOST_CELLS} cells", list(info.grid))
        if info.patches is not None:
            rest = info.window_samples - info.patches.samples
            if rest < 0 or rest % info.hop_samples:
                apart = f"{info.hop_samples} samples apart"
                self.fail(f"a window of {info.window_samples} samples must be whole patches, {apart}", info.patches)

    def joint(self, raw: Any, count: int) -> Joint | None:
        if raw is None:
            return None
        entry = self.mapping(raw, "joint")
        items = entry.get("thresholds")
        if not isinstance(items, list) or len(items) != count:
            found = len(items) if isinstance(items, list) else items
            self.fail(f"joint.thresholds must list one value for each of the {count} classes", found)
        return Joint(
            visual_weight=self.number(entry.get("visual_weight"), "joint.visual_weight", 0, 1e3),
            thresholds=tuple(self.number(value, "joint.thresholds", -1e6, 1e6) for value in items),
            margin=self.number(entry.get("margin"), "joint.margin", 0, 1e6),
            apart=self.number(entry.get("apart"), "joint.apart", 0, 1),
            floor=self.number(entry.get("floor"), "joint.floor", -1e6, 1e6),
            scale=self.number(entry.get("scale", 1.0), "joint.scale", 1e-6, 1e6),
            seen_floor=self.number(entry.get("seen_floor", -1e6), "joint.seen_floor", -1e6, 1e6),
        )

    def patches(self, raw: Any) -> Patches | None:
        if raw is None:
            return None
        entry = self.mapping(raw, "patches")
        return Patches(
            samples=self.integer(entry.get("samples"), "patches.samples", 1, 10_000_000),
            loudest=self.integer(entry.get("loudest"), "patches.loudest", 1, 10_000),
        )

    def variant(self, raw: Any, number: int) -> Variant:
        name = f"variants[{number}]"
        entry = self.mapping(raw, name)
        texts = {key: entry.get(key) for key in ("precision", "engine", "target", "audio", "image")}
        for key, value in texts.items():
            if not isinstance(value, str) or not value or "\0" in value:
                self.fail(f"{name}.{key} must be a name", value)
            self.shows([value], f"{name}.{key}")
        sha256 = self.mapping(entry.get("sha256"), f"{name}.sha256")
        for half in HALVES:
            value = sha256.get(half)
            if not isinstance(value, str) or not re.fullmatch(r"[0-9a-f]{64}", value):
                self.fail(f"{name}.sha256.{half} must be 64 hexadecimal digits", value)
        verified = entry.get("verified")
        if verified is not None:
            measured = self.mapping(verified, f"{name}.verified")
            self.shows(measured, f"{name}.verified")
            verified = {key: self.number(value, f"{name}.verified", -1e30, 1e30) for key, value in measured.items()}
        return Variant(
            **texts,  # type: ignore[arg-type]
            sha256={half: sha256[half] for half in HALVES},
            inputs=self.tensors(entry.get("inputs"), f"{name}.inputs"),
            outputs=self.tensors(entry.get("outputs"), f"{name}.outputs"),
            verified=verified,
        )

    def tensors(self, raw: Any, name: str) -> dict[str, tuple[TensorSpec, ...]]:
        entry = self.mapping(raw, name)
        found: dict[str, tuple[TensorSpec, ...]] = {}
        for half in HALVES:
            specs = entry.get(half)
            if not isinstance(specs, list) or not specs:
                self.fail(f"{name}.{half} must be a list of tensors", specs)
            found[half] = tuple(self.tensor(spec, f"{name}.{half}") for spec in specs)
        return found

    def tensor(self, raw: Any, name: str) -> TensorSpec:
        entry = self.mapping(raw, name)
        label, dtype, shape = entry.get("name"), entry.get("dtype"), entry.get("shape")
        if not isinstance(label, str) or not label:
            self.fail(f"{name}: a tensor must have a name", label)
        self.shows([label], f"{name}: a tensor's name")
        if not isinstance(dtype, str) or dtype not in DTYPES:
            self.fail(f"{name}: dtype must be one of {', '.join(DTYPES)}", dtype)
        if not isinstance(shape, list):
            self.fail(f"{name}: shape must be a list", shape)
        for axis in shape:
            if not (isinstance(axis, str) and axis) and not (type(axis) is int and 0 < axis < 2**31):
                self.fail(f"{name}: an axis must be a positive size or a name", axis)
        self.shows((axis for axis in shape if isinstance(axis, str)), f"{name}: an axis")
        return TensorSpec(name=label, dtype=dtype, shape=tuple(shape))

    def thresholds(self, raw: Any, count: int) -> Thresholds:
        entry = self.mapping(raw, "thresholds")
        values: dict[str, tuple[float, ...]] = {}
        for key in ("audio", "visual"):
            items = entry.get(key)
            if not isinstance(items, list) or len(items) != count:
                found = len(items) if isinstance(items, list) else items
                self.fail(f"thresholds.{key} must list one value for each of the {count} classes", found)
            values[key] = tuple(self.number(value, f"thresholds.{key}", -1e6, 1e6) for value in items)
        return Thresholds(**values)

    def mapping(self, raw: Any, name: str) -> dict[str, Any]:
        if not isinstance(raw, dict):
            self.fail(f"{name} must be an object", raw)
        return raw

    def strings(self, raw: Any, name: str) -> tuple[str, ...]:
        if not isinstance(raw, list) or not all(isinstance(value, str) and value for value in raw):
            self.fail(f"{name} must be a list of names", raw)
        self.shows(raw, name)
        return tuple(raw)

    def shows(self, names: Iterable[str], where: str) -> None:
        """Refuse names that can't be shown: they reach terminals, tables and other programs' files."""
        for name in names:
            if len(name) > LONGEST_NAME or not is_name(name) or not is_text(name):
                self.fail(
                    f"{where} must be at most {LONGEST_NAME} letters that can be shown, without control characters",
                    name,
                )

    def number(self, raw: Any, name: str, low: float, high: float) -> float:
        if isinstance(raw, bool) or not isinstance(raw, (int, float)) or not low <= raw <= high or math.isnan(raw):
            self.fail(f"{name} must be a number from {low:g} to {high:g}", raw)
        return float(raw)

    def integer(self, raw: Any, name: str, low: int, high: int) -> int:
        if type(raw) is not int or not low <= raw <= high:
            self.fail(f"{name} must be a whole number from {low} to {high}", raw)
        return raw

    def pair(self, raw: Any, name: str) -> tuple[int, int]:
        if not isinstance(raw, list) or len(raw) != 2:
            self.fail(f"{name} must be [height, width]", raw)
        return (self.integer(raw[0], name, 1, 65536), self.integer(raw[1], name, 1, 65536))
