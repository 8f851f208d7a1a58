"""Each state of the page without a server, on a desk and on a phone: a picture of it, and what axe finds wrong."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.web import beside, browser
from tests.web.dog import write_devices
from tests.web.test_page import results, until
from tests.web.test_site import keep, violations
from tests.web.test_site_trouble import SOUND, VIDEO, write_video

pytestmark = pytest.mark.skipif(browser.missing() is not None, reason=str(browser.missing()))

DESK = {"width": 1280, "height": 800}
PHONE = {"width": 390, "height": 844}
WAIT = 90.0


@pytest.fixture(scope="module")
def chrome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A browser that asks for permission, with photographs as its camera."""
    camera, microphone, _ = write_devices(tmp_path_factory.mktemp("devices"))
    flags = ["--use-fake-device-for-media-stream", f"--use-file-for-fake-video-capture={camera}"]
    with browser.launched([*flags, f"--use-file-for-fake-audio-capture={microphone}"]) as launched:
        yield launched


def come(page: Any, state: str) -> None:
    page.wait_for_selector(f"#connection[data-state={state}]", timeout=1000 * WAIT)


def test_every_state(chrome: Any, tiny_site: Path, packages: Path, tmp_path: Path) -> None:
    video = write_video(tmp_path / "video.webm", *VIDEO, *SOUND, "-c:v", "libvpx")

    def seen(page: Any, name: str) -> None:
        page.set_viewport_size(PHONE)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), name
        keep(page, f"state-{name}-phone", tmp_path)
        page.set_viewport_size(DESK)
        keep(page, f"state-{name}-desk", tmp_path)
        assert violations(page) == [], name

    with beside.hosted(tiny_site, isolated=True) as url:
        # requests of the page itself can be held here
        with browser.opened(chrome, [], service_workers="block", viewport=DESK) as page:
            held: list[Callable[[], None]] = []
            page.route("**/image.onnx", lambda route: held.append(route.continue_))
            page.goto(url)
            until(page, "document.getElementById('connection').dataset.state === 'loading'", WAIT)
            page.wait_for_timeout(300)
            seen(page, "loading")
            for go in held:
                go()
            come(page, "ready")
            seen(page, "ready")
            page.click("#start")
            page.wait_for_selector("#message", state="visible", timeout=1000 * WAIT)
            seen(page, "no-permission")
            page.context.grant_permissions(["camera"])
            page.click("#start")
            until(page, "results.length > 3 && !document.getElementById('message').hidden", WAIT)
            seen(page, "no-microphone")
            page.click("#stop")
            page.context.grant_permissions(["camera", "microphone"])
            page.click("#start")
            until(page, "document.getElementById('message').hidden", WAIT)
            results(page, 10, WAIT)
            seen(page, "live")
            page.click("#freeze")
            seen(page, "frozen")
            page.click("#stop")
            page.set_input_files("#file", str(video))
            results(page, 10, WAIT)
            seen(page, "file")
        with browser.opened(chrome, service_workers="block", viewport=DESK) as page:
            answer = json.dumps({"format": "other"})
            page.route("**/bundle.json", lambda route: route.fulfill(body=answer, content_type="application/json"))
            page.goto(url)
            come(page, "refused")
            seen(page, "refused")
            # keys lead to the way out
            page.keyboard.press("Tab")
            assert page.evaluate("document.activeElement.id") == "again"
    with browser.opened(chrome, viewport=DESK) as page:
        with beside.hosted(tiny_site, isolated=True) as url:
            page.goto(url)
            come(page, "ready")
        page.reload()
        come(page, "ready")
        seen(page, "offline")
