"""The npm package: packed, installed into a project of its own, checked by its types and run in a real browser."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import avgn
from avgn.scenes.synth import RATE
from tests.web import beside, browser, node
from tests.web.dog import write_devices
from tests.web.test_page import until

needs_browser = pytest.mark.skipif(browser.missing() is not None, reason=str(browser.missing()))
HELD = {"LICENSE", "NOTICE", "README.md", "package.json"} | {
    f"dist/{name}"
    for name in (
        *("errors.d.ts", "index.d.ts", "lines.d.ts", "results.d.ts"),
        *("index.js", "worker.js", "worklet.js"),
    )
}
# bytes of the tarball
LARGEST = 50_000
# what a project without a bundler needs to find the package
MAP = '{"imports": {"avgn-web": "./node_modules/avgn-web/dist/index.js"}}'
HTML = (
    '<!doctype html><title>example</title><link rel="icon" href="data:,"><output></output><button>Stop</button>'
    f'<script type="importmap">{MAP}</script>'
)
TYPES = """
import { AvgnError, Localizer } from "avgn-web";
import type { ErrorCode, MediaChange, PushedStream, Result, ResultStream, StateName } from "avgn-web";

export async function use(media: MediaStream, pixels: ImageData): Promise<void> {
  const localizer: Localizer = await Localizer.load(new URL("bundle/", location.href), { threads: 2 });
  const names: readonly string[] = localizer.classes;
  const stream: ResultStream = localizer.stream(media, { classes: names, maps: true });
  const told: MediaChange[] = [];
  const heard: ResultStream = localizer.stream(media, { onMedia: (change) => told.push(change) });
  await heard.listen(media.getAudioTracks()[0]!);
  const step: IteratorResult<Result> = await stream.next();
  if (!step.done) {
    const state: StateName = step.value.state;
    const peak: number[] | null | undefined = step.value.sources[0]?.peak;
    console.log(state, peak);
  }
  const pushed: PushedStream = localizer.open();
  pushed.pushPicture(pixels, 0);
  // @ts-expect-error: sound has a rate
  pushed.pushSound(new Float32Array(5), 0.5);
  // @ts-expect-error: there is no such option
  localizer.stream(media, { class: "dog" });
  // @ts-expect-error: the worker is nobody's business
  localizer.worker.terminate();
  try {
    localizer.close();
  } catch (error) {
    const code: ErrorCode | null = error instanceof AvgnError ? error.code : null;
    console.log(code);
  }
}
"""


def run(folder: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module", autouse=True)
def driver() -> Iterator[None]:
    """One driver for all browsers of this file."""
    with contextlib.nullcontext() if browser.missing() else browser.driving():
        yield


@pytest.fixture(scope="module")
def tarball(packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("library")
    node.run(work, "node", "library.mjs", str(work / "package"))
    name = run(work, "npm", "pack", "--silent", "./package").strip()
    return work / name


@pytest.fixture(scope="module")
def project(tarball: Path, packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that has installed the tarball."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "package.json").write_text('{"name": "project", "private": true, "type": "module"}')
    # the runtime comes from the packages that are here already, 138 MB less to unpack
    runtime = f"onnxruntime-web@file:{packages.parent}"
    options = ["--prefer-offline", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    run(folder, "npm", "install", *options, runtime, str(tarball))
    return folder


@pytest.fixture(scope="module")
def examples() -> list[str]:
    """All code of the package's README."""
    return re.findall(r"```ts\n(.*?)```", (node.CLIENT / "README.md").read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture(scope="module")
def example(examples: list[str]) -> str:
    """The example of the package's README, with which it begins."""
    return examples[0]


def test_what_is_packed(tarball: Path) -> None:
    with tarfile.open(tarball) as tar:
        files = {member.name.removeprefix("package/"): member for member in tar.getmembers()}
        assert set(files) == HELD
        text = {name: tar.extractfile(member).read() for name, member in files.items()}  # type: ignore[union-attr]
    for name in ("LICENSE", "NOTICE"):
        assert text[name] == (node.ROOT / name).read_bytes()
    facts = json.loads(text["package.json"])
    pinned = json.loads((node.CLIENT / "runtime.json").read_text())
    assert facts["version"] == avgn.__version__ and facts["license"] == "Apache-2.0" and "private" not in facts
    assert facts["dependencies"] == {pinned["package"]: pinned["version"]}
    assert tarball.stat().st_size < LARGEST


# what the later examples have from the first one, or from their readers
GIVEN = """
import { Localizer } from "avgn-web";
declare const localizer: Localizer;
declare const media: MediaStream;
declare const samples: Float32Array;
declare const imageData: ImageData;
"""


def test_the_example_and_the_types(project: Path, example: str, examples: list[str]) -> None:
    assert 24 <= len(example.splitlines()) <= 32
    (project / "example.ts").write_text(example)
    (project / "types.ts").write_text(TYPES)
    for at, other in enumerate(examples[1:]):
        (project / f"other{at}.ts").write_text(GIVEN + other)
    files = ["example.ts", "types.ts", *(f"other{at}.ts" for at in range(len(examples) - 1))]
    strict = {"strict": True, "noEmit": True, "target": "ES2022", "lib": ["ES2022", "DOM", "DOM.Iterable"], "types": []}
    for module, resolution in (("ESNext", "Bundler"), ("NodeNext", "NodeNext")):
        options = {**strict, "module": module, "moduleResolution": resolution}
        (project / "tsconfig.json").write_text(json.dumps({"compilerOptions": options, "files": files}))
        run(project, str(node.installed() / "node_modules" / ".bin" / "tsc"), "-p", "tsconfig.json")


@pytest.fixture(scope="module")
def served(project: Path, example: str) -> Iterator[str]:
    """The project's address, from a plain host, with the example's page and bundles beside it."""
    esbuild = str(node.installed() / "node_modules" / ".bin" / "esbuild")
    (project / "example.ts").write_text(example)
    # its types taken away, and nothing else
    run(project, esbuild, "example.ts", "--outfile=example.js")
    (project / "index.html").write_text(HTML + '<script type="module" src="example.js"></script>')
    (project / "empty.html").write_text(HTML)
    (project / "plain.html").write_text('<!doctype html><title>plain</title><link rel="icon" href="data:,">')
    models = Path(avgn.__file__).parent / "models"
    for bundle, name in (("bundle", "world"), ("tiny", "tiny")):
        shutil.copytree(models / name, project / bundle)
    (project / "broken").mkdir()
    shutil.copyfile(models / "tiny" / "bundle.json", project / "broken" / "bundle.json")
    with beside.hosted(project, isolated=False) as url:
        yield url


@needs_browser
def test_the_example_names_a_dog(served: str, tmp_path: Path) -> None:
    camera, microphone, (x1, y1, x2, y2) = write_devices(tmp_path)
    with browser.chromium(camera, microphone) as page:
        page.goto(served)
        until(page, "document.querySelector('output').value.includes('dog')", 120.0)
        said = page.evaluate("document.querySelector('output').value")
        found = re.search(r"dog (\d+) % at ([\d.]+), ([\d.]+)", said)
        assert found and int(found[1]) >= 50, said
        assert x1 <= float(found[2]) <= x2 and y1 <= float(found[3]) <= y2, said
        page.click("button")
        until(page, "document.querySelector('output').value === 'stopped'", 60.0)


PUSHED = """
async ({ count, height, width, rate, block, times, file, bundle }) => {
  const { Localizer } = await import("avgn-web");
  const localizer = await Localizer.load(bundle);
  const bytes = await (await fetch(file)).arrayBuffer();
  const size = 3 * height * width;
  const samples = new Float32Array(bytes, count * size);
  const stream = localizer.open({ every: true, maps: true });
  for (let at = 0; at < samples.length; at += block) {
    stream.pushSound(samples.subarray(at, at + block), rate, at / rate);
  }
  times.forEach((time, at) => {
    const rgb = new Uint8Array(bytes, at * size, size);
    const image = new ImageData(new Uint8ClampedArray(4 * height * width).fill(255), width);
    for (let at = 0; at < size; at += 1) image.data[at + Math.floor(at / 3)] = rgb[at];
    stream.pushPicture(image, time);
  });
  stream.end();
  const results = [];
  for await (const result of stream) results.push(result);
  const { classes, grid, model } = localizer;
  localizer.close();
  return { results, classes, grid, model };
}
"""


@needs_browser
def test_pushed_pictures_give_the_json_lines_of_python(served: str, project: Path) -> None:
    frames, times, sound = beside.scene(8, 8)
    beside.write_scene(project, frames, sound)
    ours = [json.loads(json.dumps(one.to_json())) for one in beside.in_python("tiny", frames, times, sound)]
    height, width = frames[0].shape[:2]
    facts = {"count": len(frames), "height": height, "width": width, "rate": RATE, "block": beside.BLOCK}
    with browser.chromium() as page:
        page.goto(f"{served}empty.html")
        found = page.evaluate(PUSHED, {**facts, "times": times, "file": beside.SCENE, "bundle": "tiny"})
    assert found["model"] and len(found["classes"]) == 10 and len(found["grid"]) == 2
    assert len(found["results"]) == len(ours)
    for line, other in zip(ours, found["results"], strict=True):
        maps = [source.pop("map") for source in other["sources"]]
        assert list(line) == list(other) and set(line["ms"]) == set(other["ms"])
        assert (line["time"], line["frame"], line["state"]) == (other["time"], other["frame"], other["state"])
        assert [list(source) for source in line["sources"]] == [list(source) for source in other["sources"]]
        assert beside.said(line) == beside.said(other)
        for one, two in zip(line["sources"], other["sources"], strict=True):
            for name in ("certainty", "audio_prob", "visual_prob", "peak", "box"):
                np.testing.assert_allclose(np.array(one[name], float), np.array(two[name], float), atol=2e-3)
        cells = found["grid"][0] * found["grid"][1]
        assert all(len(each) == cells for each in maps if each is not None)


ERRORS = """
async () => {
  const { AvgnError, BundleError, Localizer } = await import("avgn-web");
  const said = {};
  const caught = async (name, work) => {
    try {
      said[name] = { value: await work() };
    } catch (error) {
      said[name] = { name: error.name, code: error.code, text: error.message, own: error instanceof AvgnError };
    }
  };
  await caught("missing", () => Localizer.load("nowhere/"));
  await caught("broken", () => Localizer.load("broken"));
  await caught("runtime", () => Localizer.load("tiny/", { runtime: "nowhere/" }));
  await caught("aborted", () => Localizer.load("tiny/", { signal: AbortSignal.abort() }));
  const stopped = new AbortController();
  const amid = { signal: stopped.signal, onProgress: () => stopped.abort() };
  await caught("aborted amid", () => Localizer.load("tiny/", amid));
  const localizer = await Localizer.load("tiny/");
  const media = await navigator.mediaDevices.getUserMedia({ video: true, audio: true });
  await caught("classes", () => localizer.stream(media, { classes: ["unicorn"] }));
  const sound = new MediaStream(media.getAudioTracks());
  await caught("media", () => localizer.stream(sound));
  const open = localizer.open();
  await caught("busy", () => localizer.stream(media));
  await caught("rate", () => open.pushSound(new Float32Array(4), NaN, 0));
  open.close();
  await caught("ended", () => open.pushSound(new Float32Array(4), 48000, 0));
  await caught("closed", () => open.next());
  await caught("left", async () => {
    let count = 0;
    for await (const result of localizer.stream(media)) if (++count === 3) break;
    return [count, media.getTracks().map((track) => track.readyState)];
  });
  const signal = AbortSignal.timeout(500);
  await caught("signal", async () => { for await (const result of localizer.stream(media, { signal })); });
  await caught("slow", async () => {
    const stream = localizer.stream(media);
    await stream.next();
    await new Promise((done) => setTimeout(done, 1500));
    const { value } = await stream.next();
    stream.close();
    return value.dropped;
  });
  await caught("picture", async () => {
    const picture = media.getVideoTracks()[0].clone();
    const stream = localizer.stream(new MediaStream([picture]));
    const first = await stream.next();
    setTimeout(() => { picture.stop(); picture.dispatchEvent(new Event("ended")); });
    let step;
    do step = await stream.next(); while (!step.done);
    return first.value.sources.length;
  });
  const last = localizer.stream(media);
  setTimeout(() => localizer.close(), 100);
  await caught("close", async () => { for await (const result of last); return "over"; });
  await caught("after", () => localizer.stream(media));
  return said;
}
"""
EXPECTED = {
    "missing": ("BundleError", "bundle", "bundle.json is missing"),
    "broken": ("BundleError", "bundle", "is missing (the host says 404)"),
    "runtime": ("EngineError", "engine", "The model can't run in this browser"),
    "aborted": ("AbortError", 20, ""),
    "aborted amid": ("AbortError", 20, ""),
    "classes": ("AvgnError", "classes", 'no class "unicorn"'),
    "media": ("AvgnError", "media", "has no pictures"),
    "busy": ("AvgnError", "busy", "one stream at a time"),
    "rate": ("RangeError", None, "rate is in Hz"),
    "ended": ("AvgnError", "closed", "This stream has ended"),
    "signal": ("TimeoutError", 23, ""),
    "after": ("AvgnError", "closed", "was closed"),
}


@needs_browser
def test_errors_and_ends(served: str) -> None:
    # the browser says on its console what it did not find
    with browser.chromium(ignored=["Failed to load resource"]) as page:
        page.goto(f"{served}empty.html")
        said = page.evaluate(ERRORS)
    for name, (kind, code, words) in EXPECTED.items():
        found = said[name]
        assert (found.get("name"), found.get("code")) == (kind, code) and words in found["text"], (name, found)
        assert found["own"] == isinstance(code, str), name
    assert said["left"] == {"value": [3, ["live", "live"]]}
    assert said["closed"]["value"] == {"value": None, "done": True}
    assert said["slow"]["value"] > 0
    assert said["picture"]["value"] == 0 and said["close"] == {"value": "over"}


MEDIA = """
async () => {
  const { Localizer } = await import("avgn-web");
  const localizer = await Localizer.load("tiny/");
  const media = await navigator.mediaDevices.getUserMedia({ video: true, audio: true });
  const told = [];
  const stream = localizer.stream(media, { onMedia: ({ kind, state }) => told.push(`${kind} ${state}`) });
  const [sound] = media.getAudioTracks();
  // as the browser does it
  const becomes = (track, kind) => {
    if (kind === "ended") track.stop();
    track.dispatchEvent(new Event(kind));
  };
  const come = async (count) => {
    for (let at = 0; at < count; at += 1) if ((await stream.next()).done) throw new Error("it ended");
  };
  const refused = async (work) => work().then(() => null, ({ code }) => code);
  await come(2);
  becomes(sound, "mute");
  await come(2);
  becomes(sound, "unmute");
  becomes(sound, "ended");
  // nothing waits for sound
  await come(5);
  const [other] = (await navigator.mediaDevices.getUserMedia({ audio: true })).getAudioTracks();
  await stream.listen(other);
  await come(5);
  // what was replaced says nothing any more
  becomes(sound, "mute");
  becomes(other, "mute");
  const picture = await refused(() => stream.listen(media.getVideoTracks()[0]));
  becomes(media.getVideoTracks()[0], "ended");
  let step;
  do step = await stream.next(); while (!step.done);
  const over = await refused(() => stream.listen(other));
  localizer.close();
  return { told, picture, over };
}
"""


@needs_browser
def test_tracks_that_are_muted_end_and_come_back(served: str) -> None:
    with browser.chromium() as page:
        page.goto(f"{served}empty.html")
        said = page.evaluate(MEDIA)
    told = ["sound muted", "sound live", "sound ended", "sound muted", "picture ended"]
    assert said == {"told": told, "picture": "media", "over": "closed"}


# results of two trials: threads that are tried, and those that are kept
TOLD = (
    "const told = postMessage; self.postMessage = (data, ...more) => { if (data.type === 'hello')"
    " data.frame_ms = data.threads === 1 ? 100 : %d; told.call(self, data, ...more); };"
)
THREADS = """
async (options) => {
  const { Localizer } = await import("/node_modules/avgn-web/dist/index.js");
  const started = [];
  const { Worker } = window;
  window.Worker = class extends Worker {
    postMessage(message, ...more) {
      if (message.type === "load") started.push(message.threads);
      super.postMessage(message, ...more);
    }
  };
  const localizer = await Localizer.load("tiny/", options);
  localizer.close();
  window.Worker = Worker;
  return [localizer.threads, started];
}
"""


@needs_browser
@pytest.mark.parametrize("other, chosen", [(50, 2), (99, 1)], ids=["faster", "no faster"])
def test_threads_are_chosen_by_measurement(other: int, chosen: int, project: Path, served: str) -> None:
    """As the page without a server does; a number that is given is taken."""
    assert served
    with beside.hosted(project, isolated=True) as url, browser.chromium() as page:
        page.add_init_script("Object.defineProperty(navigator, 'hardwareConcurrency', { value: 2 })")

        def spoil(route: Any) -> None:
            answer = route.fetch()
            route.fulfill(response=answer, body=TOLD % other + answer.text())

        page.route("**/worker.js", spoil)
        # whose policy refuses the map of the other pages
        page.goto(f"{url}plain.html")
        assert page.evaluate("crossOriginIsolated")
        assert page.evaluate(THREADS, {}) == [chosen, [1, 2]]
        assert page.evaluate(THREADS, {}) == [chosen, [chosen]]
        assert page.evaluate(THREADS, {"threads": 2}) == [2, [2]]


# packers by what a project does with them, at versions that were tried
BUNDLERS: dict[str, tuple[list[str], list[str]]] = {
    "webpack": (
        ["webpack@5.113.0", "webpack-cli@7.3.1"],
        ["webpack", "--mode", "production", "--entry", "./example.js", "-o", "dist"],
    ),
    "vite": (["vite@8.3.8"], ["vite", "build"]),
}
SCRIPTS = {"webpack": "main.js", "vite": "/example.js"}


@needs_browser
@pytest.mark.soak
@pytest.mark.parametrize("bundler", BUNDLERS)
def test_the_example_packed_by_a_bundler(
    bundler: str, tarball: Path, packages: Path, example: str, tmp_path: Path
) -> None:
    """As the README says: the runtime's files are copied, and nothing is set."""
    project = tmp_path / "project"
    project.mkdir()
    (project / "package.json").write_text('{"name": "project", "private": true, "type": "module"}')
    needed, command = BUNDLERS[bundler]
    options = ["--prefer-offline", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    run(project, "npm", "install", *options, f"onnxruntime-web@file:{packages.parent}", str(tarball), *needed)
    packed = example.replace('load("bundle/", {', 'load("bundle/", { runtime: "ort/",')
    assert packed != example
    (project / "example.ts").write_text(packed)
    run(project, str(node.installed() / "node_modules" / ".bin" / "esbuild"), "example.ts", "--outfile=example.js")
    html = f'<output></output><button>Stop</button><script type="module" src="{SCRIPTS[bundler]}"></script>'
    (project / "index.html").write_text(f'<!doctype html><title>example</title><link rel="icon" href="data:,">{html}')
    run(project, f"node_modules/.bin/{command[0]}", *command[1:])
    site = project / "dist"
    if bundler == "webpack":
        shutil.copyfile(project / "index.html", site / "index.html")
    shutil.copytree(Path(avgn.__file__).parent / "models" / "world", site / "bundle")
    (site / "ort").mkdir()
    for name in ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"):
        shutil.copyfile(packages / name, site / "ort" / name)
    camera, microphone, _ = write_devices(tmp_path)
    with beside.hosted(site, isolated=True) as url, browser.chromium(camera, microphone) as page:
        page.goto(url)
        until(page, "document.querySelector('output').value.includes('dog')", 120.0)
