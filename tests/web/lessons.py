"""A world without dogs, a teacher for it, and visitors who teach it one."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from websockets.sync.client import ClientConnection

from avgn.demo import collage
from avgn.runtime import Localizer
from avgn.runtime.bundle import Bundle
from avgn.runtime.web import wire
from avgn.runtime.web.lessons import Recording
from avgn.scenes.synth import RATE
from avgn.teach import Changes, give_lesson
from avgn.teach.classroom import Classroom
from tests.web.visits import message, talk

BLOCK = 2205
# seconds that anything may take on a machine with much else to do
PATIENCE = 120.0


def load(bundle: Bundle) -> Localizer:
    return Localizer.load(bundle, "onnxruntime", threads=1)


def without_dog(folder: Path) -> Bundle:
    return give_lesson("world", Changes(remove=["dog"]), folder / "without-dog").bundle


@contextlib.contextmanager
def classroom(bundle: Bundle, output: Path | None = None) -> Iterator[tuple[Localizer, Classroom]]:
    localizer = load(bundle)
    with Classroom(localizer, load, output) as room:
        yield localizer, room


def picture() -> Any:
    """The demo's four photographs, [H, W, 3] RGB."""
    return cv2.resize(next(collage.draw_frames()), (320, 240), interpolation=cv2.INTER_AREA)


def jpeg_of(rgb: Any) -> bytes:
    return bytes(cv2.imencode(".jpg", np.ascontiguousarray(rgb[..., ::-1]))[1])


def pcm(seconds: float, name: str | None = "dog.flac") -> Any:
    """A recording of the demo, over and over, [T] int16 at 22 050 Hz; without a name silence."""
    count = round(seconds * RATE)
    if name is None:
        return np.zeros(count, np.int16)
    return np.resize((32767 * collage.read_recording(name)).astype(np.int16), count)


def recording(seconds: float = 3.0, sound: str | None = "dog.flac", shown: Any = None) -> Recording:
    rgb = picture() if shown is None else shown
    return Recording(samples=pcm(seconds, sound), rate=RATE, pictures=(rgb, rgb))


@dataclass
class TeachingVisitor:
    """A visitor over a real connection."""

    socket: ClientConnection
    hello: dict[str, Any]
    said: list[dict[str, Any]] = field(default_factory=list)

    def say(self, kind: str, **facts: Any) -> None:
        self.socket.send(json.dumps({"type": kind, **facts}))

    def show(self, seconds: float, sound: str | None = "dog.flac", rgb: Any = None) -> None:
        """Send sound and pictures in real time."""
        jpeg = jpeg_of(picture() if rgb is None else rgb)
        samples, begin = pcm(seconds, sound), time.monotonic()
        for at in range(0, len(samples), BLOCK):
            self.socket.send(message(wire.SAMPLES, begin + at / RATE, samples[at : at + BLOCK].tobytes(), RATE))
            self.socket.send(message(wire.FRAME, begin + at / RATE, jpeg))
            time.sleep(BLOCK / RATE)

    def until(self, kind: str, **facts: Any) -> dict[str, Any]:
        """Read up to a message of a type that holds these facts."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            got: dict[str, Any] = json.loads(self.socket.recv(timeout=max(0.1, deadline - time.monotonic())))
            self.said.append(got)
            if got["type"] == kind and all(got.get(name) == value for name, value in facts.items()):
                return got
        raise AssertionError(f"no {kind} {facts}: {[one for one in self.said if one['type'] != 'result']}")

    def record(self, seconds: float = 2.0) -> dict[str, Any]:
        """Hold the button; the answer when it was looked at."""
        self.say("teach-begin")
        self.until("lesson", state="recording")
        self.show(seconds)
        self.say("teach-end")
        return self.until("lesson", state="looked")


@contextlib.contextmanager
def teaching(url: str, token: str | None = None) -> Iterator[TeachingVisitor]:
    with talk(url, max_size=None) as socket:
        socket.send(json.dumps({"type": "hello", "version": 1, "token": token}))
        yield TeachingVisitor(socket, json.loads(socket.recv(timeout=PATIENCE)))
