"""The page in a real browser: a fake camera and microphone, dropped files, keys, a phone."""

from __future__ import annotations

import os
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from avgn.runtime import Localizer
from avgn.scenes import SceneConfig
from avgn.scenes.scene import Scene, render_scene
from avgn.scenes.synth import RATE
from tests.patience import PATIENCE, tried_again
from tests.runtime.pairing import FPS, RecordingEngine, write_flash_and_beep
from tests.web import browser

pytestmark = pytest.mark.skipif(browser.missing() is not None, reason=str(browser.missing()))

CONFIG = SceneConfig(split="test", sources=(1, 1), silent=(1, 1), off_screen=0.0, size=(640, 480))
SEED = 4
TRIES = 5
# where pictures of the page are kept
SHOTS = os.environ.get("AVGN_SCREENSHOTS")


@pytest.fixture(scope="module", autouse=True)
def driver() -> Iterator[None]:
    """One driver for all browsers of this file."""
    with browser.driving():
        yield


@pytest.fixture(scope="module")
def scene() -> Scene:
    return render_scene(CONFIG, SEED, 0)


@pytest.fixture(scope="module")
def devices(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("devices")
    camera = browser.write_camera(folder / "scene.y4m", scene.frame)
    return camera, browser.write_microphone(folder / "scene.wav", scene.audio, RATE)


def keep(page: Any, name: str, folder: Path) -> None:
    page.screenshot(path=str((Path(SHOTS) if SHOTS else folder) / f"{name}.png"))


def until(page: Any, condition: str, seconds: float = PATIENCE) -> None:
    """Wait for a condition in the page, which lets nobody compile strings: it is asked again and again."""
    deadline = time.monotonic() + seconds
    while not page.evaluate(condition):
        assert time.monotonic() < deadline, f"{condition} did not come about in {seconds} s"
        page.wait_for_timeout(50)


def results(page: Any, count: int, seconds: float = PATIENCE) -> list[dict[str, Any]]:
    """The next `count` results of the page."""
    page.evaluate("results.length = 0")
    until(page, f"results.length >= {count}", seconds)
    found: list[dict[str, Any]] = page.evaluate("results")
    return found


def pixels(page: Any) -> npt.NDArray[np.int16]:
    """What the page shows, [H, W, 3]."""
    data = page.evaluate(
        "() => new Promise((done) => document.getElementById('picture').toBlob(async (png) =>"
        " done([...new Uint8Array(await png.arrayBuffer())])))"
    )
    image = cv2.imdecode(np.array(data, np.uint8), cv2.IMREAD_COLOR)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB).astype(np.int16)


def test_camera_and_microphone(url: str, devices: tuple[Path, Path], scene: Scene, tmp_path: Path) -> None:
    sounding = next(thing for thing in scene.objects if thing.sounding)
    assert sounding.mask is not None
    with browser.chromium(*devices, viewport={"width": 1280, "height": 800}) as page:
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(url)
        page.click("#start:enabled")
        results(page, 45)
        # sound that is lost on a busy machine clicks, for as long as a window
        for _ in range(TRIES):
            found = results(page, 60)
            named = [one for one in found if sounding.label in {source["label"] for source in one["sources"]}]
            if len(named) >= 0.9 * len(found):
                break
        keep(page, "page", tmp_path)
        assert len(named) >= 0.9 * len(found), (len(named), sounding.label)
        # the heat's peak lies on the object that sounds
        height, width = sounding.mask.shape
        hits = []
        for one in named:
            source = next(source for source in one["sources"] if source["label"] == sounding.label)
            assert source["on_screen"] and max(source["map"]) == 255
            x, y = source["peak"]
            hits.append(sounding.mask[int(y * height), int(x * width)])
        assert np.mean(hits) >= 0.9
        assert page.inner_text("#on-screen").split("\n")[0].strip("● ").replace(" ", "_") == sounding.label
        # no line grows: what is answered is one of the newest pictures
        late = [one["latency"] for one in found if one["latency"] is not None]
        usual = np.median(np.diff([one["time"] for one in found]))
        # a very slow machine forgets when its pictures were taken
        assert np.median(late) < 0.25 + 4 * usual if late else usual > 1.0
        # the heat is drawn there, too: the object's pixels change when its class is not shown
        box = page.locator(f"#classes input[value={sounding.label}]")
        with_heat = pixels(page)
        box.uncheck()
        results(page, 3)
        change = np.abs(pixels(page) - with_heat).sum(axis=2)
        assert sounding.label not in page.inner_text("#on-screen")
        y, x = divmod(int(cv2.blur(change.astype(np.float32), (31, 31)).argmax()), change.shape[1])
        assert sounding.mask[min(y, height - 1), x] or change[sounding.mask].mean() > 3 * change[~sounding.mask].mean()
        page.click("#all")
        results(page, 3)
        assert sounding.label.replace("_", " ") in page.inner_text("#on-screen")
        # freeze keeps the picture and the list, while results go on
        page.click("#freeze")
        frozen = pixels(page)
        results(page, 10)
        assert np.array_equal(frozen, pixels(page)) and page.get_attribute("#freeze", "aria-pressed") == "true"
        with page.expect_download() as waiting:
            page.click("#save")
        saved = tmp_path / "saved.png"
        waiting.value.save_as(saved)
        assert waiting.value.suggested_filename.startswith("avgn-")
        image = cv2.cvtColor(cv2.imread(str(saved)), cv2.COLOR_BGR2RGB)
        assert image.shape == (480, 640, 3) and np.array_equal(image, frozen)
        page.click("#freeze")
        until(page, "parseInt(document.getElementById('fps').textContent) > 0")
        page.click("#stop")
        assert page.is_visible("#start") and page.is_disabled("#freeze")
        # the page needs this server and nothing else
        assert asked and {urlsplit(one).netloc for one in asked if not one.startswith("blob:")} == {
            urlsplit(url).netloc
        }


def test_keys_alone(url: str, devices: tuple[Path, Path]) -> None:
    with browser.chromium(*devices) as page:
        page.goto(url)
        page.wait_for_selector("#start:enabled")
        seen = []
        for _ in range(40):
            page.keyboard.press("Tab")
            seen.append(page.evaluate("document.activeElement.id || document.activeElement.value"))
            if seen[-1] == "start":
                break
        assert seen[-1] == "start"
        page.keyboard.press("Enter")
        results(page, 5)
        page.keyboard.press("f")
        assert page.get_attribute("#freeze", "aria-pressed") == "true"
        page.keyboard.press("f")
        assert page.get_attribute("#freeze", "aria-pressed") == "false"
        reached = set()
        for _ in range(40):
            page.keyboard.press("Tab")
            reached.add(page.evaluate("document.activeElement.id || document.activeElement.value"))
        assert {"stop", "freeze", "save", "file", "all", "none"} <= reached
        page.keyboard.press("Escape")
        page.wait_for_selector("#start", state="visible")


def test_what_is_pressed_is_seen_in_the_colors_of_a_visitor(url: str, devices: tuple[Path, Path]) -> None:
    """Systems with high contrast paint over a page's colors, all buttons alike; the color of a class stays its own."""
    ground = "getComputedStyle(document.getElementById('freeze')).backgroundColor"
    with browser.chromium(*devices, forced_colors="active") as page:
        page.goto(url)
        page.click("#start:enabled")
        painted = "getComputedStyle(document.querySelector('li .dot') ?? document.body).color"
        until(page, f"{painted} !== getComputedStyle(document.body).color")
        page.keyboard.press("f")
        until(page, "document.getElementById('freeze').ariaPressed === 'true'")
        pressed = page.evaluate(ground)
        page.keyboard.press("f")
        until(page, "document.getElementById('freeze').ariaPressed === 'false'")
        assert page.evaluate(ground) != pressed


def test_a_phone(url: str, devices: tuple[Path, Path], tmp_path: Path) -> None:
    phone: dict[str, Any] = {
        "viewport": {"width": 360, "height": 740},
        "device_scale_factor": 2,
        "is_mobile": True,
        "has_touch": True,
    }
    with browser.chromium(*devices, **phone) as page:
        page.goto(url)
        page.tap("#start:enabled")
        results(page, 30)
        keep(page, "phone", tmp_path)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        for name in ("stop", "freeze", "save"):
            box = page.locator(f"#{name}").bounding_box()
            assert box["height"] >= 44 and box["x"] >= 0 and box["x"] + box["width"] <= 360
        # picture and sources are there without scrolling
        assert page.locator("#on-screen").bounding_box()["y"] < 740


@tried_again
def test_the_sound_of_a_dropped_video(tiny: Localizer, tmp_path: Path) -> None:
    """A dropped video whose pictures and sound tell the time: each frame has the sound that belongs to it."""
    clip = write_flash_and_beep(tmp_path / "flash.mp4")
    engine = RecordingEngine(tiny.engine.info)
    with browser.serving(Localizer(engine)) as address, browser.chromium() as page:
        page.goto(address)
        page.wait_for_selector("#start:enabled")
        # dropped with the mouse
        page.evaluate(
            """async (bytes) => {
                const file = new File([new Uint8Array(bytes)], 'flash.mp4', {type: 'video/mp4'});
                const data = new DataTransfer();
                data.items.add(file);
                document.getElementById('stage').dispatchEvent(
                    new DragEvent('drop', {dataTransfer: data, bubbles: true, cancelable: true}));
            }""",
            list(clip.read_bytes()),
        )
        until(page, "results.length > 20")
        page.wait_for_selector("#start", state="visible")
        assert page.is_disabled("#stop")
    # the first second: windows are still filling
    engine.pairs = engine.pairs[FPS:]
    lags, hop = engine.lags(), engine.info.hop_samples / engine.info.sample_rate
    assert len(lags) > 20
    # JPEG levels and the browser's own synchrony: within a frame and a hop of where live windows end; a busy machine's
    # browser shows pictures up to another frame late, and some later than that
    late = np.quantile(lags, (0.1, 0.5, 0.9))
    assert late[0] >= -1 / FPS - 0.02 and late[2] <= hop + 2 / FPS + 0.02, late
    assert abs(late[1] - hop / 2) <= hop / 2


def test_what_a_browser_can_not_play_is_said(url: str, tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(struct.pack(">I4s", 16, b"ftyp") + b"isom" * 50)
    with browser.chromium() as page:
        page.goto(url)
        page.wait_for_selector("#start:enabled")
        page.set_input_files("#file", str(broken))
        page.wait_for_selector("#message", state="visible")
        assert "can't play broken.mp4" in page.inner_text("#message")
        assert page.is_visible("#start")


def test_devices_and_files_that_fail_are_said_by_name(url: str, tmp_path: Path) -> None:
    """As by the page without a server (test_site_trouble.py), which shares this code."""
    clip = tmp_path / "silent.mp4"
    command = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "testsrc2=size=320x240:rate=25:duration=2"]
    subprocess.run([*command, "-pix_fmt", "yuv420p", str(clip)], check=True)
    said = "document.getElementById('message').innerText"
    with (
        browser.launched(["--use-fake-device-for-media-stream"]) as launched,
        browser.opened(launched, []) as page,
    ):
        page.goto(url)
        page.click("#start:enabled")
        until(page, f"{said}.includes('not allowed to use the camera')")
        page.context.grant_permissions(["camera"])
        page.click("#start")
        until(page, f"{said}.includes('not allowed to use the microphone')")
        results(page, 3)
        # as when it is unplugged
        page.context.clear_permissions()
        until(page, f"{said}.includes('camera was unplugged')")
        assert page.is_visible("#start") and page.is_disabled("#stop")
        page.set_input_files("#file", str(clip))
        until(page, f"{said}.includes('This video has no sound')")
        results(page, 3)
        page.wait_for_selector("#start", state="visible")


def test_the_token_and_a_server_that_comes_back(tiny: Localizer, devices: tuple[Path, Path]) -> None:
    token = "a-token-of-some-length"
    with browser.chromium(*devices) as page:
        with browser.serving(tiny, token=token) as address:
            page.goto(address)
            page.wait_for_selector("#entrance", state="visible")
            page.fill("#token", "wrong")
            page.keyboard.press("Enter")
            page.wait_for_selector("#message", state="visible")
            assert "not right" in page.inner_text("#message")
            page.fill("#token", token)
            page.keyboard.press("Enter")
            page.click("#start:enabled")
            results(page, 10)
            page.goto("about:blank")
            page.goto(f"{address}#token={token}")
            page.click("#start:enabled")
            results(page, 10)
            # the token is neither shown nor kept
            assert page.url == address and page.evaluate("localStorage.length + sessionStorage.length") == 0
        # the server has gone: the page says so and goes on when it is back
        page.wait_for_selector("#connection[data-state=lost]")
        port = int(address.rstrip("/").rsplit(":", 1)[1])
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                with browser.serving(tiny, token=token, port=port):
                    page.wait_for_selector("#connection[data-state=live]")
                    results(page, 10)
                break
            except AssertionError:
                # the port may still be taken
                assert time.monotonic() < deadline
                time.sleep(0.5)
