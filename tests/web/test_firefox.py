"""The page without a server in Firefox: a fake camera, files, and all of it again without its host."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.web import beside, firefox
from tests.web.test_site_trouble import SOUND, VIDEO, write_video

pytestmark = pytest.mark.skipif(firefox.missing() is not None, reason=str(firefox.missing()))

READY = "document.getElementById('connection')?.dataset.state === 'ready'"


def test_firefox(tiny_site: Path, tmp_path: Path) -> None:
    video = write_video(tmp_path / "video.webm", *VIDEO, *SOUND, "-c:v", "libvpx")
    with firefox.firefox(tmp_path / "profile") as page:
        with beside.hosted(tiny_site, isolated=False) as url:
            page.goto(url)
            page.until(READY)
            assert page.evaluate("crossOriginIsolated && navigator.serviceWorker.controller !== null")
            page.click("#start")
            page.until("results.length > 10")
            page.click("#stop")
            # heard and seen: a whole file, until its end
            page.evaluate("results.length = 0")
            page.choose_file("#file", video)
            page.until("results.length > 10")
            page.until("document.getElementById('stop').disabled")
            page.choose_file("#file", write_video(tmp_path / "sound.mp3", *SOUND))
            page.until("document.getElementById('message').innerText.includes('sound.mp3 has no pictures')")
        # the host has gone
        page.goto(url)
        page.until(READY)
        assert page.evaluate("crossOriginIsolated")
        page.click("#start")
        page.until("results.length > 3")
        assert not page.errors and page.evaluate("refusedByPolicy") == []
        # what is the browser's own, as its new tab, asks nobody either
        hosts = {urlsplit(one).netloc for one in page.requests if one.startswith("http")}
        assert hosts == {urlsplit(url).netloc}


@pytest.mark.parametrize("kept", [pytest.param(True, marks=pytest.mark.soak), False], ids=["a new one", "an older one"])
def test_a_private_window(kept: bool, tiny_site: Path, tmp_path: Path) -> None:
    """The page works in one; where nothing can be kept with one thread, and it says that it needs a connection."""
    preferences = firefox.PRIVATE if kept else firefox.NOTHING_KEPT
    with (
        firefox.firefox(tmp_path / "profile", preferences) as page,
        beside.hosted(tiny_site, isolated=False) as url,
    ):
        page.goto(url)
        page.until(READY)
        # what this browser can do in private windows is its own matter
        able = page.evaluate("(navigator.serviceWorker?.controller ?? null) !== null && crossOriginIsolated")
        if not kept:
            assert not able and page.evaluate("typeof navigator.serviceWorker") == "undefined"
        said = page.evaluate("document.querySelector('footer').innerText")
        assert ("This browser keeps no copy of the page: it works with a connection only." in said) == (not able), said
        page.click("#start")
        page.until("results.length > 5")
        assert not page.errors
