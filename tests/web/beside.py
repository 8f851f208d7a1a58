"""The demo's scene through the Python runtime and through the page's worker, frame by frame."""

from __future__ import annotations

import base64
import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from avgn.demo import collage
from avgn.runtime import Localizer
from avgn.runtime.arrays import Floats, Pixels
from avgn.runtime.result import Result
from avgn.runtime.stream import StreamLocalizer
from avgn.runtime.web.site_server import open_server
from avgn.scenes.encode import FPS
from avgn.scenes.synth import RATE
from tests.web import browser

# of the scene's frames one in so many, by default
STEP = 16
BLOCK = 2205
SCENE = "scene.bin"
# a page of the site that loads no model of its own
EMPTY = "scene.html"
# feeds all frames and samples of a file to a worker, and returns what it answers
FEED = """
async ({ count, height, width, rate, block, times, threads, engine, raw, memory, file }) => {
  const bytes = await (await fetch(file)).arrayBuffer();
  const size = 3 * height * width;
  const samples = new Float32Array(bytes, count * size);
  const worker = new Worker(new URL('worker.js', document.baseURI), { type: 'module' });
  const results = [];
  const begin = performance.now();
  const seconds = () => (performance.now() - begin) / 1000;
  const facts = {};
  try {
    await new Promise((done, fail) => {
      worker.onerror = (event) => fail(new Error(event.message));
      worker.onmessage = ({ data }) => {
        if (data.type === 'refused') fail(new Error(data.reason));
        if (data.type === 'hello') {
          facts.ready_seconds = seconds();
          facts.threads = data.threads;
          facts.engine = data.engine;
          worker.postMessage({ type: 'reset', setting: { every: true, exact: true, raw, maxWait: 1e9 } });
          for (let at = 0; at < samples.length; at += block) {
            worker.postMessage({ type: 'sound', samples: samples.slice(at, at + block), rate, time: at / rate });
          }
          worker.postMessage({ type: 'sound-end' });
          times.forEach((time, at) => {
            const data = new Uint8Array(bytes, at * size, size).slice();
            worker.postMessage({ type: 'pixels', picture: { data, height, width, channels: 3 }, time });
          });
        }
        if (data.type === 'result') {
          facts.first_seconds ??= seconds();
          results.push(data);
          if (results.length === count) done();
        }
      };
      worker.postMessage({
        type: 'load', threads, engine,
        bundle: new URL('bundle/', document.baseURI).href, runtime: new URL('ort/', document.baseURI).href,
      });
    });
    facts.all_seconds = seconds();
    if (memory) facts.memory_bytes = (await performance.measureUserAgentSpecificMemory()).bytes;
  } finally {
    worker.terminate();
  }
  if (raw) {
    for (const result of results) {
      const maps = new Uint8Array(result.maps.buffer, result.maps.byteOffset, result.maps.byteLength);
      let text = '';
      for (let at = 0; at < maps.length; at += 4096) text += String.fromCharCode(...maps.subarray(at, at + 4096));
      result.maps = btoa(text);
      result.audio_prob = [...result.audio_prob];
      result.visual_prob = [...result.visual_prob];
      for (const source of result.sources) delete source.map;
    }
  }
  return { results, facts };
}
"""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """What both runtimes say of one frame."""

    python: Result
    browser: dict[str, Any]

    @property
    def line(self) -> dict[str, Any]:
        """Python's result line."""
        return self.python.to_json()

    @property
    def maps(self) -> Floats:
        """The browser's maps, as many values as Python's."""
        return np.frombuffer(base64.b64decode(self.browser["maps"]), np.float32)

    @property
    def maps_apart(self) -> float:
        """The largest difference of a value; of values above 1 as a share of them: those of silence reach -5000."""
        ours = self.python.maps.ravel()
        return float((np.abs(self.maps - ours) / np.maximum(1, np.abs(ours))).max())

    @property
    def maps_cosine(self) -> float:
        """The mean cosine of the classes' maps."""
        ours = self.python.maps.reshape(len(self.python.maps), -1).astype(np.float64)
        theirs = self.maps.reshape(ours.shape).astype(np.float64)
        norms = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
        return float(np.mean((ours * theirs).sum(axis=1) / np.maximum(norms, 1e-12)))

    @property
    def numbers_apart(self) -> float:
        """The largest difference of a number of the lines' sources, which are the same ones."""
        most = 0.0
        for ours, theirs in zip(self.line["sources"], self.browser["sources"], strict=True):
            for name in ("certainty", "audio_prob", "visual_prob"):
                most = max(most, abs(ours[name] - theirs[name]))
            for name in ("peak", "box"):
                most = max([most, *(abs(a - b) for a, b in zip(ours[name] or (), theirs[name] or (), strict=True))])
        return most

    @property
    def probabilities_apart(self) -> float:
        """The largest difference of a probability of either half."""
        ours = (self.python.audio_prob, self.python.visual_prob)
        theirs = (self.browser["audio_prob"], self.browser["visual_prob"])
        return max(float(np.abs(one - np.asarray(other)).max()) for one, other in zip(ours, theirs, strict=True))

    @property
    def same(self) -> bool:
        """Whether state and sources are the same; numbers aside."""
        ours, theirs = self.line, self.browser
        return ours["state"] == theirs["state"] and said(ours) == said(theirs)


def said(line: dict[str, Any]) -> list[tuple[str, bool]]:
    return [(source["label"], source["on_screen"]) for source in line["sources"]]


def scene(step: int = STEP, most: int | None = None) -> tuple[list[Pixels], list[float], Floats]:
    """Return frames of the demo's scene (every `step`-th, `most` of them), their times, its sound [T] at 22 050 Hz."""
    every = islice(enumerate(collage.draw_frames()), 0, None if most is None else step * most, step)
    frames = [(frame, number / FPS) for number, frame in every]
    return [frame for frame, _ in frames], [time for _, time in frames], collage.draw_waveform()


def write_scene(site: Path, frames: list[Pixels], sound: Floats) -> None:
    """Lay the scene beside the page, and an empty page."""
    (site / EMPTY).write_text('<!doctype html><title>scene</title><link rel="icon" href="icon.svg">')
    with (site / SCENE).open("wb") as file:
        for frame in frames:
            file.write(frame.tobytes())
        file.write(sound.tobytes())


def in_python(bundle: str, frames: list[Pixels], times: list[float], sound: Floats) -> list[Result]:
    stream = StreamLocalizer(Localizer.load(bundle, backend="onnxruntime", threads=1).engine)
    for at in range(0, len(sound), BLOCK):
        stream.push_audio(sound[at : at + BLOCK], RATE, at / RATE)
    results = stream.end_audio()
    for frame, time in zip(frames, times, strict=True):
        results += stream.push_frame(frame, time)
    return results + stream.flush()


def in_browser(
    page: Any,
    frames: list[Pixels],
    times: list[float],
    *,
    threads: int,
    engine: str = "wasm",
    raw: bool = True,
    memory: bool = False,
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the worker's results, what ran them and how long it took; with `memory` (of an isolated page) what all of
    it holds."""
    height, width = frames[0].shape[:2]
    facts = {"count": len(frames), "height": height, "width": width, "rate": RATE, "block": BLOCK, "file": SCENE}
    found = page.evaluate(
        FEED, {**facts, "times": times, "threads": threads, "engine": engine, "raw": raw, "memory": memory}
    )
    return found["results"], found["facts"]


@contextlib.contextmanager
def hosted(site: Path, *, isolated: bool) -> Iterator[str]:
    """Serve a site in a thread; yields its address."""
    server = open_server(site, 0, isolated=isolated)
    thread = threading.Thread(target=server.serve_forever, name="site")
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


def pairs_of(bundle: str, site: Path, step: int = STEP) -> list[Pair]:
    """Return what both say of the scene, with a bundle and a site that was written of it."""
    frames, times, sound = scene(step)
    write_scene(site, frames, sound)
    ours = in_python(bundle, frames, times, sound)
    try:
        with hosted(site, isolated=True) as url, browser.chromium() as page:
            page.goto(f"{url}{EMPTY}")
            theirs, _ = in_browser(page, frames, times, threads=1)
    finally:
        for name in (SCENE, EMPTY):
            (site / name).unlink()
    return [Pair(python=one, browser=other) for one, other in zip(ours, theirs, strict=True)]


def table(pairs: list[Pair]) -> str:
    """Return one line a frame: its time, what Python says, what the page says, how far their maps are apart."""
    rows = [
        f"{pair.python.time:6.2f}  {said(pair.line)}  {said(pair.browser)}  {pair.maps_apart:.1e}" for pair in pairs
    ]
    return "\n".join(rows)
