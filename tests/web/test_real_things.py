"""The page with the model of real things: a photograph as the camera, its recording as the microphone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from avgn.runtime import Localizer
from tests.web import browser
from tests.web.dog import WINDOW, write_devices
from tests.web.test_page import results, until

pytestmark = pytest.mark.skipif(browser.missing() is not None, reason=str(browser.missing()))

# where pictures of the page are kept
SHOTS = os.environ.get("AVGN_SCREENSHOTS")
# twenty results, about five seconds each
TRIES = 5


def test_the_page_names_what_the_camera_and_the_microphone_hold(tmp_path: Path) -> None:
    camera, microphone, (x1, y1, x2, y2) = write_devices(tmp_path)
    with (
        browser.serving(Localizer.load(threads=1)) as url,
        browser.chromium(camera, microphone, viewport=WINDOW) as page,
    ):
        page.goto(url)
        page.click("#start:enabled")
        # the words that a person reads
        until(page, "document.getElementById('on-screen').innerText.includes('dog')")
        # a piece of sound that is lost on a busy machine clicks like a drum, for as long as a window
        for _ in range(TRIES):
            found = results(page, 20)
            named = [source for one in found for source in one["sources"] if source["label"] == "dog"]
            labels = {source["label"] for one in found for source in one["sources"]}
            if labels == {"dog"} and len(named) >= 0.9 * len(found):
                break
        page.screenshot(path=str((Path(SHOTS) if SHOTS else tmp_path) / "page-world.png"))
        assert labels == {"dog"} and len(named) >= 0.9 * len(found)
        places = [source["peak"] for source in named]
        assert all(x1 <= x <= x2 and y1 <= y <= y2 for x, y in places), places
