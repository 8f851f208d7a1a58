"""Visitors who teach: in a real browser from nothing to named, and over sockets what else they may try."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from avgn.runtime import Localizer
from avgn.runtime.bundle import Bundle
from avgn.runtime.manifest import Box
from avgn.runtime.web import wire
from avgn.runtime.web.lessons import LessonError, Taught
from avgn.runtime.web.limits import Limits
from avgn.runtime.web.school import School
from avgn.runtime.web.shared import SharedEngine
from tests.commands import ENVIRONMENT
from tests.patience import bounded, tried_again
from tests.web import browser
from tests.web.dog import WINDOW, write_devices
from tests.web.lessons import PATIENCE, classroom, load, teaching, without_dog
from tests.web.test_page import keep, results, until
from tests.web.test_site import violations
from tests.web.visits import HELLO, closed, get, talk

needs_browser = pytest.mark.skipif(browser.missing() is not None, reason=str(browser.missing()))
TOKEN = "a-token-of-some-length"
MILLISECONDS = 1000 * PATIENCE


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return without_dog(tmp_path_factory.mktemp("teaching"))


@pytest.fixture(scope="module")
def devices(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Box]:
    return write_devices(tmp_path_factory.mktemp("devices"))


@pytest.fixture(scope="module")
def url(bundle: Bundle) -> Iterator[str]:
    """A server that may be taught, and asks for a token where an archive is fetched."""
    limits = Limits(lessons_per_second=20.0, lesson_burst=100.0)
    with (
        classroom(bundle) as (localizer, room),
        browser.serving(localizer, teacher=room, token=TOKEN, limits=limits) as address,
    ):
        yield address


def open_page(page: Any, url: str) -> None:
    page.goto(f"{url}#token={TOKEN}")
    page.wait_for_selector("#teach", timeout=MILLISECONDS)
    page.click("#start:enabled")
    results(page, 20, PATIENCE)


def hold(page: Any, seconds: float = 2.5) -> None:
    """Hold the button with the mouse, and let go."""
    page.locator("#teach-hold:enabled").scroll_into_view_if_needed()
    box = page.locator("#teach-hold").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.wait_for_selector("#teach[data-state=recording]")
    page.wait_for_timeout(1000 * seconds)


def drag(page: Any, box: Box) -> None:
    """Draw a box in the frozen picture, which fills its height."""
    frame = page.locator("#example").bounding_box()
    facts = page.evaluate("(({ width, height }) => [width, height])(document.getElementById('example'))")
    scale = min(frame["width"] / facts[0], frame["height"] / facts[1])
    left = frame["x"] + (frame["width"] - scale * facts[0]) / 2
    top = frame["y"] + (frame["height"] - scale * facts[1]) / 2
    places = [(left + x * scale * facts[0], top + y * scale * facts[1]) for x, y in (box[:2], box[2:])]
    page.mouse.move(*places[0])
    page.mouse.down()
    page.mouse.move(*places[1], steps=5)
    page.mouse.up()


def looked(page: Any) -> None:
    page.wait_for_selector("#teach[data-state=looked]", timeout=MILLISECONDS)


def test_without_the_option_nothing_of_it_is_there(tiny: Localizer) -> None:
    with browser.serving(tiny) as plain:
        for name in ("teach.js", "teach-box.js", "teach-words.js", "teach.css", "taught.zip"):
            assert get(f"{plain}{name}")[0] == 404, name
        assert b"each" not in get(plain)[1]
        with talk(plain) as socket:
            socket.send(HELLO)
            assert "teach" not in json.loads(socket.recv(timeout=PATIENCE))
            socket.send('{"type": "teach-begin"}')
            assert closed(socket, PATIENCE) == wire.UNSUPPORTED


@needs_browser
def test_from_nothing_to_named_to_forgotten(url: str, devices: tuple[Path, Path, Box], tmp_path: Path) -> None:
    camera, microphone, place = devices
    with browser.chromium(camera, microphone, viewport=WINDOW) as page:
        open_page(page, url)
        assert "dog" not in page.inner_text("#on-screen") and page.is_hidden("#teach-export")
        keep(page, "teach-idle", tmp_path)
        assert violations(page) == []
        hold(page)
        keep(page, "teach-recording", tmp_path)
        page.mouse.up()
        looked(page)
        drag(page, place)
        keep(page, "teach-where", tmp_path)
        assert violations(page) == []
        page.fill("#teach-name", "Rex")
        page.keyboard.press("Enter")
        begin = time.monotonic()
        until(page, "document.getElementById('on-screen').innerText.includes('Rex')", PATIENCE)
        print(f"named {time.monotonic() - begin:.1f} s after its name was given")
        page.wait_for_selector("#teach[data-state=idle]", timeout=MILLISECONDS)
        keep(page, "teach-named", tmp_path)
        # where the dog is
        found = [source for one in results(page, 10, PATIENCE) for source in one["sources"] if source["label"] == "Rex"]
        x, y = np.median([source["peak"] for source in found if source["on_screen"]], axis=0)
        assert place[0] <= x <= place[2] and place[1] <= y <= place[3]
        assert page.inner_text("#teach-list li").split("\n")[0] == "Rex"
        assert page.locator("#classes input[value=Rex]").is_checked()
        add_with_keys(page)
        fetch(page, tmp_path)
        page.click("#teach-list .forget")
        until(page, "!document.querySelector('#teach-list li')", PATIENCE)
        found = results(page, 10, PATIENCE)
        assert all(source["label"] != "Rex" for one in found for source in one["sources"])
        assert page.is_hidden("#teach-export") and page.locator("#classes input[value=Rex]").count() == 0


def add_with_keys(page: Any) -> None:
    """Another example, without a mouse: T is held, the offered region moved by a key, the name typed."""
    page.keyboard.down("t")
    page.wait_for_selector("#teach[data-state=recording]")
    page.wait_for_timeout(2500)
    page.keyboard.up("t")
    looked(page)
    page.focus("#example")
    page.keyboard.press("ArrowDown")
    # a class that is there is replaced only when that is said once more
    page.fill("#teach-name", "cat")
    page.keyboard.press("Enter")
    until(page, "document.getElementById('teach-give').textContent === 'Replace cat'", PATIENCE)
    page.fill("#teach-name", "rex")
    assert page.inner_text("#teach-give") == "Add example"
    page.keyboard.press("Enter")
    until(page, "document.querySelector('#teach-list li').innerText.includes('2 examples')", PATIENCE)


def fetch(page: Any, folder: Path) -> None:
    """The bundle is downloaded, and knows after unpacking what was taught."""
    page.wait_for_selector("#teach[data-state=idle]", timeout=MILLISECONDS)
    with page.expect_download(timeout=MILLISECONDS) as waiting:
        page.click("#teach-export")
    archive = folder / waiting.value.suggested_filename
    waiting.value.save_as(archive)
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(folder)
    assert "Rex" in load(Bundle.load(folder / "avgn-taught")).bundle.classes


@needs_browser
def test_a_phone(url: str, devices: tuple[Path, Path, Box], tmp_path: Path) -> None:
    """Held by a finger; given up, and too short a touch is said to be one."""
    phone: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
    with browser.chromium(*devices[:2], **phone) as page:
        open_page(page, url)
        page.tap("#teach-hold:enabled")
        until(page, "document.getElementById('teach-status').textContent.includes('too short')", PATIENCE)
        box = page.locator("#teach-hold").bounding_box()
        touch = [{"x": box["x"] + 20, "y": box["y"] + 20}]
        fingers = page.context.new_cdp_session(page)
        fingers.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": touch})
        page.wait_for_selector("#teach[data-state=recording]")
        page.wait_for_timeout(2500)
        fingers.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        looked(page)
        keep(page, "teach-phone", tmp_path)
        # the picture and the form are in view together, and no keyboard is over them
        assert page.locator("#example").bounding_box()["y"] >= 0
        form = page.locator("#teach-form").bounding_box()
        assert form["y"] + form["height"] <= 845 and page.evaluate("document.activeElement.id") != "teach-name"
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert all(
            one["height"] >= 43
            for one in page.evaluate(
                "[...document.querySelectorAll('#teach button:enabled')].map((one) => one.getBoundingClientRect())"
            )
            if one["height"]
        )
        page.tap("#teach-drop")
        page.wait_for_selector("#teach[data-state=idle]", timeout=MILLISECONDS)
        assert page.is_hidden("#example")


def test_everybody_has_what_one_visitor_teaches(url: str) -> None:
    with teaching(url, TOKEN) as teacher, teaching(url, TOKEN) as other:
        teacher.record()
        # others wait for their turn
        other.say("teach-begin")
        assert other.until("lesson")["code"] == "busy"
        other.show(0.5)
        teacher.say("teach", name="  Rex\u0301 ", box=[0.6, 0.0, 1.0, 0.6])
        learnt = teacher.until("lesson", state="learnt")
        assert learnt["name"] == "Re\u1e8b\u0301" or learnt["name"] == "Rex\u0301"
        name = learnt["name"]
        told = other.until("classes")
        assert told["classes"][-1]["label"] == name and told["teach"]["taught"] == [{"label": name, "examples": 1}]
        before = len(other.said)
        other.show(3.0)
        # nobody is sent off, and indices are those of the table that came before
        found = other.until("result")
        while not found["sources"]:
            found = other.until("result")
        assert found["sources"][0]["label"] == name and found["sources"][0]["index"] == len(told["classes"]) - 1
        assert all(one["type"] == "result" for one in other.said[before:])
        other.say("teach-forget", name=name)
        other.until("lesson", state="forgotten")
        assert teacher.until("classes")["teach"]["taught"] == []


def test_who_leaves_in_the_middle_keeps_nobody_waiting(url: str) -> None:
    with teaching(url, TOKEN) as leaving:
        leaving.say("teach-begin")
        leaving.until("lesson", state="recording")
    deadline = time.monotonic() + PATIENCE
    with teaching(url, TOKEN) as next_one:
        while True:
            next_one.say("teach-begin")
            if next_one.until("lesson")["state"] == "recording":
                break
            assert time.monotonic() < deadline
            time.sleep(0.2)
        # what was recorded is of this stream alone
        next_one.say("reset")
        next_one.say("teach-end")
        assert next_one.until("lesson")["code"] == "nothing"


@tried_again
def test_what_comes_to_nothing_is_said_and_may_be_tried_again(url: str) -> None:
    with teaching(url, TOKEN) as visitor:

        def refused(*messages: tuple[str, dict[str, Any]]) -> str:
            for kind, facts in messages:
                visitor.say(kind, **facts)
            return str(visitor.until("lesson", state="refused")["code"])

        end: tuple[str, dict[str, Any]] = ("teach-end", {})
        assert refused(end) == "nothing" and refused(("teach", {"name": "x"})) == "nothing"
        assert refused(("teach-forget", {"name": "nobody"})) == "unknown"
        assert refused(("teach-begin", {}), end) == "short"
        visitor.say("teach-begin")
        time.sleep(1.1)
        assert refused(end) == "no-sound"
        visitor.say("teach-begin")
        visitor.show(0.2)
        assert refused(end) == "short"
        visitor.say("teach-begin")
        visitor.show(1.0, sound=None)
        assert refused(end) == "silent"
        visitor.say("teach-begin")
        visitor.show(1.0, rgb=np.full((240, 320, 3), 20, np.uint8))
        assert refused(end) == "dark"
        visitor.record(1.0)
        for name in ("", "   ", "a" * 65, "a\u202eb", "a\u0007b", "\ud800"):
            assert refused(("teach", {"name": name})) == "name", repr(name)
        assert refused(("teach", {"name": "DRUM"})) == "exists"
        assert refused(("teach", {"name": "x", "box": [0.5, 0.5, 0.5, 0.9]})) == "box"
        # the example is still there
        visitor.say("teach-drop")
        visitor.until("lesson", state="dropped")


@pytest.mark.parametrize(
    "text",
    [
        '{"type": "teach", "name": 7}',
        '{"type": "teach", "name": "x", "box": "all"}',
        '{"type": "teach", "name": "x", "box": [0, 0, 1]}',
        '{"type": "teach", "name": "x", "box": [0, 0, 1, NaN]}',
        '{"type": "teach", "name": "x", "box": [0, 0, 1, 1e999]}',
        '{"type": "teach", "name": "x", "box": [0, 0, true, 1]}',
        '{"type": "teach", "name": "x", "box": [0, 0, 1, 123456789012345678901234567890]}',
        '{"type": "teach-forget"}',
    ],
)
def test_what_no_page_sends_ends_the_session(url: str, text: str) -> None:
    with teaching(url, TOKEN) as visitor:
        visitor.socket.send(text)
        assert closed(visitor.socket, PATIENCE) == wire.INVALID


def test_lessons_are_as_rare_as_the_limits_say_and_the_archive_needs_the_token(bundle: Bundle, url: str) -> None:
    assert get(f"{url}taught.zip")[0] == 401
    status, content, headers = get(f"{url}taught.zip", Authorization=f"Bearer {TOKEN}")
    assert status == 200 and content.startswith(b"PK") and int(headers["content-length"]) == len(content)
    assert get(f"{url}taught.zip", Authorization=f"Bearer {TOKEN}", Origin="http://elsewhere")[0] == 403
    with (
        classroom(bundle) as (localizer, room),
        browser.serving(localizer, teacher=room, limits=Limits()) as strict,
        talk(strict) as socket,
    ):
        socket.send(HELLO)
        # time in which the server stood still is made good
        for _ in range(300):
            socket.send('{"type": "teach-drop"}')
        assert closed(socket, PATIENCE) == wire.TOO_FAST


def test_an_engine_that_does_not_start_leaves_everything_as_it_was(tiny: Localizer) -> None:
    kept: list[object] = []
    # it is asked for nothing else
    teacher: Any = SimpleNamespace(keep=kept.append)
    nothing: Any = SimpleNamespace(engine=object())

    async def learn(shared: SharedEngine) -> None:
        school = School(teacher, shared)
        with pytest.raises(LessonError, match="failed"):
            await school.change(lambda: Taught(localizer=nothing))
        # and the next lesson is not kept waiting
        with pytest.raises(LessonError, match="failed"):
            await school.change(lambda: Taught(localizer=nothing))
        school.close()

    with SharedEngine(tiny.engine) as shared:
        before = shared.multi
        asyncio.run(learn(shared))
        assert shared.multi is before and not kept


def test_much_that_is_recorded_takes_little_memory() -> None:
    """The largest messages for as long as can be: what is kept is bounded."""
    from avgn.runtime.web.recorder import KEPT, LONGEST, PICTURES, Recorder

    recorder = Recorder()
    for at in range(2000):
        recorder.see(wire.Frame(time=at / 60, jpeg=bytes([at % 256]) * 1000))
        recorder.hear(wire.Samples(time=at / 60, rate=8000, samples=np.full(133, at % 100, np.int16)))
    assert len(recorder._kept) <= KEPT + 1 and sum(map(len, recorder._pieces)) <= (LONGEST + 1) * 8000
    samples, rate, pictures = recorder.finish()
    assert len(pictures) == PICTURES and pictures[-1][0] == 1999 % 256 and len(samples) == LONGEST * rate


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_server_that_ends_in_the_middle_of_a_lesson_says_so(
    bundle: Bundle, tmp_path: Path, number: signal.Signals, status: int
) -> None:
    options = ("--port", "0", "--threads", "1", "--backend", "onnxruntime")
    process = subprocess.Popen(
        [sys.executable, "-m", "avgn", "serve", str(bundle.path), "--teach", *options],
        env=ENVIRONMENT | {"TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        with bounded(process):
            address = process.stdout.readline().strip()
        with teaching(address) as visitor:
            visitor.record(1.5)
            visitor.say("teach", name="Rex")
            visitor.until("lesson", state="learning")
            # the teacher works on it, and its folder goes under its hands
            time.sleep(0.5)
            process.send_signal(number)
            _, said = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    assert process.returncode == status
    assert said.splitlines() == [
        "the server ended in the middle of a lesson: what was being taught is not kept",
        "avgn: interrupted",
    ]
    assert not list(tmp_path.glob("avgn-*"))
