"""Every system that can be trained, with what is known of it; their modules are imported when they are asked for.

A new system is one module, with a subclass of `avgn.model.LocalizerModel` and its options, and one entry below.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

Maps = Literal["one", "classes", "sources"]

# entries of a model's configuration that a system takes only where its `entries` name them
OWN_ENTRIES = (
    "attention",
    "assignment",
    "audio_gate",
    "visual_gate",
    "ablation",
    "temperature",
    "negatives",
    "symmetric",
    "pair_input",
)
# those of the losses and the input that avgn shares with its published form
SHARED_ENTRIES = ("temperature", "negatives", "symmetric", "pair_input")


@dataclass(frozen=True, kw_only=True)
class System:
    """What a configuration, a training run and `avgn models` need to know of a system before anything is built."""

    name: str
    """What `--system` and a configuration call it."""
    paper: str
    """Authors and title."""
    year: int
    """When the paper appeared."""
    location: str
    """`module:Class` of the model; beside it the dataclass `ClassOptions` holds the system's own settings."""
    maps: Maps
    """One shared map, one a class, or one a source without a name (as many as the option `sources`)."""
    stages: int = 1
    """How many stages its training has."""
    labels: bool = False
    """Whether training reads class labels."""
    embeddings: int = 1
    """Vectors of width D that a source hands over."""
    hooks: str | None = None
    """"module:class" of what it needs in training beside its losses (`avgn.training.hooks`), if anything."""
    entries: tuple[str, ...] = ()
    """Those of OWN_ENTRIES that may be set, in place of options of its own; the others keep their defaults."""
    fixed: Mapping[str, str] = field(default_factory=dict)
    """Those of OWN_ENTRIES that have another value than their default, always the same."""
    scaled_maps: bool = False
    """Whether its maps are similarities divided by the configuration's temperature."""
    auxiliary: bool = False
    """Whether presence heads on the encoders can help to train it."""
    encoders: tuple[str, ...] = ("resnet18", "world")
    """The families of encoders that it may have."""

    @property
    def class_aware(self) -> bool:
        """Whether a map belongs to a class."""
        return self.maps == "classes"

    def load(self) -> type[Any]:
        """Import the system's class."""
        return _find(self.location)

    def load_hooks(self) -> type[Any] | None:
        """Import the class of what the system needs in training; None where that is nothing."""
        return None if self.hooks is None else _find(self.hooks)

    def options(self, values: Mapping[str, Any]) -> Any:
        """Build the system's options of these values; None for a system whose settings are entries.

        Raises ValueError for a name or value that it doesn't have.
        """
        if self.entries:
            if values:
                raise ValueError(
                    f"system {self.name} has no options, got {sorted(values)}: they are entries of their own"
                )
            return None
        kind = _find(f"{self.location}Options")
        known = {entry.name for entry in fields(kind)}
        if unknown := sorted(set(values) - known):
            raise ValueError(f"system {self.name} has no option {unknown[0]!r}: use some of {', '.join(sorted(known))}")
        return kind(**values)

    def facts(self) -> dict[str, Any]:
        """Return what `avgn models --json` writes of it."""
        inner = ("hooks", "entries", "fixed", "scaled_maps", "auxiliary", "encoders")
        shown = {name: value for name, value in asdict(self).items() if name not in inner}
        return shown | {"class_aware": self.class_aware}


AVGN = "avgn"
RELEASED = "avgn-released"

SYSTEMS: dict[str, System] = {}


def register(system: System) -> None:
    """Make a system known by its name. Raises ValueError for a name that is taken."""
    if system.name in SYSTEMS:
        raise ValueError(f"system {system.name!r} is registered already: choose another name")
    SYSTEMS[system.name] = system


for _system in (
    System(
        name=AVGN,
        paper="Mo & Tian, Audio-Visual Grouping Network",
        year=2023,
        location="avgn.model:AVGN",
        maps="classes",
        labels=True,
        entries=OWN_ENTRIES,
        auxiliary=True,
    ),
    System(
        name="attention10k",
        paper="Senocak et al., Learning to Localize Sound Source in Visual Scenes",
        year=2018,
        location="avgn.baselines.attention10k:Attention10k",
        maps="one",
    ),
    System(
        name="ots",
        paper="Arandjelovic & Zisserman, Objects that Sound",
        year=2018,
        location="avgn.baselines.ots:ObjectsThatSound",
        maps="one",
    ),
    System(
        name="dmc",
        paper="Hu et al., Deep Multimodal Clustering",
        year=2019,
        location="avgn.baselines.dmc:DeepMultimodalClustering",
        maps="sources",
    ),
    System(
        name="coarse-to-fine",
        paper="Qian et al., Multiple Sound Sources Localization from Coarse to Fine",
        year=2020,
        location="avgn.baselines.coarse_to_fine:CoarseToFine",
        maps="classes",
        stages=2,
        labels=True,
        hooks="avgn.baselines.coarse_to_fine:CoarseToFineTraining",
    ),
    System(
        name="dsol",
        paper="Hu et al., Discriminative Sounding Objects Localization",
        year=2020,
        location="avgn.baselines.dsol:DiscriminativeSoundingObjects",
        maps="classes",
        stages=2,
        hooks="avgn.baselines.dsol:DsolTraining",
    ),
    System(
        name="lvs",
        paper="Chen et al., Localizing Visual Sounds the Hard Way",
        year=2021,
        location="avgn.baselines.lvs:LocalizingVisualSounds",
        maps="one",
    ),
    System(
        name="ez-vsl",
        paper="Mo & Morgado, Localizing Visual Sounds the Easy Way",
        year=2022,
        location="avgn.baselines.ez_vsl:EasyVisualSounds",
        maps="one",
        hooks="avgn.baselines.ez_vsl:EasyVisualSoundsTraining",
    ),
    System(
        name="mix-and-localize",
        paper="Hu et al., Mix and Localize",
        year=2022,
        location="avgn.baselines.mix_and_localize:MixAndLocalize",
        maps="sources",
        hooks="avgn.baselines.mix_and_localize:MixAndLocalizeTraining",
    ),
    System(
        name="hard-pos",
        paper="Senocak et al., Learning Sound Localization Better from Semantically Similar Samples",
        year=2022,
        location="avgn.baselines.hard_pos:HardPositives",
        maps="one",
        stages=2,
        hooks="avgn.baselines.hard_pos:HardPositivesTraining",
    ),
    System(
        name="slavc",
        paper="Mo & Morgado, A Closer Look at Weakly-Supervised Audio-Visual Source Localization",
        year=2022,
        location="avgn.baselines.slavc:SimultaneousLocalization",
        maps="one",
        embeddings=2,
        hooks="avgn.baselines.slavc:SlavcTraining",
    ),
    System(
        name=RELEASED,
        paper="Mo & Tian, Audio-Visual Grouping Network, as published",
        year=2023,
        location="avgn.released:ReleasedAVGN",
        maps="classes",
        labels=True,
        entries=SHARED_ENTRIES,
        fixed={"visual_gate": "none"},
        scaled_maps=True,
        auxiliary=True,
        encoders=("resnet18",),
    ),
):
    register(_system)

# its weights come out of packages and its tokens are rows of classifiers, which a training begins with
WORLD = System(
    name="avgn-world",
    paper="Mo & Tian, Audio-Visual Grouping Network",
    year=2023,
    location="avgn.world.model:WorldLocalizer",
    maps="classes",
    labels=True,
    entries=OWN_ENTRIES,
)


def find_system(name: str) -> System:
    """Return the system of a name. Raises ValueError for others."""
    if name not in SYSTEMS:
        raise ValueError(f"system {name!r} is not known: choose one of {', '.join(SYSTEMS)}")
    return SYSTEMS[name]


def systems_table() -> list[str]:
    """Return the systems as lines for people."""
    lines = [f"{'system':18}{'year':>4}  {'stages':>6}  {'maps':16}{'trained on':14}paper"]
    shown = {"one": "one, shared", "classes": "one a class", "sources": "N, unnamed"}
    for system in SYSTEMS.values():
        needs = "class labels" if system.labels else "pairs"
        lines.append(
            f"{system.name:18}{system.year:>4}  {system.stages:>6}  {shown[system.maps]:16}{needs:14}{system.paper}"
        )
    return lines


def _find(location: str) -> Any:
    module, _, name = location.partition(":")
    return getattr(importlib.import_module(module), name)
