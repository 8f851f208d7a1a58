"""Lessons without a server: whose turn it is, what is kept of a recording, what the page is told, name by name."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from threading import get_ident
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from avgn.runtime.errors import InputError
from avgn.runtime.web import desk, recorder, school, wire
from avgn.runtime.web.archive import Archive
from avgn.runtime.web.desk import Desk, read_box, read_name
from avgn.runtime.web.lessons import LessonError, Looked, Recording, Taught
from avgn.runtime.web.recorder import KEPT, LONGEST, PICTURES, SHORTEST, Recorder
from avgn.runtime.web.school import School
from avgn.runtime.web.wire import WireError
from tests.hostile.web_attacks import jpeg
from tests.patience import Clock
from tests.web.visitors import awaited

PICTURE = jpeg(16, 16)


class Teacher:
    """A teacher who notes what is asked of it, and fails where it is told to."""

    def __init__(self, folder: Path | None = None) -> None:
        self.taught: dict[str, int] = {"owl": 1}
        self.known: tuple[str, ...] = ("dog", "Owl", "owl")
        self.said: list[Any] = []
        self.error: Exception | None = None
        self.folder = folder

    def _note(self, *facts: Any) -> None:
        self.said.append(facts)
        if self.error is not None:
            raise self.error

    def look(self, recording: Recording) -> Looked:
        self._note("look", len(recording.samples), recording.rate, len(recording.pictures))
        return Looked(example="e", box=(0.1, 0.2, 0.3, 0.4), facts={"heard": 1})

    def learn(self, name: str, looked: Looked, box: Any, *, replace: bool) -> Taught:
        self._note("learn", name, looked.example, box, replace)
        return Taught(localizer=SimpleNamespace(engine="new"), facts={"examples": 2})  # type: ignore[arg-type]

    def forget(self, name: str) -> Taught:
        self._note("forget", name)
        return Taught(localizer=SimpleNamespace(engine="old"))  # type: ignore[arg-type]

    def keep(self, taught: Taught) -> None:
        self._note("keep")

    def pack(self) -> Path:
        self._note("pack")
        assert self.folder is not None
        return self.folder / "taught.zip"


class Shared:
    """What the engine of all visitors is exchanged through."""

    def __init__(self) -> None:
        self.engines: list[Any] = []

    async def prepare(self, engine: Any) -> Any:
        return engine

    async def exchange(self, multi: Any) -> None:
        self.engines.append(multi)


class Room:
    """A school, its teacher, and desks whose visitors keep what they are told."""

    def __init__(self, folder: Path | None = None) -> None:
        self.teacher, self.shared = Teacher(folder), Shared()
        self.school = School(self.teacher, self.shared)  # type: ignore[arg-type]

    def desk(self) -> tuple[Desk, list[dict[str, Any]]]:
        told: list[dict[str, Any]] = []
        return Desk(self.school, told.append), told

    def looked_at(self) -> tuple[Desk, list[dict[str, Any]]]:
        found, told = self.desk()
        record(found)
        return found, told


def record(visitor: Desk, seconds: float = 1.0) -> None:
    visitor.take({"type": "teach-begin"})
    visitor.hear(sound(seconds))
    visitor.see(wire.Frame(time=0.0, jpeg=PICTURE))
    visitor.take({"type": "teach-end"})


def sound(seconds: float, rate: int = 8000) -> wire.Samples:
    return wire.Samples(time=0.0, rate=rate, samples=np.ones(round(seconds * rate), np.int16))


async def until(happened: Callable[[], bool]) -> None:
    limit = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < limit
        await asyncio.sleep(0.005)


def states(told: list[dict[str, Any]]) -> list[str]:
    return [message.get("code", message["state"]) for message in told]


@awaited
async def test_an_example_is_looked_at_and_named() -> None:
    room = Room()
    visitor, told = room.looked_at()
    await until(lambda: len(told) == 2)
    assert told[1] == {"type": "lesson", "state": "looked", "box": (0.1, 0.2, 0.3, 0.4), "heard": 1}
    visitor.take({"type": "teach", "name": " big   dog ", "box": [0, 0, 2, 0.5]})
    await until(lambda: len(told) == 4)
    assert told[3] == {"type": "lesson", "state": "learnt", "name": "big dog", "examples": 2}
    learnt = ("learn", "big dog", "e", (0.0, 0.0, 1.0, 0.5), False)
    assert room.teacher.said == [("look", 8000, 8000, 1), learnt, ("keep",)]
    assert room.shared.engines == ["new"] and room.school._turn is None
    # the example is gone with its lesson
    visitor.take({"type": "teach", "name": "other"})
    assert told[4] == {"type": "lesson", "state": "refused", "code": "nothing", "again": False}
    room.school.close()


@awaited
async def test_names_that_are_there() -> None:
    room = Room()
    visitor, told = room.looked_at()
    await until(lambda: len(told) == 2)
    visitor.take({"type": "teach", "name": "DOG"})
    assert told[2] == {"type": "lesson", "state": "refused", "code": "exists", "again": True, "name": "dog"}
    # only what is said in so many words replaces a class
    visitor.take({"type": "teach", "name": "dog", "replace": 1})
    assert states(told)[3] == "exists" and room.teacher.said[1:] == []
    visitor.take({"type": "teach", "name": "DOG", "replace": True})
    await until(lambda: states(told)[-1] == "learnt")
    assert room.teacher.said[1] == ("learn", "dog", "e", None, True)
    # what was taught here takes more examples, and is forgotten by its own name alone
    room.school._changes.take(-1, time.monotonic())
    record(visitor)
    await until(lambda: states(told)[-1] == "looked")
    visitor.take({"type": "teach", "name": "owl"})
    visitor.take({"type": "teach-forget", "name": "owl"})
    assert states(told)[-1] in ("busy", "learning")
    await until(lambda: "learnt" in states(told)[-2:])
    visitor.take({"type": "teach-forget", "name": "dog"})
    assert told[-1]["code"] == "unknown" and told[-1]["name"] == "dog"
    visitor.take({"type": "teach-forget", "name": "owl"})
    await until(lambda: states(told)[-1] == "forgotten")
    assert room.shared.engines[-1] == "old" and told[-1]["name"] == "owl"
    room.school.close()


@awaited
async def test_a_turn_is_one_visitors_until_he_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    room = Room()
    (first, heard), (second, told) = room.desk(), room.desk()
    first.take({"type": "teach-begin"})
    second.take({"type": "teach-begin"})
    assert states(heard) == ["recording"] and states(told) == ["busy"]
    # whose turn it is may begin again
    first.take({"type": "teach-begin"})
    assert states(heard) == ["recording"] * 2
    now = time.monotonic()
    monkeypatch.setattr(school, "clock", Clock(now + LONGEST + school.NAMING - 1))
    second.take({"type": "teach-begin"})
    assert states(told)[-1] == "busy"
    monkeypatch.setattr(school, "clock", Clock(now + LONGEST + school.NAMING + 1))
    second.take({"type": "teach-begin"})
    assert states(told)[-1] == "recording" and states(heard)[-1] == "late" and heard[-1]["again"] is False
    # who lost it has nothing left, and takes nothing from the next one
    first.take({"type": "teach-end"})
    assert states(heard)[-1] == "nothing"
    first.close()
    assert room.school._turn is second
    second.take({"type": "teach-drop"})
    assert states(told)[-1] == "dropped" and room.school._turn is None
    room.school.close()


@awaited
async def test_what_ends_an_example_gives_the_turn_back() -> None:
    room = Room()
    visitor, told = room.desk()
    record(visitor, SHORTEST / 2)
    assert told[-1] | {"again": 0} == {
        "type": "lesson",
        "state": "refused",
        "code": "short",
        "again": 0,
        "seconds": SHORTEST,
    }
    assert room.school._turn is None
    room.teacher.error = LessonError("silent")
    record(visitor)
    await until(lambda: states(told)[-1] == "silent")
    assert room.school._turn is None
    visitor.take({"type": "teach-begin"})
    visitor.reset()
    assert room.school._turn is None
    visitor.take({"type": "teach-end"})
    assert states(told)[-1] == "nothing"
    visitor.take({"type": "teach-begin"})
    visitor.close()
    assert room.school._turn is None
    room.school.close()


@awaited
async def test_a_reset_keeps_what_was_looked_at() -> None:
    room = Room()
    visitor, told = room.looked_at()
    await until(lambda: len(told) == 2)
    visitor.reset()
    assert visitor._looked is not None and room.school._turn is visitor
    room.school.close()


@awaited
@pytest.mark.parametrize(
    ("error", "code", "reason"), [(ValueError("a path"), "failed", ""), (LessonError("weak", most=3), "weak", None)]
)
async def test_what_fails_changes_nothing_and_tells_no_secrets(error: Exception, code: str, reason: str | None) -> None:
    room = Room()
    visitor, told = room.looked_at()
    await until(lambda: len(told) == 2)
    room.teacher.error = error
    visitor.take({"type": "teach", "name": "new"})
    await until(lambda: told[-1]["state"] == "refused")
    assert (told[-1]["code"], told[-1].get("reason"), told[-1]["again"]) == (code, reason, True)
    assert room.shared.engines == []
    room.teacher.error = None
    visitor.take({"type": "teach", "name": "new"})
    await until(lambda: states(told)[-1] == "learnt")
    room.school.close()


@awaited
async def test_changes_are_as_rare_as_the_limits_say(monkeypatch: pytest.MonkeyPatch) -> None:
    room, now = Room(), time.monotonic() + 1
    for seconds, changes in ((0, 5), (3.1, 1), (6.2, 1)):
        monkeypatch.setattr(school, "clock", Clock(now + seconds))
        for _ in range(changes):
            await room.school.change(lambda: room.teacher.forget("owl"))
        with pytest.raises(LessonError, match="busy"):
            await room.school.change(lambda: room.teacher.forget("owl"))
    assert len(room.shared.engines) == 7
    room.school.close()


@awaited
async def test_the_teacher_works_in_one_thread_and_says_why_not() -> None:
    room = Room()

    def where() -> int:
        time.sleep(0.02)
        return get_ident()

    threads = await asyncio.gather(*(room.school.ask(where) for _ in range(4)))
    assert len(set(threads)) == 1 != get_ident()

    def fail() -> None:
        raise InputError("x" * 400)

    with pytest.raises(LessonError) as caught:
        await room.school.ask(fail)
    assert caught.value.code == "failed" and caught.value.facts == {"reason": "x" * 300}
    room.school.close()


@awaited
async def test_the_archive_is_whole_and_not_for_all_at_once(tmp_path: Path) -> None:
    content = bytes(range(256)) * 8192
    (tmp_path / "taught.zip").write_bytes(content)
    room, touched = Room(tmp_path), []
    visit: Any = SimpleNamespace(touch=lambda: touched.append(1))
    archive = Archive(room.school)
    answers: list[Any] = [await archive.answer(visit) for _ in range(school.ARCHIVES)]
    assert answers[0].headers["content-length"] == str(len(content))
    assert answers[0].headers["content-disposition"] == 'attachment; filename="avgn-taught.zip"'
    streams = [answer.body_iterator for answer in answers]
    first = [await anext(stream) for stream in streams]
    assert (await archive.answer(visit)).status_code == 503
    rest = b"".join([piece async for piece in streams[0]])
    # a slow visitor gets the time of an answer once more for each megabyte
    assert first[0] + rest == content and len(touched) == len(content) // (1 << 20)
    assert (await archive.answer(visit)).status_code == 200
    (tmp_path / "taught.zip").unlink()
    assert (await archive.answer(visit)).status_code == 500
    room.school.close()


def test_of_many_pictures_some_are_kept_evenly() -> None:
    kept = Recorder()
    kept.hear(sound(SHORTEST))
    for at in range(100):
        kept.see(wire.Frame(time=at / 10, jpeg=bytes([at])))
    samples, rate, pictures = kept.finish()
    assert (len(samples), rate, [picture[0] for picture in pictures]) == (4000, 8000, [0, 95, 99])
    few = Recorder()
    few.hear(sound(SHORTEST))
    for at in range(KEPT + 1):
        few.see(wire.Frame(time=at / 10, jpeg=bytes([at])))
    assert [picture[0] for picture in few.finish()[2]] == [0, KEPT - 1, KEPT]
    one = Recorder()
    one.hear(sound(SHORTEST))
    one.see(wire.Frame(time=0.0, jpeg=b"\x07"))
    assert one.finish()[2] == [b"\x07"] and PICTURES == 3


def test_sound_is_of_one_rate_and_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Recorder()
    kept.see(wire.Frame(time=0.0, jpeg=b""))
    for _ in range(4):
        kept.hear(sound(4.0))
        kept.hear(sound(4.0, 16000))
    samples, rate, _ = kept.finish()
    assert (len(samples), rate) == (LONGEST * 8000, 8000) and len(kept._pieces) == 3
    # too little sound and none at all are told apart when there was time for some
    silent, begin = Recorder(), time.monotonic()
    with pytest.raises(LessonError, match="short"):
        silent.finish()
    monkeypatch.setattr(recorder, "clock", Clock(begin + 2 * SHORTEST + 0.1))
    with pytest.raises(LessonError, match="no-sound"):
        silent.finish()
    silent.hear(sound(SHORTEST))
    with pytest.raises(LessonError, match="no-picture"):
        silent.finish()


def test_names_of_visitors() -> None:
    assert read_name(" a\t b\n") == "a b" and read_name("a" * desk.LONGEST_NAME)
    assert read_name("Ka\u0308se") == "K\u00e4se" and read_name("\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645")
    for bad in ("", " ", "a" * (desk.LONGEST_NAME + 1), "a\x1b[1m", "a\u202eb", "a\u200bb", "a\ud800"):
        with pytest.raises(LessonError, match="name"):
            read_name(bad)
    # nothing that could be seen
    for blank in ("\u200d", "\u200c\u200d", "\u3164", "\u2800 \u2800", "\u115f\u1160", "\uffa0"):
        with pytest.raises(LessonError, match="name"):
            read_name(blank)
    for strange in (None, 3, ["a"], {"a": 1}, True):
        with pytest.raises(WireError):
            read_name(strange)


def test_boxes_of_visitors() -> None:
    assert read_box(None) is None and read_box([0, 0.25, 1, 0.5]) == (0.0, 0.25, 1.0, 0.5)
    assert read_box([-1, -0.5, 2, 1.5]) == (0.0, 0.0, 1.0, 1.0)
    edge = desk.SMALLEST
    assert read_box([0, 0, edge, edge]) == (0, 0, edge, edge)
    for small in ([0, 0, edge / 2, 1], [0, 0, 1, edge / 2], [0.5, 0, 0.4, 1], [0, 0.5, 1, 0.4], [1.5, 0, 2, 1]):
        with pytest.raises(LessonError, match="box"):
            read_box(small)
    for bad in (
        [0, 0, 1],
        [0, 0, 1, 1, 1],
        [0, 0, 1, True],
        [0, 0, 1, "1"],
        [0, 0, 1, 1e999],
        [0, 0, 1, float("nan")],
        [0, 0, 1, 2.5],
        [-1.5, 0, 1, 1],
        "0011",
        {"0": 1},
        0,
    ):
        with pytest.raises(WireError):
            read_box(bad)
