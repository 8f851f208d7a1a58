"""Every system that can be trained, with what is to know of it; their modules are imported when they are asked for."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, fields
from typing import Any, Literal

Maps = Literal["one", "classes", "sources"]


@dataclass(frozen=True, kw_only=True)
class System:
    """`location` is "module:class"; the module's `Options` holds the system's own settings.

    `maps`: one shared map, one a class, or one a source without a name (as many as the option `sources`).
    `embeddings` are the vectors of width D that a source hands over. `labels` says whether training reads class labels.
    """

    name: str
    paper: str
    year: int
    location: str
    maps: Maps
    stages: int = 1
    labels: bool = False
    embeddings: int = 1

    @property
    def class_aware(self) -> bool:
        """Whether a map belongs to a class."""
        return self.maps == "classes"

    def load(self) -> type[Any]:
        """The system's class."""
        module, _, name = self.location.partition(":")
        return getattr(importlib.import_module(module), name)

    def options(self, values: dict[str, Any]) -> Any:
        """The system's `Options` of these values. Raises ValueError for a name or value that it doesn't have."""
        if self.name == AVGN:
            if values:
                raise ValueError(f"system avgn has no options, got {sorted(values)}: they are entries of their own")
            return None
        kind = importlib.import_module(self.location.partition(":")[0]).Options
        known = {entry.name for entry in fields(kind)}
        if unknown := sorted(set(values) - known):
            raise ValueError(f"system {self.name} has no option {unknown[0]!r}: use some of {', '.join(sorted(known))}")
        return kind(**values)


AVGN = "avgn"

SYSTEMS = {
    system.name: system
    for system in (
        System(
            name=AVGN,
            paper="Mo & Tian, Audio-Visual Grouping Network",
            year=2023,
            location="avgn.model:AVGN",
            maps="classes",
            labels=True,
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
        ),
        System(
            name="dsol",
            paper="Hu et al., Discriminative Sounding Objects Localization",
            year=2020,
            location="avgn.baselines.dsol:DiscriminativeSoundingObjects",
            maps="classes",
            stages=2,
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
        ),
        System(
            name="mix-and-localize",
            paper="Hu et al., Mix and Localize",
            year=2022,
            location="avgn.baselines.mix_and_localize:MixAndLocalize",
            maps="sources",
        ),
        System(
            name="hard-pos",
            paper="Senocak et al., Learning Sound Localization Better from Semantically Similar Samples",
            year=2022,
            location="avgn.baselines.hard_pos:HardPositives",
            maps="one",
            stages=2,
        ),
        System(
            name="slavc",
            paper="Mo & Morgado, A Closer Look at Weakly-Supervised Audio-Visual Source Localization",
            year=2022,
            location="avgn.baselines.slavc:SimultaneousLocalization",
            maps="one",
            embeddings=2,
        ),
    )
}


def find_system(name: str) -> System:
    """The system of a name. Raises ValueError for others."""
    if name not in SYSTEMS:
        raise ValueError(f"system {name!r} is not known: choose one of {', '.join(SYSTEMS)}")
    return SYSTEMS[name]


def systems_table() -> list[str]:
    """The systems as lines for people."""
    lines = [f"{'system':18}{'year':>4}  {'stages':>6}  {'maps':16}{'trained on':14}paper"]
    shown = {"one": "one, shared", "classes": "one a class", "sources": "N, unnamed"}
    for system in SYSTEMS.values():
        needs = "class labels" if system.labels else "pairs"
        lines.append(
            f"{system.name:18}{system.year:>4}  {system.stages:>6}  {shown[system.maps]:16}{needs:14}{system.paper}"
        )
    return lines
