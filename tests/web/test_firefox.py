"""The page without a server in Firefox: a fake camera, files, and all of it again without its host."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.web import beside, firefox
from tests.web.test_site_trouble import SOUND, VIDEO, write_video

pytestmark = pytest.mark.skipif(firefox.missing() is not None, reason=str(firefox.missing()))


def test_firefox(tiny_site: Path, tmp_path: Path) -> None:
    ready = "document.getElementById('connection')?.dataset.state === 'ready'"
    video = write_video(tmp_path / "video.webm", *VIDEO, *SOUND, "-c:v", "libvpx")
    with firefox.firefox(tmp_path / "profile") as page:
        with beside.hosted(tiny_site, isolated=False) as url:
            page.goto(url)
            page.until(ready)
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
        page.until(ready)
        assert page.evaluate("crossOriginIsolated")
        page.click("#start")
        page.until("results.length > 3")
        assert not page.errors and page.evaluate("refusedByPolicy") == []
        # what is the browser's own, as its new tab, asks nobody either
        hosts = {urlsplit(one).netloc for one in page.requests if one.startswith("http")}
        assert hosts == {urlsplit(url).netloc}
