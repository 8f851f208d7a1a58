"""What goes wrong around the page without a server: files, devices, permissions, memory, sleep, tabs, disks, versions.

One browser for all of it; each visitor has a profile of its own.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from avgn.runtime.bundle import file_sha256
from avgn.runtime.web.site import service_worker
from tests.web import beside, browser
from tests.web.test_page import results, until
from tests.web.test_site import copied, open_page

__all__ = ["copied"]
pytestmark = pytest.mark.skipif(browser.missing() is not None, reason=str(browser.missing()))

WAIT = 90.0
VIDEO = ["-f", "lavfi", "-i", "testsrc2=size=320x240:rate=25:duration=2"]
SOUND = ["-f", "lavfi", "-i", "sine=440:duration=2"]


@pytest.fixture(scope="module")
def chrome() -> Iterator[Any]:
    """A browser with a fake camera and microphone that asks for permission, and keeps pages that are left."""
    flags = ["--use-fake-device-for-media-stream"]
    with browser.launched(flags, without=["--disable-back-forward-cache"]) as launched:
        yield launched


@pytest.fixture(scope="module")
def host(tiny_site: Path) -> Iterator[str]:
    with beside.hosted(tiny_site, isolated=True) as url:
        yield url


@contextlib.contextmanager
def another(chrome: Any, flag: str) -> Iterator[Any]:
    """One more browser beside that of the module, with an option."""
    flags = [flag, *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    launched = chrome.browser_type.launch(executable_path=browser.executable(), args=flags)
    try:
        yield launched
    finally:
        launched.close()


def message(page: Any) -> str:
    page.wait_for_selector("#message", state="visible", timeout=1000 * WAIT)
    said: str = page.inner_text("#message")
    return said


def start(page: Any, url: str) -> None:
    open_page(page, url)
    page.click("#start:enabled")
    results(page, 3, WAIT)


def write_video(path: Path, *options: str) -> Path:
    subprocess.run(["ffmpeg", "-v", "error", "-y", *options, str(path)], check=True)
    return path


def pad(path: Path, size: int) -> Path:
    """Lengthen an MP4 to `size` bytes with a box that players pass over; the disk holds only what was written."""
    length = size - path.stat().st_size
    with path.open("ab") as file:
        file.write(struct.pack(">I4sQ", 1, b"free", length))
    os.truncate(path, size)
    return path


def processes(root: int) -> list[int]:
    """A process and all that it has started."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue
            children.setdefault(parent, []).append(int(entry.name))
    found = [root]
    for each in found:
        found += children.get(each, [])
    return found


def of_browser() -> list[int]:
    """The processes of the browser that this process has started."""
    return [each for each in processes(os.getpid()) if "chrom" in _command(each)]


def _command(process: int) -> str:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")[0].decode()
    except OSError:
        return ""


def memory_mb() -> float:
    """The browser's own memory, without the files that it has open."""
    total = 0
    for process in of_browser():
        try:
            lines = Path(f"/proc/{process}/status").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))
    return total / 1024


FILES: dict[str, tuple[list[str] | bytes, str]] = {
    "no-video.mp4": (b"hello", "This browser can't play no-video.mp4"),
    "empty.mp4": (b"", "This browser can't play empty.mp4"),
    "sound-alone.m4a": (SOUND, "sound-alone.m4a has no pictures that this browser can show"),
    "codec.mkv": ([*VIDEO, *SOUND, "-c:v", "prores_ks"], "codec.mkv has no pictures that this browser can show"),
}


def test_files_that_are_no_videos(chrome: Any, host: str, tmp_path: Path) -> None:
    video = write_video(tmp_path / "good.webm", *VIDEO, *SOUND, "-c:v", "libvpx")
    with browser.opened(chrome, ignored=["ERR_REQUEST_RANGE_NOT_SATISFIABLE"]) as page:
        open_page(page, host)
        for name, (content, words) in FILES.items():
            if isinstance(content, bytes):
                (tmp_path / name).write_bytes(content)
            else:
                write_video(tmp_path / name, *content)
            page.set_input_files("#file", str(tmp_path / name))
            until(page, f"document.getElementById('message').innerText.includes({json.dumps(words)})", WAIT)
            page.wait_for_selector("#start", state="visible")
            # the page goes on with the next one
            page.set_input_files("#file", str(video))
            results(page, 3, WAIT)
            assert page.is_hidden("#message")
            page.click("#stop")


def test_a_video_without_sound(chrome: Any, host: str, tmp_path: Path) -> None:
    video = write_video(tmp_path / "silent.mp4", *VIDEO, "-pix_fmt", "yuv420p")
    with browser.opened(chrome) as page:
        open_page(page, host)
        page.set_input_files("#file", str(video))
        assert message(page) == "This video has no sound: nothing can be heard."
        results(page, 5, WAIT)
        page.wait_for_selector("#start", state="visible", timeout=1000 * WAIT)


def test_a_video_of_two_gigabytes(chrome: Any, host: str, tmp_path: Path) -> None:
    """It plays from where it lies: nothing of it is read that is not shown."""
    options = [*VIDEO, *SOUND, "-pix_fmt", "yuv420p", "-movflags", "+faststart"]
    small = write_video(tmp_path / "small.mp4", *options)
    large = pad(write_video(tmp_path / "large.mp4", *options), 2**31 + 2**20)
    with browser.opened(chrome) as page:
        open_page(page, host)
        held = {}
        for video in (small, large):
            page.set_input_files("#file", str(video))
            results(page, 10, WAIT)
            held[video.name] = memory_mb()
            page.wait_for_selector("#start", state="visible", timeout=1000 * WAIT)
        assert held["large.mp4"] < held["small.mp4"] + 200, held


def test_permissions_that_are_refused(chrome: Any, host: str) -> None:
    with browser.opened(chrome, []) as page:
        open_page(page, host)
        page.click("#start")
        assert "not allowed to use the camera" in message(page) and page.is_visible("#start")
        page.context.grant_permissions(["camera"])
        page.click("#start")
        results(page, 3, WAIT)
        assert "not allowed to use the microphone: nothing can be heard" in message(page)
        page.click("#stop")
        page.context.clear_permissions()
        page.context.grant_permissions(["microphone"])
        page.click("#start")
        until(page, "document.getElementById('message').innerText.includes('not allowed to use the camera')", WAIT)
        assert page.is_visible("#start")


def test_a_microphone_alone(chrome: Any, host: str) -> None:
    """Nothing can be shown without pictures: the way out is said."""
    with another(chrome, "--use-fake-device-for-media-stream=device-count=0") as small, browser.opened(small) as page:
        open_page(page, host)
        page.click("#start")
        assert "This device has no camera. A video file can be dropped here" in message(page)
        assert page.is_visible("#start")


# devices that come and go: the tracks that the page has, and a microphone that is there or not
DEVICES = """
  window.streams = [];
  window.unplugged = false;
  const { mediaDevices } = navigator;
  const open = mediaDevices.getUserMedia;
  mediaDevices.getUserMedia = async (wanted) => {
    if (unplugged && wanted.audio) throw new DOMException("", "NotFoundError");
    const stream = await open.call(mediaDevices, wanted);
    // what the page takes away from its stream or puts into it is no matter here
    streams.push(Object.fromEntries(stream.getTracks().map((track) => [track.kind, track])));
    return stream;
  };
  const { AudioContext } = window;
  window.contexts = [];
  window.AudioContext = class extends AudioContext {
    constructor(...options) { super(...options); contexts.push(this); }
  };
  // as the browser does it
  window.becomes = (track, kind) => {
    if (kind === "ended") track.stop();
    Object.defineProperty(track, "muted", { value: kind === "mute", configurable: true });
    track.dispatchEvent(new Event(kind));
  };
  window.plug = () => mediaDevices.dispatchEvent(new Event("devicechange"));
"""
SAID = "document.getElementById('message').innerText"


def test_devices_that_the_system_mutes(chrome: Any, host: str) -> None:
    with browser.opened(chrome) as page:
        page.add_init_script(DEVICES)
        start(page, host)
        page.evaluate("becomes(streams.at(-1).audio, 'mute')")
        assert message(page) == "The microphone gives no sound at the moment."
        results(page, 3, WAIT)
        page.evaluate("becomes(streams.at(-1).video, 'mute')")
        until(page, f"{SAID} === 'The camera gives no pictures at the moment.'", WAIT)
        # both are, as in a call: one is back, then the other
        page.evaluate("becomes(streams.at(-1).video, 'unmute')")
        until(page, f"{SAID} === 'The microphone gives no sound at the moment.'", WAIT)
        page.evaluate("becomes(streams.at(-1).audio, 'unmute')")
        until(page, f"{SAID} === 'The microphone is heard again.'", WAIT)
        results(page, 3, WAIT)
        page.click("#stop")
        assert page.is_hidden("#message")
        # a call takes the sound away, and gives it back
        page.click("#start")
        results(page, 3, WAIT)
        page.evaluate(
            "() => { const context = contexts.at(-1); let state = 'interrupted';"
            " context.resume = async () => { state = 'running'; };"
            " Object.defineProperty(context, 'state', { get: () => state });"
            " context.dispatchEvent(new Event('statechange')); }"
        )
        until(page, "contexts.at(-1).state === 'running'", WAIT)


def test_a_microphone_that_is_plugged_in_again(chrome: Any, host: str) -> None:
    with browser.opened(chrome) as page:
        page.add_init_script(DEVICES)
        start(page, host)
        page.evaluate("unplugged = true; becomes(streams.at(-1).audio, 'ended')")
        assert message(page) == "The microphone was unplugged or taken away: nothing more can be heard."
        results(page, 5, WAIT)
        # another device changes nothing
        page.evaluate("plug()")
        results(page, 3, WAIT)
        count = page.evaluate("contexts.length")
        page.evaluate("unplugged = false; plug(); plug()")
        until(page, f"{SAID} === 'The microphone is heard again.'", WAIT)
        assert page.evaluate("contexts.length") == count + 1 and page.evaluate("contexts.at(-1).state") == "running"
        results(page, 5, WAIT)
        # where another one is there, it is heard at once
        page.evaluate("becomes(streams.at(-1).audio, 'ended')")
        until(page, f"contexts.length === {count + 2}", WAIT)
        page.click("#stop")
        # none at first, and one is plugged in
        page.evaluate("unplugged = true")
        page.click("#start")
        until(page, f"{SAID} === 'This device has no microphone: nothing can be heard.'", WAIT)
        page.evaluate("unplugged = false; plug()")
        until(page, f"{SAID} === 'The microphone is heard again.'", WAIT)
        results(page, 5, WAIT)
        page.click("#stop")
        # nothing is asked for while nothing runs
        asked = page.evaluate("streams.length")
        page.evaluate("plug()")
        page.wait_for_timeout(300)
        assert page.evaluate("streams.length") == asked and page.evaluate("contexts.at(-1).state") == "closed"


def test_devices_that_are_taken_away(chrome: Any, host: str) -> None:
    """As when they are unplugged: their tracks end."""
    with browser.opened(chrome) as page:
        page.add_init_script(DEVICES)
        start(page, host)
        page.evaluate("unplugged = true; becomes(streams.at(-1).audio, 'ended')")
        assert "The microphone was unplugged" in message(page)
        # pictures go on, and wait for no sound
        results(page, 5, WAIT)
        page.evaluate("unplugged = false")
        page.context.clear_permissions()
        until(page, "document.getElementById('message').innerText.includes('camera was unplugged')", WAIT)
        assert page.is_visible("#start") and page.inner_text("#on-screen") == "" and page.is_disabled("#stop")
        page.context.grant_permissions(["camera", "microphone"])
        page.click("#start")
        results(page, 3, WAIT)


@pytest.mark.parametrize("other, chosen", [(50, 2), (99, 1)], ids=["faster", "no faster"])
def test_threads_are_chosen_while_nothing_runs(other: int, chosen: int, chrome: Any, copied: Path) -> None:
    """Two threads take over from one where they are faster, behind a page that is ready; the next visit knows."""
    worker = copied / "worker.js"
    told = (
        "const told = postMessage; self.postMessage = (data, ...more) => { if (data.type === 'hello')"
        f" data.frame_ms = data.threads === 1 ? 100 : {other}; told.call(self, data, ...more); }};"
    )
    worker.write_text(told + worker.read_text())
    kept = "JSON.parse(Object.values(localStorage)[0] ?? 'null')?.threads ?? null"
    started = "window.started = []; window.Worker = class extends Worker { postMessage(message, ...more) {"
    started += " if (message.type === 'load') started.push(message.threads); super.postMessage(message, ...more); } };"
    with beside.hosted(copied, isolated=True) as url, browser.opened(chrome) as page:
        page.add_init_script(f"Object.defineProperty(navigator, 'hardwareConcurrency', {{ value: 2 }}); {started}")
        open_page(page, url)
        until(page, f"({kept}) !== null", WAIT)
        assert page.evaluate(kept) == chosen and page.evaluate("started") == [1, 2]
        page.click("#start")
        results(page, 3, WAIT)
        page.reload()
        page.wait_for_selector("#connection[data-state=ready]", timeout=1000 * WAIT)
        page.click("#start")
        results(page, 3, WAIT)
        assert page.evaluate("started") == [chosen]


def test_no_memory_for_the_model(chrome: Any, host: str) -> None:
    """Too little for the runtime, and enough for that but not for the graphs: neither is said to be broken."""
    for pages in (100, 400):
        flag = f"--js-flags=--wasm-max-mem-pages={pages}"
        with another(chrome, flag) as small, browser.opened(small) as page:
            page.goto(host)
            page.wait_for_selector("#connection[data-state=refused]", timeout=1000 * WAIT)
            assert "not enough memory for the model" in message(page)


def test_no_memory_amid_a_stream(chrome: Any, copied: Path) -> None:
    """The model is started again, which a stream survives; for good it is not."""
    worker = copied / "worker.js"
    # what the runtime throws where nothing more can be had
    spoiled = (
        "let spoiled = false; new BroadcastChannel('fail').onmessage = () => (spoiled = true);"
        "const told = postMessage; self.postMessage = (data, ...more) => { if (spoiled && data.type === 'result')"
        " { spoiled = false; throw new RangeError('Array buffer allocation failed'); }"
        " told.call(self, data, ...more); };"
    )
    worker.write_text(spoiled + worker.read_text())
    with beside.hosted(copied, isolated=True) as url, browser.opened(chrome) as page:
        start(page, url)
        for _ in range(2):
            page.evaluate("new BroadcastChannel('fail').postMessage(0)")
            until(page, "document.getElementById('message').innerText.includes('started again')", WAIT)
            page.wait_for_selector("#connection[data-state=ready]", timeout=1000 * WAIT)
            results(page, 3, WAIT)
        page.evaluate("new BroadcastChannel('fail').postMessage(0)")
        page.wait_for_selector("#connection[data-state=refused]", timeout=1000 * WAIT)
        assert "not enough memory for the model" in message(page)
        page.click("#again")
        page.wait_for_selector("#connection[data-state=ready]", timeout=1000 * WAIT)


def test_sound_that_the_system_takes_away_comes_back(chrome: Any, host: str) -> None:
    with browser.opened(chrome) as page:
        page.add_init_script(
            "window.contexts = []; window.AudioContext = class extends AudioContext {"
            " constructor(...options) { super(...options); contexts.push(this); } };"
        )
        start(page, host)
        page.evaluate("contexts.at(-1).suspend()")
        until(page, "contexts.at(-1).state === 'running'", WAIT)
        # and what is heard is heard again
        page.evaluate("results.length = 0")
        until(page, "results.length > 5", WAIT)


def test_a_device_that_slept(chrome: Any, host: str) -> None:
    """All of the browser stands still for three seconds: results are new ones again, and the counts are right."""
    with browser.opened(chrome) as page:
        start(page, host)
        stopped = of_browser()
        assert len(stopped) > 2
        for process in stopped:
            os.kill(process, signal.SIGSTOP)
        try:
            time.sleep(3)
        finally:
            for process in stopped:
                os.kill(process, signal.SIGCONT)
        page.evaluate("results.length = 0")
        until(page, "results.length > 10", WAIT)
        # those of the pictures that waited are soon over
        until(page, "results.slice(-5).every((one) => one.latency === null || one.latency < 2)", WAIT)
        found = results(page, 10, WAIT)
        times = [one["time"] for one in found]
        assert times == sorted(times)


def test_results_that_are_old_are_taken_back(chrome: Any, host: str) -> None:
    with browser.opened(chrome) as page:
        start(page, host)
        page.evaluate("HTMLVideoElement.prototype.requestVideoFrameCallback = () => {}")
        until(page, "document.getElementById('on-screen').children.length === 0", WAIT)
        until(page, "document.getElementById('fps').textContent === '0'", WAIT)


def test_two_tabs_and_a_new_version(chrome: Any, copied: Path) -> None:
    with beside.hosted(copied, isolated=False) as url, browser.opened(chrome) as one:
        start(one, url)
        said: list[str] = []
        other = browser.watched(one.context.new_page(), said)
        start(other, url)
        one.bring_to_front()
        results(one, 3, WAIT)
        # the host gets a new version while both are open
        html = copied / "index.html"
        html.write_text(html.read_text().replace("</body>", "<p id=newer></p></body>"))
        (copied / "sw.js").write_text(service_worker(copied))
        other.reload()
        other.wait_for_selector("#connection[data-state=ready]", timeout=1000 * WAIT)
        assert other.query_selector("#newer") is None
        until(other, "navigator.serviceWorker.getRegistration().then((known) => known.waiting !== null)", WAIT)
        results(one, 3, WAIT)
        # it is taken when all tabs of the old one are closed
        one.goto("about:blank")
        deadline = time.monotonic() + WAIT
        while other.query_selector("#newer") is None:
            assert time.monotonic() < deadline
            other.goto("about:blank")
            # the browser lets go of a tab in its own time
            other.wait_for_timeout(200)
            other.goto(url)
            other.wait_for_selector("#connection[data-state=ready]", timeout=1000 * WAIT)
        assert not said


def test_a_version_that_does_not_run_makes_way_for_the_next(chrome: Any, copied: Path) -> None:
    broken = copied / "bundle" / "audio.onnx"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:-1])
    (copied / "sw.js").write_text(service_worker(copied))
    with beside.hosted(copied, isolated=False) as url, browser.opened(chrome) as page:
        page.goto(url)
        page.wait_for_selector("#connection[data-state=refused]", timeout=1000 * WAIT)
        broken.write_bytes(whole)
        (copied / "sw.js").write_text(service_worker(copied))
        # nobody but a reload button: the tab is never closed
        deadline = time.monotonic() + WAIT
        while page.get_attribute("#connection", "data-state") != "ready":
            assert time.monotonic() < deadline
            page.click("#again")
            until(page, "['ready', 'refused'].includes(document.getElementById('connection').dataset.state)", WAIT)


@pytest.mark.parametrize("trouble", ["full", "denied"])
def test_a_disk_that_is_full_or_not_given(trouble: str, chrome: Any, copied: Path) -> None:
    """The page works, only not without its host."""
    if trouble == "denied":
        worker = copied / "sw.js"
        worker.write_text("caches.open = () => Promise.reject(new Error('denied'));" + worker.read_text())
    with beside.hosted(copied, isolated=True) as url, browser.opened(chrome) as page:
        if trouble == "full":
            quota = {"origin": url.rstrip("/"), "quotaSize": 1000}
            page.context.new_cdp_session(page).send("Storage.overrideQuotaForOrigin", quota)
        start(page, url)
        page.reload()
        page.wait_for_selector("#connection[data-state=ready]", timeout=1000 * WAIT)
        assert "works with a connection only" in page.inner_text("footer")


def test_a_page_that_was_left_and_is_gone_back_to(chrome: Any, host: str, tmp_path: Path) -> None:
    video = write_video(tmp_path / "video.webm", *VIDEO, *SOUND, "-c:v", "libvpx")
    with browser.opened(chrome, ignored=["404"]) as page:
        page.add_init_script("addEventListener('pageshow', (event) => { window.kept = event.persisted; })")
        open_page(page, host)
        page.set_input_files("#file", str(video))
        results(page, 3, WAIT)
        page.goto(f"{host}icon.svg")
        page.go_back(wait_until="commit")
        until(page, "document.getElementById('connection')?.dataset.state === 'ready'", WAIT)
        print("kept:", page.evaluate("window.kept"))
        # the video plays on, or has ended, or the page is a new one
        if page.is_enabled("#stop"):
            results(page, 3, WAIT)
            page.click("#stop")
        page.click("#start")
        results(page, 3, WAIT)


def graph_of_hash(site: Path, content: bytes) -> None:
    """Put a file in place of a graph, and its hash into bundle.json."""
    (site / "bundle" / "image.onnx").write_bytes(content)
    file = site / "bundle" / "bundle.json"
    info = json.loads(file.read_text())
    info["variants"][0]["sha256"]["image"] = hashlib.sha256(content).hexdigest()
    file.write_text(json.dumps(info))


def other_classes(site: Path) -> None:
    file = site / "bundle" / "bundle.json"
    info = json.loads(file.read_text())
    info["classes"] = info["classes"][:-1]
    for half in ("audio", "visual"):
        info["thresholds"][half] = info["thresholds"][half][:-1]
    file.write_text(json.dumps(info))


def swapped(site: Path) -> None:
    graph_of_hash(site, (site / "bundle" / "audio.onnx").read_bytes())


UNFIT: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no ONNX": (lambda site: graph_of_hash(site, b"not a graph"), "Graph image.onnx can't be loaded"),
    "the other half": (swapped, "The image graph has no input image"),
    "of other classes": (other_classes, "values of audio_prob, bundle.json says"),
}


@pytest.mark.parametrize("case", UNFIT)
def test_graphs_that_do_not_fit_are_refused_at_once(case: str, chrome: Any, copied: Path) -> None:
    spoil, words = UNFIT[case]
    spoil(copied)
    assert file_sha256(copied / "bundle" / "image.onnx")
    with beside.hosted(copied, isolated=True) as url, browser.opened(chrome) as page:
        page.goto(url)
        page.wait_for_selector("#connection[data-state=refused]", timeout=1000 * WAIT)
        assert words in message(page)


class Strange(SimpleHTTPRequestHandler):
    """A host of its own kind: types of files, a page at an address without its last slash, answers that are cut off."""

    types: Mapping[str, str] = {}
    # how often a file fails before it comes, by its name: cut off in its middle, or with a status
    fails: dict[str, list[int]] = {}

    def guess_type(self, path: Any) -> str:
        return self.types.get(Path(path).suffix) or super().guess_type(path)

    def do_GET(self) -> None:
        if self.path == "/copied":
            # as if it were a file
            self.path = "/copied/index.html"
        file = Path(self.translate_path(self.path))
        left = self.fails.get(file.name)
        if not left:
            super().do_GET()
            return
        status = left.pop(0)
        if status != 200:
            self.send_error(status)
            return
        content = file.read_bytes()
        self.send_response(200)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2])

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@contextlib.contextmanager
def strange(folder: Path, **facts: Any) -> Iterator[str]:
    kind = type("Kind", (Strange,), facts)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(kind, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/"
        finally:
            server.shutdown()
            thread.join(10)


UNSTARTED = "document.getElementById('unstarted')"
SEEN = f"{UNSTARTED} !== null && getComputedStyle({UNSTARTED}).visibility === 'visible'"


def test_a_page_that_can_not_start_says_how_to_open_it(chrome: Any, copied: Path) -> None:
    """A file, an address without its slash, a host that calls scripts text: no script of the page runs."""
    with (
        strange(copied.parent, types={".js": "text/plain"}) as typed,
        strange(copied.parent) as plain,
        browser.opened(chrome, ignored=["Failed to load", "CORS", "MIME type", "ERR_", "file:"]) as page,
    ):
        for address in (f"{plain}copied", f"{typed}copied/", f"file://{copied}/index.html"):
            page.goto(address)
            # its time has come
            page.evaluate(f"{UNSTARTED}.getAnimations().forEach((one) => one.finish())")
            until(page, SEEN, WAIT)
            said = page.inner_text("#unstarted")
            assert all(words in said for words in ("from a web server", "einen Webserver", "text/javascript")), address
        page.goto(f"{plain}copied/")
        page.wait_for_selector("#connection[data-state=ready]", timeout=1000 * WAIT)
        assert page.query_selector("#unstarted") is None


def test_a_connection_that_breaks_while_the_model_is_loaded(chrome: Any, copied: Path) -> None:
    """Files are asked for again, from a host with types of its own."""
    fails = {"image.onnx": [200], "bundle.json": [429]}
    types = {".wasm": "text/html", ".onnx": "text/html", ".json": "text/html"}
    ignored = ["Failed to load", "MIME", "falling back to ArrayBuffer"]
    with strange(copied, fails=fails, types=types) as url, browser.opened(chrome, ignored=ignored) as page:
        open_page(page, url)
        assert not fails["image.onnx"] and not fails["bundle.json"]
        page.click("#start")
        results(page, 3, WAIT)


DROP = """
async ({ names, folder, video }) => {
  const data = new DataTransfer();
  const bytes = await (await fetch(video)).arrayBuffer();
  for (const name of names) {
    data.items.add(new File([bytes], name, { type: name.endsWith(".webm") ? "video/webm" : "text/plain" }));
  }
  const event = new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true });
  if (folder) DataTransferItem.prototype.webkitGetAsEntry = () => ({ isDirectory: true });
  document.getElementById("stage").dispatchEvent(event);
}
"""


def test_what_else_is_dropped(chrome: Any, copied: Path) -> None:
    """Ten files, a folder, and a video whose pictures are larger than any screen."""
    write_video(copied / "video.webm", *VIDEO, *SOUND, "-c:v", "libvpx", "-live", "1")
    wide = ["-f", "lavfi", "-i", "testsrc2=size=4096x16:rate=5:duration=30"]
    large = write_video(copied.parent / "large.webm", *wide, "-c:v", "libvpx", "-deadline", "realtime")
    with beside.hosted(copied, isolated=True) as url, browser.opened(chrome) as page:
        open_page(page, url)
        drop = {"names": ["notes.txt", *(f"{n}.webm" for n in range(9))], "video": "video.webm", "folder": False}
        page.evaluate(DROP, drop)
        until(page, f"{SAID} === 'One video plays at a time: this is 0.webm.'", WAIT)
        # the length of this one is unknown, and it ends
        page.wait_for_selector("#start", state="visible", timeout=1000 * WAIT)
        page.evaluate(DROP, {**drop, "names": ["clips"], "folder": True})
        until(page, f"{SAID} === 'clips is a folder: drop one of its videos.'", WAIT)
        assert page.is_visible("#start")
        page.set_input_files("#file", str(large))
        results(page, 3, WAIT)
        shown = page.evaluate("(({ width, height }) => [width, height])(document.getElementById('picture'))")
        assert shown == [1920, 8]
