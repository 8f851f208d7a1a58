"""Finds out what works here: encodes a video, reads it back, resamples and localizes it with every engine, and names
what fails."""

from __future__ import annotations

import platform
import re
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

import avgn
from avgn.runtime import Localizer, localize_file
from avgn.runtime.audio import resample, to_mono
from avgn.runtime.bundle import Bundle
from avgn.runtime.engines import ENGINES, check_installation, load_engine
from avgn.runtime.engines.base import Engine
from avgn.runtime.errors import InputError, MissingExtraError
from avgn.runtime.image import resize
from avgn.runtime.media import AudioBlock, VideoFrame, open_media

PACKAGES = {
    "runtime": ("numpy", "opencv-python-headless", "opencv-python", "av", "nvtx"),
    "engines": ("onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt", "tensorrt-rtx"),
    "training": ("torch", "torchvision", "torchaudio", "lightning", "safetensors"),
    "export": ("onnx", "onnxscript"),
}
SIZE, SECONDS, FPS, RATE = (160, 120), 1.5, 25, 22_050
PITCH = 1000.0
# mean distance, of 255, between a picture and itself after H.264
FRAME_ERROR = 12.0


class Broken(Exception):
    """Says that a step ran and gave a wrong result."""


@dataclass(kw_only=True)
class Findings:
    """Gathers sentences for people: what `works`, what is `broken` (and what to do), and what is `absent` but
    optional."""

    works: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)

    def attempt(self, name: str, package: str, step: Callable[[], str]) -> bool:
        """Run a step that returns what it saw; any exception is a finding. `package`: what to install again if it
        fails."""
        try:
            self.works.append(f"{name}: {step()}")
            return True
        except Exception as error:
            self.broken.append(f"{name}{_sentence(error, package)}")
        return False

    def lines(self) -> list[str]:
        """Format the findings, beginning with what works."""
        lines = [f"ok      {line}" for line in self.works] + [f"BROKEN  {line}" for line in self.broken]
        return lines + ([f"not tried: {'; '.join(self.absent)}"] if self.absent else [])


def examine(bundle: str) -> Findings:
    """Try all that localizing a video needs. Raises InputError for a bundle that can't be used."""
    loaded = Bundle.load(bundle)
    found = Findings()
    _check_versions(found)
    with tempfile.TemporaryDirectory(prefix="avgn-doctor-") as folder:
        clip = Path(folder) / "clip.mp4"
        resized = found.attempt("pictures", _opencv(), _try_resizing)
        encoded = resized and found.attempt("encoding", "av", lambda: _try_encoding(clip))
        decoded = encoded and found.attempt("decoding", "av", lambda: _try_decoding(clip))
        found.attempt("resampling", "numpy", _try_resampling)
        engines = _try_engines(found, loaded)
        if decoded and engines:
            found.attempt("localizing", "av", lambda: _try_localizing(Localizer(engines[0], loaded), clip))
    return found


def about(bundle: str) -> list[str]:
    """List what is installed, one line per group of packages."""
    loaded = Bundle.load(bundle)
    lines = [f"avgn {avgn.__version__}, Python {sys.version.split()[0]}, {platform.platform()}"]
    for group, names in PACKAGES.items():
        found = [_installed(name) for name in names if _version(name)]
        lines.append(f"{group}: {', '.join(found) or 'nothing installed'}")
    held = ", ".join(variant.precision for variant in loaded.variants)
    return [*lines, f"bundle {bundle}: {len(loaded.classes)} classes, {held}"]


def _sentence(error: Exception, package: str) -> str:
    """Say what went wrong and what to do about it, to follow the name of the step."""
    # a package that is installed but can't be imported is broken, not missing
    cause = error.__context__ if isinstance(error, MissingExtraError) and _version(package) else error
    if isinstance(cause, InputError) or cause is None:
        return f": {error}"
    reason = " ".join(f"{type(cause).__name__}: {cause}".split())[:200]
    again = f"pip install --upgrade --force-reinstall '{package}{_bound(package)}'"
    return f" fails with {_installed(package)} ({reason}): {again}"


def _try_resizing() -> str:
    tiled = np.kron(np.arange(12, dtype=np.uint8).reshape(2, 2, 3) * 20, np.ones((8, 8, 1), np.uint8))
    if not np.array_equal(resize(tiled, (2, 2)), tiled[::8, ::8]):
        raise Broken("a resized picture is not the mean of its pieces")
    return f"resized by {_installed(_opencv())}"


def _clip_frame(number: int) -> Any:
    """Picture `number` of the clip [H, W, 3]: a bright square that moves over a gradient."""
    width, height = SIZE
    frame = np.repeat(np.linspace(40, 120, width).astype(np.uint8)[None, :, None], height, axis=0).repeat(3, axis=2)
    frame[40:80, 10 + 2 * number : 50 + 2 * number] = (220, 60, 40)
    return frame


def _tone(rate: int) -> Any:
    return (0.3 * np.sin(2 * np.pi * PITCH * np.arange(round(SECONDS * rate)) / rate)).astype(np.float32)


def _try_encoding(path: Path) -> str:
    from avgn.scenes.encode import encode_video

    encode_video(path, map(_clip_frame, range(round(SECONDS * FPS))), _tone(RATE), SIZE)
    return f"{path.stat().st_size / 1000:.0f} kB of H.264 and AAC written by {_installed('av')}"


def _try_decoding(path: Path) -> str:
    media = open_media(path)
    events = list(media.events(SECONDS))
    frames = [event for event in events if isinstance(event, VideoFrame)]
    blocks = [event for event in events if isinstance(event, AudioBlock)]
    if len(frames) != round(SECONDS * FPS) or media.corrupt_frames:
        raise Broken(f"{len(frames)} of {round(SECONDS * FPS)} pictures came back")
    apart = max(np.abs(frame.rgb.astype(int) - _clip_frame(n)).mean() for n, frame in enumerate(frames))
    if apart > FRAME_ERROR:
        raise Broken(f"pictures came back changed, by {apart:.0f} of 255")
    heard = _pitch(to_mono(np.concatenate([block.samples for block in blocks])), blocks[0].rate)
    if abs(heard - PITCH) > 5:
        raise Broken(f"a tone of {PITCH:.0f} Hz came back as {heard:.0f} Hz")
    return f"{len(frames)} pictures and {SECONDS} s of sound came back as they were"


def _try_resampling() -> str:
    heard = resample(_tone(44_100), 44_100, 16_000)
    apart = np.abs(heard - _tone(16_000))[400:-400].max()
    if len(heard) != round(SECONDS * 16_000) or apart > 1e-3:
        raise Broken(f"a tone resampled from 44100 to 16000 Hz is wrong by {apart:.3f}")
    return "44100 to 16000 Hz"


def _pitch(samples: Any, rate: int) -> float:
    return float(np.argmax(np.abs(np.fft.rfft(samples))) * rate / len(samples))


def _try_engines(found: Findings, bundle: Bundle) -> list[Engine]:
    """Try the engines, in the order in which they are chosen; return those that ran."""
    engines: list[Engine] = []
    absent: dict[str, list[str]] = {}
    try:
        check_installation()
    except InputError as error:
        found.broken.append(f"engines: {error}")
    for name, entry in ENGINES.items():
        readable = [v for v in bundle.info.variants if v.engine in entry.reads]
        # any precision tells whether an engine runs; fp32 is the one that is compared elsewhere
        variant = next((v for v in readable if v.precision == "fp32"), readable[0] if readable else None)
        if variant is None:
            absent.setdefault("no such graphs in this bundle", []).append(name)
        elif _obstacle(name, variant.target):
            absent.setdefault("no such package or GPU here", []).append(name)
        elif not entry.automatic:
            absent.setdefault("used only when asked for with --backend", []).append(name)
        else:
            found.attempt(f"engine {name}", entry.requires, lambda: _try_engine(bundle, name, variant, engines))  # noqa: B023
    if not engines and not any(line.startswith("engine") for line in found.broken):
        found.broken.append("engines: none is installed: pip install 'avgn[cpu]'")
    found.absent += [f"{', '.join(names)} ({reason})" for reason, names in absent.items()]
    return engines


def _obstacle(name: str, target: str) -> str | None:
    try:
        return ENGINES[name].obstacle(target)
    except Exception:
        # the library is installed but can't be imported: the attempt says why
        return None


def _try_engine(bundle: Bundle, name: str, variant: Any, engines: list[Engine]) -> str:
    info = bundle.info
    engine = load_engine(bundle, variant, name)
    height, width = info.image_size
    waveform = np.random.default_rng(0).standard_normal((1, info.window_samples)).astype(np.float32) * 0.1
    image = np.full((1, height, width, 3), 128, np.uint8)
    # the first run of some engines still compiles
    engine.run_image(image, engine.run_audio(waveform)["sources"])
    begin = time.perf_counter()
    heard = engine.run_audio(waveform)
    middle = time.perf_counter()
    seen = engine.run_image(image, heard["sources"])
    end = time.perf_counter()
    if not np.isfinite(seen["maps"]).all():
        raise Broken("maps that are no numbers")
    for prob in (heard["audio_prob"], seen["visual_prob"]):
        # written so that NaN fails as well
        if not ((prob >= 0) & (prob <= 1)).all():
            raise Broken("probabilities outside of [0, 1]")
    first = "" if engines else ", the one that is taken by default"
    engines.append(engine)
    return f"audio half {1e3 * (middle - begin):.1f} ms, image half {1e3 * (end - middle):.1f} ms{first}"


def _try_localizing(localizer: Localizer, clip: Path) -> str:
    overlay = clip.with_name("overlay.mp4")
    summary = localize_file(localizer, clip, output=overlay, json_path=clip.with_name("results.jsonl"))
    rows = clip.with_name("results.jsonl").read_text().count("\n")
    shown = sum(1 for _ in open_media(overlay).video())
    if not rows >= shown == round(SECONDS * FPS):
        raise Broken(f"{shown} of {round(SECONDS * FPS)} pictures in the overlay, {rows} lines of results")
    return f"{shown} pictures through {summary.engine} into a new video"


def _check_versions(found: Findings) -> None:
    """Find packages that are older than avgn supports."""
    for name in (*PACKAGES["runtime"], *PACKAGES["engines"]):
        have, need = _version(name), _bound(name)
        if have and need and _parts(have) < _parts(need):
            found.broken.append(f"{name} {have} is older than avgn works with: pip install --upgrade '{name}{need}'")


def _parts(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text))


def _bound(package: str) -> str:
    """Return the lowest version that avgn requires, as ">=1.2"; empty if avgn is not installed as a package."""
    try:
        asked = metadata.requires("avgn") or []
    except metadata.PackageNotFoundError:
        asked = []
    pattern = re.compile(rf"{re.escape(package)}(?:\[.*?\])?(>=[\d.]+)")
    return next((match.group(1) for text in asked if (match := pattern.match(text))), "")


def _opencv() -> str:
    return "opencv-python" if _version("opencv-python") else "opencv-python-headless"


def _installed(package: str) -> str:
    return f"{package} {_version(package) or '(not installed)'}"


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
