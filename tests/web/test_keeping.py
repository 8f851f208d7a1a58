"""What a visitor takes along: a recorded clip, a picture to share or to copy; of both pages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt
import pytest

from avgn.scenes.scene import Scene, render_scene
from avgn.scenes.synth import RATE
from tests.patience import best_of
from tests.runtime.pairing import write_flash_and_beep
from tests.web import beside, browser
from tests.web.test_page import CONFIG, SEED, keep, results, until

pytestmark = pytest.mark.skipif(browser.missing() is not None, reason=str(browser.missing()))
SECONDS = 3
RECORDED = "document.getElementById('recorded').textContent"
# a browser that shares, as phones do: what it was given
SHARES = """
  window.shared = [];
  navigator.canShare = ({ files }) => files?.length > 0;
  navigator.share = async ({ files }) => {
    if (window.unwilling) throw new DOMException('', window.unwilling);
    shared.push([files[0].name, files[0].type, files[0].size]);
  };
"""


@pytest.fixture(scope="module", autouse=True)
def driver() -> Iterator[None]:
    """One driver for all browsers of this file."""
    with browser.driving():
        yield


@pytest.fixture(scope="module")
def scene() -> Scene:
    return render_scene(CONFIG, SEED, 0)


@pytest.fixture(params=["served", "site"])
def page(request: pytest.FixtureRequest, scene: Scene, tmp_path: Path) -> Iterator[Any]:
    """A page that localizes the scene, on which something was found."""
    camera = browser.write_camera(tmp_path / "scene.y4m", scene.frame)
    microphone = browser.write_microphone(tmp_path / "scene.wav", scene.audio, RATE)
    with browser.chromium(camera, microphone, viewport={"width": 1280, "height": 800}) as shown:
        shown.add_init_script(SHARES)
        if request.param == "served":
            yield start(shown, request.getfixturevalue("url"))
        else:
            with beside.hosted(request.getfixturevalue("tiny_site"), isolated=True) as url:
                yield start(shown, url)


def start(page: Any, url: str) -> Any:
    page.goto(url)
    page.click("#start:enabled", timeout=90_000)
    until(page, "document.getElementById('on-screen').children.length > 0", 90.0)
    return page


def decode(clip: Path) -> tuple[list[npt.NDArray[np.uint8]], list[float], npt.NDArray[np.float32], float]:
    """Return a clip's pictures, their times in seconds, its sound [T] and how long that is."""
    with av.open(str(clip)) as container:
        assert [stream.type for stream in container.streams].count("video") == 1
        assert [stream.type for stream in container.streams].count("audio") == 1
        pictures, times = [], []
        for frame in container.decode(video=0):
            pictures.append(frame.to_ndarray(format="rgb24"))
            times.append(float(frame.time))
    with av.open(str(clip)) as container:
        blocks = [frame for frame in container.decode(audio=0)]
    sound = np.concatenate([np.asarray(block.to_ndarray(), np.float32).mean(axis=0) for block in blocks])
    return pictures, times, sound, len(sound) / blocks[0].sample_rate


def record(page: Any, seconds: int, folder: Path, end: Callable[[], None]) -> Path:
    """Record so long, until `end` is called; returns the clip."""
    page.click("#record:enabled")
    assert page.get_attribute("#record", "aria-pressed") == "true"
    until(page, f"Number({RECORDED}.split(':')[1]) >= {seconds}", 60.0)
    keep(page, "recording", folder)
    with page.expect_download(timeout=60_000) as waiting:
        end()
    assert page.is_hidden("#recorded") and page.get_attribute("#record", "aria-pressed") == "false"
    clip = folder / waiting.value.suggested_filename
    assert clip.name.startswith("avgn-") and clip.suffix in (".webm", ".mp4")
    waiting.value.save_as(clip)
    return clip


def test_clips_and_pictures(page: Any, scene: Scene, tmp_path: Path) -> None:
    # sound and pictures of a machine that stood still are apart
    best_of(lambda: check_clip(record(page, SECONDS, tmp_path, lambda: page.click("#record")), scene))
    check_sharing(page, tmp_path)
    # the end of the camera is the clip's, too
    clip = record(page, 1, tmp_path, lambda: page.keyboard.press("Escape"))
    assert len(decode(clip)[0]) > 3
    assert page.is_disabled("#record") and page.is_visible("#start")


def check_clip(clip: Path, scene: Scene) -> None:
    """The picture as it is drawn, its sound, and a length that players are told."""
    pictures, times, sound, heard = decode(clip)
    assert pictures[0].shape == (480, 640, 3)
    # a busy machine leaves pictures out, and takes longer to press the button
    assert SECONDS - 0.5 <= times[-1] <= SECONDS + 15 and len(pictures) > 2 * SECONDS
    assert abs(heard - times[-1]) < 1.5 and np.sqrt(np.mean(sound**2)) > 0.003
    with av.open(str(clip)) as container:
        assert container.duration is not None and abs(container.duration / av.time_base - heard) < 1.5
    # the heat lies on what sounds
    sounding = next(thing for thing in scene.objects if thing.sounding)
    assert sounding.mask is not None
    # a busy machine has moments without a result, and pictures without heat
    changes = [np.abs(each.astype(np.int16) - scene.frame.astype(np.int16)).sum(axis=2) for each in pictures]
    heats = [(change[sounding.mask].mean(), np.median(change[~sounding.mask])) for change in changes]
    assert any(inside > max(40, 3 * outside) for inside, outside in heats), heats


def check_sharing(page: Any, folder: Path) -> None:
    assert page.inner_text("#share") == "Share picture"
    page.click("#share")
    until(page, "shared.length === 1", 60.0)
    name, kind, size = page.evaluate("shared[0]")
    assert name.startswith("avgn-") and name.endswith(".png") and kind == "image/png" and size > 10_000
    # a visitor who thinks better of it
    page.evaluate("window.unwilling = 'AbortError'")
    page.click("#share")
    results(page, 3, 60.0)
    assert page.is_hidden("#message")
    # the picture is saved where sharing fails
    page.evaluate("window.unwilling = 'NotAllowedError'")
    with page.expect_download(timeout=60_000) as waiting:
        page.click("#share")
    waiting.value.save_as(folder / "picture.png")
    picture = cv2.imread(str(folder / "picture.png"))
    assert picture is not None and picture.shape == (480, 640, 3)


def test_a_clip_of_a_video_ends_with_it(url: str, tmp_path: Path) -> None:
    video = write_flash_and_beep(tmp_path / "flash.mp4")
    with browser.chromium() as page:
        page.goto(url)
        page.wait_for_selector("#start:enabled", timeout=90_000)
        page.set_input_files("#file", str(video))
        clip = record(page, 1, tmp_path, lambda: page.wait_for_selector("#start", state="visible", timeout=60_000))
    pictures, _, sound, _ = decode(clip)
    assert len(pictures) > 3 and np.sqrt(np.mean(sound**2)) > 0.003


def test_a_picture_is_copied_where_nothing_can_be_shared(url: str, tmp_path: Path) -> None:
    with browser.chromium() as page:
        page.context.grant_permissions(["camera", "microphone", "clipboard-read", "clipboard-write"])
        page.add_init_script("navigator.canShare = undefined")
        page.goto(url)
        page.click("#start:enabled", timeout=90_000)
        results(page, 3, 90.0)
        assert page.inner_text("#share") == "Copy picture"
        page.click("#share")
        until(page, "document.getElementById('message').dataset.kind === 'notice'", 60.0)
        keep(page, "copied", tmp_path)
        assert "copied" in page.inner_text("#message")
        kinds = page.evaluate("navigator.clipboard.read().then((items) => items.flatMap((item) => item.types))")
        assert kinds == ["image/png"]


def test_a_browser_that_can_not_record_shows_no_button(url: str) -> None:
    with browser.chromium() as page:
        page.add_init_script("delete window.MediaRecorder")
        page.goto(url)
        page.wait_for_selector("#start:enabled", timeout=90_000)
        assert page.is_hidden("#record") and page.is_visible("#save")
