"""A served page in the tests' own process, and Debian's chromium with files in place of camera and microphone."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import threading
import wave
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from avgn.runtime.audio import resample
from avgn.runtime.web.server import serve
from tests.patience import PATIENCE

RATE = 48_000
FPS = 30


def missing() -> str | None:
    """Why no browser can be used here, or None."""
    if importlib.util.find_spec("playwright") is None:
        return "playwright is not installed: pip install -e '.[dev]'"
    return None if executable() else "no chromium is installed (Debian: chromium)"


def executable() -> str | None:
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@contextlib.contextmanager
def serving(bundle: Any, **options: Any) -> Iterator[str]:
    """Serve in a thread; yields the page's address."""
    said: list[str] = []
    servers: list[Any] = []
    ready = threading.Event()

    def control(server: Any) -> None:
        servers.append(server)
        started = server.startup

        async def startup(*args: Any, **named: Any) -> None:
            await started(*args, **named)
            ready.set()

        server.startup = startup

    failures: list[BaseException] = []

    def work() -> None:
        try:
            serve(bundle, **{"port": 0, **options}, report=said.append, control=control)
        except BaseException as error:
            failures.append(error)
            ready.set()

    thread = threading.Thread(target=work, name="served")
    thread.start()
    try:
        assert ready.wait(PATIENCE) and not failures, failures
        yield said[0]
    finally:
        for server in servers:
            server.should_exit = True
        thread.join(PATIENCE)
        assert not thread.is_alive()
        if failures:
            raise failures[0]


@contextlib.contextmanager
def chromium(
    camera: Path | None = None,
    microphone: Path | None = None,
    *,
    devices: bool = True,
    flags: Sequence[str] = (),
    ignored: Sequence[str] = (),
    **context: Any,
) -> Iterator[Any]:
    """A page of a new browser whose camera and microphone are files, or that has none without `devices`; `flags` are
    more of its options. Anything on its console is an error, but for texts with words of `ignored`.
    """
    flags = ["--use-fake-ui-for-media-stream", *flags, *(["--use-fake-device-for-media-stream"] if devices else [])]
    flags += [f"--use-file-for-fake-video-capture={camera}"] if camera else []
    flags += [f"--use-file-for-fake-audio-capture={microphone}"] if microphone else []
    with launched(flags) as browser, opened(browser, ignored=ignored, **context) as page:
        yield page


# what starts browsers, where a file of tests has one for all of its own
_drivers: list[Any] = []


@contextlib.contextmanager
def driving() -> Iterator[None]:
    """Let all browsers that are started meanwhile have one driver, whose start takes as long as a browser's.

    A driver's loop runs in this thread from its start to its end: nothing else may call asyncio.run there.
    """
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        _drivers.append(play)
        try:
            yield
        finally:
            _drivers.pop()


@contextlib.contextmanager
def launched(flags: Sequence[str] = (), without: Sequence[str] = ()) -> Iterator[Any]:
    """A new browser with these of its options, and without some that Playwright gives it."""
    arguments = ["--autoplay-policy=no-user-gesture-required", *flags]
    if os.geteuid() == 0:
        arguments.append("--no-sandbox")
    with contextlib.ExitStack() as stack:
        if not _drivers:
            stack.enter_context(driving())
        browser = _drivers[-1].chromium.launch(
            executable_path=executable(), args=arguments, ignore_default_args=list(without) or None
        )
        try:
            yield browser
        finally:
            browser.close()


@contextlib.contextmanager
def opened(
    browser: Any,
    permissions: Sequence[str] = ("camera", "microphone"),
    ignored: Sequence[str] = (),
    **context: Any,
) -> Iterator[Any]:
    """A page of a new visitor, who has given these permissions. Anything on its console is an error, except what the
    browser itself says with `ignored` words."""
    visitor = browser.new_context(**context)
    visitor.grant_permissions(list(permissions))
    said: list[str] = []
    try:
        yield watched(visitor.new_page(), said)
    finally:
        visitor.close()
    assert not [text for text in said if not any(words in text for words in ignored)], said


def watched(page: Any, said: list[str]) -> Any:
    """Keep a page's results for the tests to look at, as they come, and what its console says of errors in `said`."""
    page.set_default_timeout(1000 * PATIENCE)
    page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.add_init_script(
        "window.results = []; addEventListener('avgn-result', (event) => {"
        " results.push(event.detail); if (results.length > 3000) results.shift(); })"
    )
    return page


def write_camera(path: Path, rgb: npt.NDArray[np.uint8], frames: int = FPS) -> Path:
    """A y4m of one still picture with even sides."""
    height, width = rgb.shape[:2]
    planes = cv2.cvtColor(rgb, cv2.COLOR_RGB2YUV_I420).tobytes()
    with path.open("wb") as file:
        file.write(b"YUV4MPEG2 W%d H%d F%d:1 Ip A1:1 C420\n" % (width, height, FPS))
        for _ in range(frames):
            file.write(b"FRAME\n" + planes)
    return path


def write_microphone(path: Path, samples: npt.NDArray[np.float32], rate: int) -> Path:
    """16-bit mono at 48 kHz, which the fake microphone plays over and over."""
    sound = resample(samples, rate, RATE)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(np.clip(np.round(32767 * sound), -32768, 32767).astype("<i2").tobytes())
    return path
