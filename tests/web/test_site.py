"""The page without a server: written by `avgn deploy web`, run in a real browser from a plain host."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import urlopen

import numpy as np
import pytest

from avgn.cli import main
from avgn.runtime.bundle import resolve_bundle_path
from avgn.runtime.contract import TOLERANCES
from avgn.runtime.web.site import POLICY, write_site
from tests.web import beside, browser, node
from tests.web.dog import WINDOW, write_devices
from tests.web.small_world import write_small_world
from tests.web.test_page import results, until

needs_browser = pytest.mark.skipif(browser.missing() is not None, reason=str(browser.missing()))
# where pictures of the page are kept
SHOTS = os.environ.get("AVGN_SCREENSHOTS")
# milliseconds: the model starts within two seconds on a quiet machine
READY = 90_000
# largest difference of maps in float32, and the largest of a probability
MAPS = 2e-3
TRIES = 5


@pytest.fixture(scope="module", autouse=True)
def driver() -> Iterator[None]:
    """One driver for all browsers of this file, which tells of what service workers ask for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PW_EXPERIMENTAL_SERVICE_WORKER_NETWORK_EVENTS", "1")
        with contextlib.nullcontext() if browser.missing() else browser.driving():
            yield


@pytest.fixture
def copied(tiny_site: Path, tmp_path: Path) -> Iterator[Path]:
    """A site that a test may spoil."""
    yield Path(shutil.copytree(tiny_site, tmp_path / "copied"))


def keep(page: Any, name: str, folder: Path) -> None:
    page.screenshot(path=str((Path(SHOTS) if SHOTS else folder) / f"{name}.png"))


def open_page(page: Any, url: str) -> None:
    page.goto(url)
    page.wait_for_selector("#connection[data-state=ready]", timeout=READY)


def test_what_is_written(tiny_site: Path) -> None:
    html = (tiny_site / "index.html").read_text()
    assert POLICY in html and "unsafe-inline" not in POLICY and "'unsafe-eval'" not in POLICY
    # no code or style in the page itself, which the policy would refuse, and nothing of another origin
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\bstyle=|\bon[a-z]+=|https?://", html)
    assert "token" not in html and "local.js" in html
    info = json.loads((tiny_site / "bundle" / "bundle.json").read_text())
    assert [variant["engine"] for variant in info["variants"]] == ["onnxruntime"]
    files = {path.relative_to(tiny_site).as_posix() for path in tiny_site.rglob("*") if path.is_file()}
    facts = json.loads(re.search(r"= (\{.*\});", (tiny_site / "sw.js").read_text())[1])  # type: ignore[index]
    assert set(facts["files"]) == files - {"sw.js", ".nojekyll"}
    assert set(facts["code"]) == {
        name for name in facts["files"] if not re.search(r"^bundle/|^ort/ort-webgpu|\.wasm$", name)
    }
    # what a host compresses of it: all of the code, and of that the page's own
    size = {name: len(gzip.compress((tiny_site / name).read_bytes())) for name in facts["code"]}
    assert sum(size.values()) <= 300_000
    assert sum(bytes for name, bytes in size.items() if not name.startswith("ort/")) < 80_000


def bundle_of(folder: Path, *variants: tuple[str, int, bool]) -> Path:
    """A bundle of tiny's graphs in precisions, each longer by so many megabytes, checked at export or not."""
    shutil.copytree(resolve_bundle_path("tiny"), folder)
    raw = json.loads((folder / "bundle.json").read_text())
    first = raw["variants"][0]
    graph = (folder / first["audio"]).read_bytes()
    raw["variants"] = []
    for precision, size, is_checked in variants:
        name = f"audio.{precision}.onnx"
        # field 6 of an ONNX model, its description
        padding = b"" if not size else b"\x32" + varint(1_000_000 * size) + b" " * (1_000_000 * size)
        (folder / name).write_bytes(graph + padding)
        hashes = {**first["sha256"], "audio": hashlib.sha256(graph + padding).hexdigest()}
        verified = {"maps_cosine": 0.99} if is_checked else None
        raw["variants"].append({**first, "audio": name, "precision": precision, "sha256": hashes, "verified": verified})
    (folder / "bundle.json").write_text(json.dumps(raw))
    return folder


def varint(value: int) -> bytes:
    low, rest = value & 127, value >> 7
    return bytes([low | 128]) + varint(rest) if rest else bytes([low])


@pytest.mark.parametrize(
    "variants, chosen",
    [
        ([("fp32", 1, True), ("int8-cpu", 0, True)], "fp32"),
        ([("fp32", 8, True), ("int8-cpu", 0, True)], "int8-cpu"),
        ([("int8-cpu", 0, False), ("fp32", 8, True)], "fp32"),
        ([("int8-cpu", 0, True)], "int8-cpu"),
        ([("fp16", 0, True), ("fp32", 1, True)], "fp32"),
        ([("fp16", 1, True), ("int8-gpu", 0, True)], "fp16"),
    ],
)
def test_the_precision_that_suits_browsers(
    variants: list[tuple[str, int, bool]], chosen: str, packages: Path, tmp_path: Path
) -> None:
    bundle = bundle_of(tmp_path / "bundle", *variants)
    site = write_site(bundle, tmp_path / "site", runtime=packages)
    assert [one["precision"] for one in json.loads((site / "bundle/bundle.json").read_text())["variants"]] == [chosen]
    site = write_site(bundle, tmp_path / "asked", runtime=packages, precision=variants[-1][0])
    info = json.loads((site / "bundle/bundle.json").read_text())
    assert [one["precision"] for one in info["variants"]] == [variants[-1][0]]


@pytest.mark.parametrize(
    "options, status, words",
    [
        (["--precision", "fp16"], 2, "no ONNX graphs in fp16"),
        (
            ["--runtime", "missing"],
            2,
            "--runtime missing has no ort.wasm.min.mjs: give the folder dist of onnxruntime-web",
        ),
        ([], 2, "npm is not installed"),
    ],
)
def test_refusals_leave_nothing(
    options: list[str],
    status: int,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("AVGN_CACHE", str(tmp_path / "cache"))
    assert main(["deploy", "web", "tiny", "site", *options]) == status
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_site_that_is_there_and_a_runtime_that_was_changed(
    tiny_site: Path, packages: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = tmp_path / "dist"
    changed.mkdir()
    for name in ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"):
        shutil.copyfile(packages / name, changed / name)
    with (changed / "ort-wasm-simd-threaded.mjs").open("a") as file:
        file.write("fetch('https://elsewhere')")
    assert main(["deploy", "web", "tiny", str(tmp_path / "site"), "--runtime", str(changed)]) == 2
    assert "holds another ort-wasm-simd-threaded.mjs" in capsys.readouterr().err
    assert not (tmp_path / "site").exists()
    before = {path: path.stat().st_mtime_ns for path in tiny_site.rglob("*")}
    assert main(["deploy", "web", "tiny", str(tiny_site), "--runtime", str(packages)]) == 2
    assert "exists and is not an empty folder" in capsys.readouterr().err
    assert before == {path: path.stat().st_mtime_ns for path in tiny_site.rglob("*")}


@needs_browser
def test_from_a_plain_host_and_then_without_any(tiny_site: Path, tmp_path: Path) -> None:
    """Isolated although the host sends no headers, nothing from other origins, and all of it again offline."""
    with browser.chromium(viewport={"width": 1280, "height": 800}) as page:
        asked: list[str] = []
        page.context.on("request", lambda request: asked.append(request.url))
        with beside.hosted(tiny_site, isolated=False) as url:
            open_page(page, url)
            assert page.evaluate("crossOriginIsolated && navigator.serviceWorker.controller !== null")
            keep(page, "site-ready", tmp_path)
        # the host has gone
        page.reload()
        page.wait_for_selector("#connection[data-state=ready]", timeout=READY)
        assert page.evaluate("crossOriginIsolated")
        assert len(asked) > 15 and {urlsplit(one).netloc for one in asked} == {urlsplit(url).netloc}


@needs_browser
@pytest.mark.parametrize("name", ["tiny", "world"])
def test_the_scene_gives_the_same_here_and_there(name: str, request: pytest.FixtureRequest) -> None:
    """Frame by frame: the same decisions, and maps that are the same in float32; 8 bits within what engines may differ
    by."""
    site: Path = request.getfixturevalue(f"{name}_site")
    compare(name, site, beside.STEP)


@needs_browser
@pytest.mark.soak
def test_the_world_model_in_float32_gives_the_same_maps(packages: Path, tmp_path: Path) -> None:
    """The layers of the shipped bundle, which are in 8 bits there, with weights by chance."""
    bundle = write_small_world(tmp_path)
    site = write_site(bundle, tmp_path / "site", runtime=packages)
    pairs = beside.pairs_of(str(bundle), site, 4 * beside.STEP)
    table = beside.table(pairs)
    assert all(pair.same for pair in pairs), table
    assert np.ptp([pair.python.maps for pair in pairs]) > 0.05
    assert max(pair.maps_apart for pair in pairs) <= MAPS, table
    assert max(pair.probabilities_apart for pair in pairs) <= MAPS, table


@needs_browser
@pytest.mark.soak
@pytest.mark.parametrize("name", ["tiny", "world"])
def test_all_of_the_scene_gives_the_same_here_and_there(name: str, request: pytest.FixtureRequest) -> None:
    compare(name, request.getfixturevalue(f"{name}_site"), 2)


def compare(bundle: str, site: Path, step: int) -> None:
    pairs = beside.pairs_of(bundle, site, step)
    table = beside.table(pairs)
    assert all(pair.same for pair in pairs), table
    assert len({label for pair in pairs for label, _ in beside.said(pair.line)}) > 2
    for pair in pairs:
        assert pair.browser["window"] == pair.python.window
        np.testing.assert_allclose(pair.browser["audio_prob"], pair.python.audio_prob, atol=1e-4, err_msg=table)
    if bundle != "world":
        assert max(pair.maps_apart for pair in pairs) <= MAPS, table
        numbers = [pair.numbers_apart for pair in pairs]
        assert max(numbers) <= MAPS, numbers
    else:
        limits = TOLERANCES["int8-cpu"]
        assert limits.engine_cosine is not None and limits.engine_prob is not None
        assert np.mean([pair.maps_cosine for pair in pairs]) >= limits.engine_cosine, table
        seen = [np.abs(np.subtract(pair.browser["visual_prob"], pair.python.visual_prob)).max() for pair in pairs]
        assert max(seen) <= limits.engine_prob, seen


@needs_browser
def test_the_page_names_what_the_camera_and_the_microphone_hold(world_site: Path, tmp_path: Path) -> None:
    """A photograph as the camera, its recording as the microphone: the dog is named, and where it is."""
    camera, microphone, (x1, y1, x2, y2) = write_devices(tmp_path)
    with (
        beside.hosted(world_site, isolated=False) as url,
        browser.chromium(camera, microphone, viewport=WINDOW) as page,
    ):
        open_page(page, url)
        page.click("#start:enabled")
        until(page, "document.getElementById('on-screen').innerText.includes('dog')", 60.0)
        for _ in range(TRIES):
            found = results(page, 10, 60.0)
            named = [source for one in found for source in one["sources"] if source["label"] == "dog"]
            if len(named) >= 0.9 * len(found):
                break
        keep(page, "site-world", tmp_path)
        assert len(named) >= 0.9 * len(found)
        places = [source["peak"] for source in named]
        assert all(x1 <= x <= x2 and y1 <= y <= y2 for x, y in places), places
        # the newest picture wins: what is answered is never far behind
        late = [one["latency"] for one in found if one["latency"] is not None]
        assert np.median(late) < 0.5 + 4 * np.median(np.diff([one["time"] for one in found]))
        page.click("#freeze")
        assert page.get_attribute("#freeze", "aria-pressed") == "true"
        page.click("#stop")
        page.wait_for_selector("#start", state="visible")


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def change(file: Path, **facts: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **facts}))


SPOILED = {
    "a graph that was changed": (lambda site: flip(site / "bundle/audio.onnx"), "Graph audio.onnx has sha256"),
    "a foreign bundle": (lambda site: change(site / "bundle/bundle.json", format="other"), "not a bundle"),
    "a newer bundle": (lambda site: change(site / "bundle/bundle.json", version=2), "bundle version 2 is not known"),
    "no JSON": (lambda site: (site / "bundle/bundle.json").write_text("<!doctype html>"), "is not valid JSON"),
    "no graph": (lambda site: (site / "bundle/image.onnx").write_bytes(b""), "Graph image.onnx has sha256"),
}


@needs_browser
@pytest.mark.parametrize("case", SPOILED)
def test_a_bundle_that_is_broken_or_foreign_is_refused(case: str, copied: Path, tmp_path: Path) -> None:
    spoil, words = SPOILED[case]
    spoil(copied)
    with beside.hosted(copied, isolated=True) as url, browser.chromium() as page:
        page.goto(url)
        page.wait_for_selector("#connection[data-state=refused]", timeout=READY)
        assert words in page.inner_text("#message")
        assert page.is_disabled("#start") and page.is_disabled("#file")
        keep(page, "site-refused", tmp_path)


@needs_browser
def test_what_the_browser_can_not_do_is_said(tiny_site: Path, tmp_path: Path) -> None:
    with beside.hosted(tiny_site, isolated=True) as url:
        with browser.chromium(devices=False) as page:
            open_page(page, url)
            page.click("#start")
            until(page, "!document.getElementById('message').hidden")
            assert "has no camera" in page.inner_text("#message") and page.is_visible("#start")
            keep(page, "site-no-camera", tmp_path)
        with browser.chromium() as page:
            page.add_init_script("WebAssembly.validate = () => false")
            page.goto(url)
            page.wait_for_selector("#connection[data-state=refused]", timeout=READY)
            assert "no SIMD" in page.inner_text("#message")
    # headers of isolation mean nothing there, which the browser would say
    with (
        beside.hosted(tiny_site, isolated=False) as url,
        browser.chromium(flags=["--host-resolver-rules=MAP plain.test 127.0.0.1"]) as page,
    ):
        page.goto(f"http://plain.test:{urlsplit(url).port}/")
        page.wait_for_selector("#connection[data-state=refused]", timeout=READY)
        assert "only over https" in page.inner_text("#message")


def test_it_is_tried_on_this_machine(packages: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "avgn", "deploy", "web", "tiny", f"{tmp_path}/site", "--runtime", str(packages)]
    with subprocess.Popen([*command, "--serve", "--port", "0"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"{tmp_path / 'site'}\n"
        url = process.stdout.readline().strip()
        with urlopen(url) as answer:
            assert answer.headers["cross-origin-embedder-policy"] == "require-corp"
            assert answer.headers["content-security-policy"] == POLICY and b"local.js" in answer.read()
        for path in ("ort/", "../site", "%2e%2e/%2e%2e/etc/passwd", "ort/../../../etc/passwd"):
            with pytest.raises(HTTPError, match="404"):
                urlopen(url + path)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130


def violations(page: Any) -> list[str]:
    """What axe finds wrong for people who can't see, hear or point."""
    page.evaluate((node.installed() / "node_modules" / "axe-core" / "axe.min.js").read_text())
    found = page.evaluate("axe.run()")["violations"]
    return [f"{one['id']}: {[each['html'] for each in one['nodes']]}" for one in found]


@needs_browser
def test_everybody_can_use_it(tiny_site: Path) -> None:
    with beside.hosted(tiny_site, isolated=True) as url, browser.chromium() as page:
        open_page(page, url)
        assert violations(page) == []
        page.click("#start:enabled")
        results(page, 3, 60.0)
        assert violations(page) == []


@pytest.mark.soak
def test_npm_fetches_the_runtime_once(
    packages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AVGN_CACHE", str(tmp_path / "cache"))
    assert main(["deploy", "web", "tiny", str(tmp_path / "one")]) == 0, capsys.readouterr().err
    # from the cache alone, the next time
    monkeypatch.setenv("PATH", "")
    assert main(["deploy", "web", "tiny", str(tmp_path / "two")]) == 0, capsys.readouterr().err
    for name in ("ort.js", "ort-wasm.js", "ort-wasm.wasm"):
        assert (tmp_path / "two" / "ort" / name).read_bytes() == (tmp_path / "one" / "ort" / name).read_bytes()


@needs_browser
def test_a_phone(tiny_site: Path, tmp_path: Path) -> None:
    phone: dict[str, Any] = {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True}
    with beside.hosted(tiny_site, isolated=True) as url, browser.chromium(**phone) as page:
        open_page(page, url)
        page.tap("#start:enabled")
        results(page, 3, 60.0)
        keep(page, "site-phone", tmp_path)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
