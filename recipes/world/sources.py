"""The free recordings and soundfonts that the audio rows are fitted on: where each is from, and whose it is.

Only what is CC0, in the public domain, or under the MIT or BSD licences: nothing under GPL or CC-BY-SA, and nothing
without a licence.
"""

from __future__ import annotations

import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from avgn.runtime.bundle import file_sha256
from avgn.runtime.errors import FailureError, InputError

NOISE = "noise"


@dataclass(frozen=True, kw_only=True)
class Package:
    """A Debian package of one version, and who gave what is used of it under which licence."""

    name: str
    version: str
    sha256: str
    licence: str
    author: str

    @property
    def file(self) -> str:
        return f"{self.name}_{self.version}_all.deb"


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
PACKAGES = (FLUID, FLUID_EFFECTS, MUSESCORE, SONIC_PI, POCKETSPHINX)


@dataclass(frozen=True, kw_only=True)
class Recording:
    """A sound file inside a package; its `label` is a class of the world model, or noise."""

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
]
# the soundfonts by the names that phrases are played under
FONTS = {
    "fluid": (FLUID, "usr/share/sounds/sf2/FluidR3_GM.sf2"),
    "musescore": (MUSESCORE, "usr/share/sounds/sf3/MuseScore_General_Full.sf3"),
    "effects": (FLUID_EFFECTS, "usr/share/sounds/sf2/FluidR3_GS.sf2"),
}


def fetch(folder: Path, report: Callable[[str], None]) -> None:
    """Download the packages into `folder`/packages, check them, and unpack what is used of them.

    A package that lies there already is not downloaded. Raises InputError for one that can't be had or is another one.
    """
    packages = folder / "packages"
    packages.mkdir(parents=True, exist_ok=True)
    for package in PACKAGES:
        if not (packages / package.file).is_file():
            report(f"downloading {package.file}")
            _download(package, packages)
        check(package, packages / package.file)
        used = [each.path for each in RECORDINGS if each.package is package]
        used += [path for owner, path in FONTS.values() if owner is package]
        missing = [path for path in used if not unpacked(folder, package, path).is_file()]
        if missing:
            report(f"unpacking {package.name}")
            _unpack(packages / package.file, {path: unpacked(folder, package, path) for path in missing})


def unpacked(folder: Path, package: Package, path: str) -> Path:
    """Where a file of a package lies after `fetch`."""
    return folder / "unpacked" / package.name / Path(path).name


def check(package: Package, file: Path) -> None:
    """Raises InputError for other bytes than the recipe was made with."""
    found = file_sha256(file)
    if found != package.sha256:
        raise InputError(
            f"{file} is not {package.name} {package.version} (sha256 {found[:12]}..., not {package.sha256[:12]}...): "
            f"remove it and run again"
        )


def _download(package: Package, folder: Path) -> None:
    command = ["apt-get", "download", "-q", f"{package.name}={package.version}"]
    try:
        ran = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        reason = next((line for line in ran.stderr.splitlines() if line.startswith("E:")), "it left no file")
    except FileNotFoundError:
        reason = "there is no apt-get"
    if not (folder / package.file).is_file():
        raise InputError(
            f"can't download {package.name} {package.version} ({reason}): put {package.file} into {folder} "
            f"(snapshot.debian.org keeps every version)"
        )


def _unpack(file: Path, places: dict[str, Path]) -> None:
    """Write files of a Debian package to their places. Raises FailureError for one that it lacks."""
    left = dict(places)
    try:
        process = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(file)], stdout=subprocess.PIPE)
    except FileNotFoundError:
        raise InputError("there is no dpkg-deb to unpack Debian packages with: install the package dpkg") from None
    with process, tarfile.open(fileobj=process.stdout, mode="r|") as archive:
        for member in archive:
            path = member.name.removeprefix("./")
            if path in left and (stream := archive.extractfile(member)):
                target = left.pop(path)
                target.parent.mkdir(parents=True, exist_ok=True)
                part = target.with_suffix(".part")
                part.write_bytes(stream.read())
                part.rename(target)
    if left:
        raise FailureError(f"{file} lacks {min(left)}")
