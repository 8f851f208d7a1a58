"""A visitor's lesson: hold the button, look at what was recorded, say where it is and what it is called."""

from __future__ import annotations

import asyncio
import math
import unicodedata
from collections.abc import Callable, Coroutine
from typing import Any

from avgn.runtime.regions import Box
from avgn.runtime.texts import is_name, is_text
from avgn.runtime.web import wire
from avgn.runtime.web.lessons import LessonError, Looked
from avgn.runtime.web.recorder import Recorder, decode
from avgn.runtime.web.school import School
from avgn.runtime.web.wire import WireError

LONGEST_NAME = 64
# a box of less than this part of a side is a slip of the finger
SMALLEST = 0.02

Tell = Callable[[dict[str, Any]], None]


class Desk:
    """One visitor's. Everything runs in the event loop; `close` it when the visitor leaves."""

    def __init__(self, school: School, tell: Tell) -> None:
        """`tell` sends a message to the visitor."""
        self._school = school
        self._tell = tell
        self._recorder: Recorder | None = None
        self._looked: Looked | None = None
        self._task: asyncio.Task[None] | None = None
        self._works: dict[str, Callable[[dict[str, Any]], None]] = {
            "teach-begin": self._begin,
            "teach-end": self._end,
            "teach": self._teach,
            "teach-drop": self._drop,
            "teach-forget": self._forget,
        }

    def knows(self, kind: str) -> bool:
        """Whether a message of this type is for the desk."""
        return kind in self._works

    def take(self, value: dict[str, Any]) -> None:
        """Take a message. Raises WireError for one that no page sends."""
        try:
            self._works[value["type"]](value)
        except LessonError as error:
            self._refuse(error)

    def hear(self, samples: wire.Samples) -> None:
        """Sound came."""
        if self._recorder is not None:
            self._recorder.hear(samples)

    def see(self, frame: wire.Frame) -> None:
        """A picture came."""
        if self._recorder is not None:
            self._recorder.see(frame)

    def reset(self) -> None:
        """Begin anew: what was recorded of another stream is no part of the next one."""
        if self._recorder is not None:
            self._forget_example()

    def close(self) -> None:
        """Leave, with or without having taught something."""
        if self._task is not None:
            self._task.cancel()
        self._forget_example()

    def lose_turn(self) -> None:
        """Hear that it took too long."""
        self._recorder = self._looked = None
        self._refuse(LessonError("late"))

    def _begin(self, value: dict[str, Any]) -> None:
        self._check_idle()
        self._school.take_turn(self)
        self._recorder, self._looked = Recorder(), None
        self._say("recording")

    def _end(self, value: dict[str, Any]) -> None:
        recorder, self._recorder = self._recorder, None
        if recorder is None:
            raise LessonError("nothing")
        try:
            recorded = recorder.finish()
        except LessonError:
            self._school.end_turn(self)
            raise
        self._start(self._look(*recorded))

    async def _look(self, *recorded: Any) -> None:
        try:
            looked = await self._school.ask(lambda: self._school.teacher.look(decode(*recorded)))
        except LessonError:
            self._school.end_turn(self)
            raise
        self._looked = looked
        self._say("looked", box=looked.box, **looked.facts)

    def _teach(self, value: dict[str, Any]) -> None:
        self._check_idle()
        name, box, replace = read_name(value.get("name")), read_box(value.get("box")), value.get("replace") is True
        looked = self._looked
        if looked is None:
            raise LessonError("nothing")
        name = self._own(name)
        if name not in self._school.taught and name in self._school.known and not replace:
            raise LessonError("exists", name=name)
        self._say("learning", name=name)
        self._start(self._learn(name, looked, box, replace))

    async def _learn(self, name: str, looked: Looked, box: Box | None, replace: bool) -> None:
        teacher = self._school.teacher
        facts = await self._school.change(lambda: teacher.learn(name, looked, box, replace=replace))
        self._forget_example()
        self._say("learnt", name=name, **facts)

    def _drop(self, value: dict[str, Any]) -> None:
        if self._task is None or self._task.done():
            self._forget_example()
            self._say("dropped")

    def _forget(self, value: dict[str, Any]) -> None:
        self._check_idle()
        name = read_name(value.get("name"))
        if name not in self._school.taught:
            raise LessonError("unknown", name=name)
        self._start(self._unlearn(name))

    async def _unlearn(self, name: str) -> None:
        await self._school.change(lambda: self._school.teacher.forget(name))
        self._say("forgotten", name=name)

    def _own(self, name: str) -> str:
        """The class that is called so already, however its letters are written; of Bell and bell the one itself."""
        if name in self._school.known:
            return name
        return next((one for one in self._school.known if one.casefold() == name.casefold()), name)

    def _forget_example(self) -> None:
        self._recorder = self._looked = None
        self._school.end_turn(self)

    def _check_idle(self) -> None:
        if self._task is not None and not self._task.done():
            raise LessonError("busy")

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        async def run() -> None:
            try:
                await work
            except LessonError as error:
                self._refuse(error)

        self._task = asyncio.create_task(run())

    def _say(self, state: str, **facts: Any) -> None:
        self._tell({"type": "lesson", "state": state, **facts})

    def _refuse(self, error: LessonError) -> None:
        # what was looked at may still be named otherwise
        self._say("refused", code=error.code, again=self._looked is not None, **error.facts)


def read_name(given: object) -> str:
    """Return a class's name as it is kept; raises LessonError for one that can't be shown."""
    if not isinstance(given, str):
        raise WireError(wire.INVALID, "a name is text")
    name = unicodedata.normalize("NFC", " ".join(given.split()))
    if not name or len(name) > LONGEST_NAME or not is_name(name) or not is_text(name):
        raise LessonError("name", most=LONGEST_NAME)
    return name


def read_box(given: object) -> Box | None:
    """Return a box in parts of the picture's sides, or None; raises WireError for what is neither."""
    if given is None:
        return None
    if not isinstance(given, list) or len(given) != 4:
        raise WireError(wire.INVALID, "a box is four numbers")
    # bool is an int, and 1e999 is infinite
    values = [float(one) for one in given if type(one) in (int, float) and -1 <= one <= 2 and math.isfinite(one)]
    if len(values) != 4:
        raise WireError(wire.INVALID, "a box is four numbers from 0 to 1")
    x1, y1, x2, y2 = (min(1.0, max(0.0, value)) for value in values)
    if x2 - x1 < SMALLEST or y2 - y1 < SMALLEST:
        raise LessonError("box")
    return (x1, y1, x2, y2)
