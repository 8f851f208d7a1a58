"""Configuration of a model and its losses, and the named presets."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, get_args, get_type_hints

from avgn.runtime.bundle_schema import MOST_SAMPLES
from avgn.runtime.documents import shown
from avgn.runtime.limits import MAX_PIXELS, MAX_RATE, MOST_CLASSES
from avgn.runtime.texts import is_name
from avgn.systems import AVGN, OWN_ENTRIES, RELEASED, SYSTEMS, WORLD, System, find_system
from avgn.typed import fits, said
from avgn.world import settings

Frontend = Literal["paper", "release", "log-mel"]
Encoders = Literal["resnet18", "world"]
Tokens = Literal["learned", "classifiers"]
Attention = Literal["transformer", "literal"]
Assignment = Literal["soft", "hard"]
AudioGate = Literal["exact", "eps"]
VisualGate = Literal["grouped", "token", "none"]
Ablation = Literal["both", "tokens", "grouping", "neither"]
Negatives = Literal["class", "nth"]
ClassReduction = Literal["mean", "sum"]
PairInput = Literal["canvas", "crops"]

# the largest sizes, far above any model's: a configuration may come from a stranger
MOST = {"sample_rate": MAX_RATE, "width_visual": 1024, "width_audio": 1024, "dim": 8192, "depth": 64, "heads": 512}
MOST |= {"mlp_ratio": 64, "window_seconds": 600}
# the encoder halves its spectrogram five times
MIN_WINDOW = 2048


@dataclass(frozen=True, kw_only=True)
class Config:
    """Everything that defines a localizer: what `config.json` of a checkpoint holds."""

    name: str
    """What the model is called in its files."""
    classes: tuple[str, ...]
    """Names of the classes, in the order of the model's tokens and maps."""
    system: str = AVGN
    """What is built (`avgn models` lists the systems)."""
    options: dict[str, Any] = field(default_factory=dict)
    """Settings of a system other than avgn, by name: docs/baselines.md says which it has."""
    encoders: Encoders = "resnet18"
    """resnet18, or world: EfficientNet-Lite0 and YAMNet, which hear at 16000 Hz through the front-end log-mel."""
    tokens: Tokens = "learned"
    """learned in training, or classifiers: rows of the encoders' own classifiers, which need no training."""
    # sound
    sample_rate: int = 22_050
    """Samples per second of the waveform that is heard."""
    window_seconds: float = 3.0
    """Length of an audio window in seconds."""
    frontend: Frontend = "paper"
    """How a waveform becomes a spectrogram: as in the paper, as in the published code, or log-mel (encoders world)."""
    spectrogram_mean: float = 0.0
    """What is taken from a log-spectrogram before it is divided (front-end paper)."""
    spectrogram_std: float = 12.0
    """What a log-spectrogram is divided by (front-end paper)."""
    # picture
    image_size: tuple[int, int] = (224, 224)
    """(height, width) of the model's input in pixels, divisible by 32."""
    visual_stride: int = 32
    """Pixels between two cells: 32 is ResNet-18 as it is, 16 leaves out its last stride."""
    pair_input: PairInput = "canvas"
    """How images side by side are seen: canvas as one wide image, crops each by itself by the encoder."""
    # sizes
    width_visual: int = 64
    """Channels of the visual ResNet's first stage; 64 is ResNet-18."""
    width_audio: int = 64
    """Channels of the audio ResNet's first stage; 64 is ResNet-18."""
    dim: int = 512
    """Width D of tokens, cells and sources."""
    depth: int = 3
    """Blocks of each transformer."""
    heads: int = 8
    """Attention heads of each block; they divide dim."""
    mlp_ratio: int = 4
    """Width of a block's hidden layer as a multiple of dim."""
    drop_path: float = 0.1
    """Chance that a block is skipped for a sample in training."""
    # decisions
    attention: Attention = "transformer"
    """Blocks of a transformer, or literal: equations 4-5 as printed, with nothing learned."""
    assignment: Assignment = "soft"
    """Whether a cell is shared among the tokens (soft) or goes to one (hard)."""
    audio_gate: AudioGate = "exact"
    """exact: the assignment of the single audio feature cancels; eps: divided by its sum plus 1."""
    visual_gate: VisualGate = "grouped"
    """What gates the cells of a class's map: the grouped embedding, the token alone, or none."""
    ablation: Ablation = "both"
    """Row of the paper's ablation: both is the model, tokens has no grouping step, grouping has frozen tokens and no
    transformers, neither is EZ-VSL (one shared map, no labels). Files call it `variant`.
    """
    # losses
    temperature: float = 0.03
    """What similarities are divided by in the localization loss."""
    negatives: Negatives = "class"
    """Which images of a batch are negatives of a source: class, those without its class; nth, by its place in order."""
    symmetric: bool = True
    """Whether the localization loss also runs over the sources (negatives nth, or without a gate)."""
    class_reduction: ClassReduction = "mean"
    """How the losses of the classes become one: mean or sum."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", tuple(self.classes))
        object.__setattr__(self, "image_size", tuple(self.image_size))
        for name, kind in CHOICES.items():
            value = getattr(self, name)
            if value not in get_args(kind):
                raise ValueError(
                    f"{name} must be one of {', '.join(get_args(kind))}, got {value!r}: choose one of them"
                )
        self._check_system()
        self._check_classes()
        self._check_sizes()
        self._check_window()
        self._check_world()
        self._check_ablation()

    def _check_classes(self) -> None:
        if not self.classes or len(set(self.classes)) != len(self.classes):
            raise ValueError(f"classes must be unique names, got {shown(self.classes)}: take them from the manifest")
        if len(self.classes) > MOST_CLASSES:
            raise ValueError(f"classes must be at most {MOST_CLASSES}, got {len(self.classes)}: leave some out")
        if strange := next((name for name in self.classes if not is_name(name)), None):
            raise ValueError(f"class {shown(strange)} holds control characters or is blank: rename it")

    def _check_sizes(self) -> None:
        for name, most in MOST.items():
            if getattr(self, name) > most:
                raise ValueError(f"{name} must be at most {most}, got {getattr(self, name)}: choose a smaller one")
        if math.prod(self.image_size) > MAX_PIXELS:
            raise ValueError(f"image_size must be at most {MAX_PIXELS} pixels, got {self.image_size}: choose a smaller")
        if self.window_samples > MOST_SAMPLES:
            raise ValueError(
                f"a window must have at most {MOST_SAMPLES} samples, got {self.window_samples}: shorten it"
            )
        if self.visual_stride not in (16, 32):
            raise ValueError(f"visual_stride must be 16 or 32, got {self.visual_stride}: choose one of them")
        if any(side % 32 or side <= 0 for side in self.image_size) or len(self.image_size) != 2:
            raise ValueError(f"image_size must be (height, width) divisible by 32, got {self.image_size}: round it")
        if self.dim % self.heads:
            raise ValueError(f"dim {self.dim} must be divisible by heads {self.heads}: change one of them")
        if not 0.0 <= self.drop_path < 1.0:
            raise ValueError(f"drop_path must lie in [0, 1), got {self.drop_path}: 0.1 is the default")

    def _check_window(self) -> None:
        for name in ("window_seconds", "temperature", "spectrogram_std"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}: choose a larger value")
        if self.window_samples < MIN_WINDOW:
            raise ValueError(
                f"window_seconds {self.window_seconds} is {self.window_samples} samples of at least {MIN_WINDOW}: "
                "choose a longer window"
            )

    def _check_ablation(self) -> None:
        if self.audio_gate == "eps" and self.assignment == "hard":
            raise ValueError("audio_gate='eps' divides a soft assignment: use it with assignment='soft'")
        if self.ablation in ("tokens", "neither") and (self.assignment == "hard" or self.audio_gate == "eps"):
            raise ValueError(f"ablation {self.ablation!r} has no grouping step: leave assignment and audio_gate alone")
        if self.ablation == "neither" and self.visual_gate != "none":
            raise ValueError("ablation 'neither' has no class embeddings: use visual_gate='none'")
        if self.ablation == "grouping" and self.attention == "literal":
            raise ValueError("ablation 'grouping' has no transformers: leave attention alone")

    def _check_world(self) -> None:
        settings.check_together(self.encoders, self.frontend, self.tokens)
        if self.encoders != "world":
            return
        classifiers = self.tokens == "classifiers"
        if self.encoders not in self.kind.encoders or (classifiers and self.system != AVGN):
            raise ValueError(
                f"system {self.system} has no form with encoders {self.encoders!r} and tokens {self.tokens!r}: use "
                "other encoders, or system avgn"
            )
        settings.check_window(self.sample_rate, self.window_seconds, whole_patches=classifiers)

    def _check_system(self) -> None:
        system = find_system(self.system)
        # complains of what is wrong with them
        system.options(self.options)
        defaults = {entry.name: entry.default for entry in fields(self)} | dict(system.fixed)
        for name in OWN_ENTRIES:
            if name not in system.entries and getattr(self, name) != defaults[name]:
                owners = " and ".join(owner.name for owner in SYSTEMS.values() if name in owner.entries)
                raise ValueError(
                    f"{name} is an entry of system {owners} alone: leave it at {defaults[name]!r} for {self.system}"
                )

    @property
    def kind(self) -> System:
        """What is known of the system that is built."""
        return WORLD if self.tokens == "classifiers" else find_system(self.system)

    @property
    def system_options(self) -> Any:
        """The system's own options, None where its settings are entries."""
        return find_system(self.system).options(self.options)

    @property
    def num_classes(self) -> int:
        """C, the number of classes."""
        return len(self.classes)

    @property
    def num_maps(self) -> int:
        """K, the number of maps: one a class, one a source, or one shared map."""
        if self.kind.maps == "sources":
            return int(self.system_options.sources)
        return 1 if self.kind.maps == "one" or self.ablation == "neither" else self.num_classes

    @property
    def source_dim(self) -> int:
        """The width of what the audio half hands over for each map."""
        return self.dim * self.kind.embeddings

    @property
    def window_samples(self) -> int:
        """T, the samples of an audio window."""
        return round(self.window_seconds * self.sample_rate)

    @property
    def patch_samples(self) -> int | None:
        """The samples that the audio half hears at once where a window is pooled from patches, else None."""
        return settings.PATCH_SAMPLES if self.tokens == "classifiers" else None

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w) of the maps at the configured image size."""
        return (self.image_size[0] // self.visual_stride, self.image_size[1] // self.visual_stride)

    def to_dict(self) -> dict[str, Any]:
        """Return the values as JSON can hold them, under the names that files have always given them."""
        return {IN_FILES.get(name, name): value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Config:
        """Rebuild from `to_dict`, which strangers may have changed. Raises ValueError for unknown names and types."""
        if not isinstance(values, dict):
            raise ValueError(f"configuration must be names with values, got {shown(values)}")
        values = todays_names(values)
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ValueError(f"configuration holds unknown entries {unknown}: it was written by another version")
        for name, hint in get_type_hints(cls).items():
            if name in values and not fits(values[name], hint):
                raise ValueError(f"{name} must be {said(hint)}, got {shown(values[name])}")
        return cls(**values)


CHOICES: dict[str, Any] = {
    "encoders": Encoders,
    "tokens": Tokens,
    "frontend": Frontend,
    "attention": Attention,
    "assignment": Assignment,
    "audio_gate": AudioGate,
    "visual_gate": VisualGate,
    "ablation": Ablation,
    "negatives": Negatives,
    "class_reduction": ClassReduction,
    "pair_input": PairInput,
}


# entries that files call otherwise: a bundle has variants of another kind, its files keep the name of their format
IN_FILES = {"ablation": "variant"}


def todays_names(values: Mapping[str, Any]) -> dict[str, Any]:
    """Entries under the names that this version gives them: files and older scripts call an ablation a variant.

    The variant "released" has become a system of its own.
    """
    values = dict(values)
    for name, old in IN_FILES.items():
        if old not in values:
            continue
        if name in values:
            raise ValueError(f"{old} and {name} are the same entry: leave {old} out")
        values[name] = values.pop(old)
    if values.get("ablation") == "released":
        del values["ablation"]
        if values.get("system", AVGN) == AVGN:
            values["system"] = RELEASED
    return values


def system_in(values: Mapping[str, Any]) -> System | None:
    """Return the system that a file's configuration names, which nobody has checked; None for one that isn't known."""
    if values.get("variant") == "released":
        return SYSTEMS[RELEASED]
    name = values.get("system", AVGN)
    return SYSTEMS.get(name) if isinstance(name, str) else None


def avgn_resnet18(**overrides: Any) -> Config:
    """Return the paper's sizes."""
    return Config(**({"name": "avgn-resnet18"} | overrides))


def avgn_tiny(**overrides: Any) -> Config:
    """At most 3 M parameters and a 1 s window: fast enough for any machine, quick to respond."""
    tiny = {
        "name": "avgn-tiny",
        "window_seconds": 1.0,
        "image_size": (160, 160),
        "visual_stride": 16,
        "width_visual": 16,
        "width_audio": 16,
        "dim": 128,
        "mlp_ratio": 2,
        "spectrogram_mean": -5.0,
        "spectrogram_std": 5.0,
        "class_reduction": "sum",
    }
    if "visual_gate" in find_system(overrides.get("system", AVGN)).entries:
        tiny["visual_gate"] = "token"
    return avgn_resnet18(**(tiny | overrides))


def avgn_release(**overrides: Any) -> Config:
    """Return the sizes and the form of the published checkpoints."""
    release = {"name": "avgn-release", "frontend": "release", "system": RELEASED, **find_system(RELEASED).fixed}
    return avgn_resnet18(**(release | overrides))


def avgn_world(**overrides: Any) -> Config:
    """EfficientNet-Lite0 and YAMNet with the rows of their classifiers as tokens: real things, before any training."""
    return avgn_resnet18(**(settings.preset_entries(overrides.get("tokens", "classifiers")) | overrides))


PRESETS: dict[str, Callable[..., Config]] = {
    "avgn-resnet18": avgn_resnet18,
    "avgn-tiny": avgn_tiny,
    "avgn-release": avgn_release,
}
# these join classes by their names
READY_PRESETS: dict[str, Callable[..., Config]] = {"avgn-world": avgn_world}


def preset(name: str, **overrides: Any) -> Config:
    """Build the named configuration; `classes` and any other entry may be overridden.

    Without `classes`, placeholder names of the paper's 37 classes' count are used. With another `system` a preset gives
    the sizes, and the system's name takes avgn's place in the preset's.
    Raises ValueError for an unknown preset or entry.
    """
    if name not in PRESETS and name not in READY_PRESETS:
        raise ValueError(f"preset {name!r} is not known: choose one of {', '.join([*PRESETS, *READY_PRESETS])}")
    overrides = todays_names(overrides)
    known = {field.name for field in fields(Config)}
    unknown = sorted(set(overrides) - known)
    if unknown:
        raise ValueError(f"unknown configuration entries {unknown}: known are {', '.join(sorted(known))}")
    if name in READY_PRESETS:
        if "classes" not in overrides:
            raise ValueError(f"preset {name} joins classes by their names: give some as `classes`")
        return READY_PRESETS[name](**overrides)
    if overrides.get("encoders") == "world":
        overrides = settings.WITH_ENCODERS | overrides
    overrides.setdefault("classes", tuple(f"class_{index:02d}" for index in range(37)))
    system = overrides.get("system", AVGN)
    if system != AVGN and name == "avgn-release":
        if system != RELEASED:
            raise ValueError(f"preset avgn-release is a model of avgn: use avgn-resnet18 or avgn-tiny for {system}")
    elif system != AVGN:
        overrides = dict(find_system(system).fixed) | {"name": name.replace(AVGN, system, 1)} | overrides
    return PRESETS[name](**overrides)


def with_values(config: Config, **overrides: Any) -> Config:
    """Return a copy with some values changed, checked again."""
    return replace(config, **overrides)
