"""A visitor's session alone: clocks, what a reset leaves behind, what is passed over, and how results are written."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, cast

import numpy as np
import pytest

from avgn.runtime import Localizer
from avgn.runtime.decision import Heard
from avgn.runtime.multi import MultiStream
from avgn.runtime.result import Result
from avgn.runtime.web import wire
from avgn.runtime.web.door import Door, Stage
from avgn.runtime.web.gate import Gate
from avgn.runtime.web.inbox import WAITING, Inbox, Picture, Samples
from avgn.runtime.web.limits import Limits
from avgn.runtime.web.load import Budget, Load
from avgn.runtime.web.metrics import Metrics
from avgn.runtime.web.run import Sent
from avgn.runtime.web.session import Session
from avgn.runtime.web.wire import WireError
from benchmarks.attacks import jpeg, message
from tests.web.test_door import Wire


@pytest.fixture(scope="module")
def engine() -> Any:
    return Localizer.load("tiny", threads=1).engine


class Socket:
    """A WebSocket whose messages are given, and whose results go nowhere."""

    def __init__(self, *messages: str | bytes) -> None:
        self.messages = list(messages)

    async def receive(self) -> dict[str, Any]:
        if not self.messages:
            await asyncio.sleep(3600)
        one = self.messages.pop(0)
        return {"type": "websocket.receive", "text" if isinstance(one, str) else "bytes": one}

    async def send_text(self, text: str) -> None:
        await asyncio.sleep(3600)


@asynccontextmanager
async def visiting(engine: Any, *messages: str | bytes, **limits: Any) -> AsyncIterator[Session]:
    """A session that has said hello."""
    with MultiStream(engine, max_batch=1) as multi, ThreadPoolExecutor(1) as workers:
        visit = Door(Limits(**limits), Metrics()).enter(Wire())
        gate = Gate(local=True, origins=(), token=None)
        session = Session(cast(Any, Socket(*messages)), visit, multi, workers, gate, Load())
        visit.enter(Stage.LOOKING)
        try:
            yield session
        finally:
            session._run.close()


def at_once(session: Session, *messages: str | bytes) -> None:
    """Take messages as if they had just come."""
    for one in messages:
        if isinstance(one, str):
            session._take_command(json.loads(one))
            continue
        session._visit.arrived = time.monotonic()
        piece = wire.read_binary(one)
        session._hold_place()
        if isinstance(piece, wire.Frame):
            session._take_frame(piece)
        else:
            session._take_sound(piece)


def test_no_result_from_before_a_reset_is_sent(engine: Any) -> None:
    """Neither those in line for a visitor who reads slowly, nor those still on their way from the engine."""

    async def visit() -> None:
        async with visiting(engine) as session:
            before = session._run
            session._queue("old", before)
            assert list(session._out) == ["old"]
            session._take_command(json.loads('{"type": "reset"}'))
            assert not session._out
            after = session._run
            session._queue("late", before)
            session._queue("new", after)
            assert after is not before and list(session._out) == ["new"]

    asyncio.run(visit())


def test_a_reset_forgets_the_clock_the_rate_and_what_is_in_line(engine: Any) -> None:
    async def visit() -> None:
        async with visiting(engine) as session:
            at_once(session, message(wire.FRAME, 50.0, b"x"), message(wire.FRAME, 52.0, b"x"))
            at_once(session, message(wire.SOUND, 50.0, bytes(960), 48000))
            assert [one.at for one in session._inbox._pictures] == [0.0, 2.0] and session._visit.stage is Stage.PLACE
            # times never step back, and clocks never jump
            at_once(session, message(wire.FRAME, 51.0, b"x"))
            assert session._inbox._pictures[-1].at == 2.0
            with pytest.raises(WireError) as refused:
                at_once(session, message(wire.FRAME, 5.0, b"x"))
            assert refused.value.code == wire.BAD_CLOCK
            at_once(session, json.dumps({"type": "reset"}))
            assert not session._inbox._pictures and not session._inbox._sound
            assert session._visit.door.count(Stage.LOOKING) == 1
            # another clock, behind the old one, and another rate
            at_once(session, message(wire.FRAME, 7.0, b"x"), message(wire.SOUND, 7.5, bytes(320), 16000))
            assert session._inbox._pictures[0].at == 0.0 and 0.4 < session._inbox._sound[0].at <= 0.5
            with pytest.raises(WireError) as refused:
                at_once(session, message(wire.SOUND, 7.5, bytes(320), 8000))
            assert refused.value.code == wire.UNSUPPORTED

    asyncio.run(visit())


def test_times_that_we_are_late_to_take_are_no_jump(engine: Any) -> None:
    async def visit() -> None:
        async with visiting(engine, clock=1.0) as session:
            door, visit = session._visit.door, session._visit
            at_once(session, message(wire.FRAME, 50.0, b"x"))
            # thirty seconds in which the server stood still: what came meanwhile is read only now
            visit.arrived += 30.0
            session._take_frame(wire.Frame(time=50.1, jpeg=b"x"))
            assert door.stalled(visit.arrived) >= 29
            # without a standstill it is one
            door._looked = visit.arrived + 60.0
            visit.arrived += 60.0
            with pytest.raises(WireError) as refused:
                session._take_frame(wire.Frame(time=50.2, jpeg=b"x"))
            assert refused.value.code == wire.BAD_CLOCK
            # a clock that runs ahead is one at any time
            with pytest.raises(WireError):
                session._take_frame(wire.Frame(time=5000.0, jpeg=b"x"))

    asyncio.run(visit())


def test_a_visitor_who_never_reads_is_left(engine: Any) -> None:
    async def visit() -> None:
        async with visiting(engine, send=0.1) as session:
            begin = time.monotonic()
            session._queue("a result", session._run)
            with pytest.raises(WireError, match="does not read") as refused:
                await asyncio.wait_for(session._until_ended(session._send_results(), session._take_messages()), 5)
            assert refused.value.code == wire.POLICY and time.monotonic() - begin < 3

    asyncio.run(visit())


def test_no_place_is_left_for_pictures(engine: Any) -> None:
    async def visit() -> None:
        async with visiting(engine, sessions=1) as session:
            session._visit.door.enter(Wire()).enter(Stage.PLACE)
            with pytest.raises(WireError) as refused:
                at_once(session, message(wire.SOUND, 50.0, bytes(960), 48000))
            assert refused.value.code == wire.FULL

    asyncio.run(visit())


def test_pictures_passed_over_are_told_of_once(engine: Any) -> None:
    """More pictures at once than are kept: the newest win, and the next result says how many were lost."""

    async def visit() -> None:
        async with visiting(engine) as session:
            picture = jpeg(64, 48)
            at_once(session, json.dumps({"type": "sound-end"}))
            at_once(session, *(message(wire.FRAME, 50 + at / 30, picture) for at in range(WAITING + 5)))
            assert session._dropped == 5 and len(session._inbox._pictures) == WAITING
            working = asyncio.create_task(session._work())
            found: list[Any] = []
            deadline = time.monotonic() + 20
            while sum(1 + one["dropped"] for one in found) < WAITING + 5:
                found += [json.loads(text) for text in session._out]
                session._out.clear()
                assert time.monotonic() < deadline and not working.done(), found
                await asyncio.sleep(0.001)
            working.cancel()
            times = [round(30 * (one["time"] - 50)) for one in found]
            assert times == sorted(set(times)) and times[0] >= 5 and found[0]["dropped"] >= 5
            assert sum(1 + one["dropped"] for one in found) == WAITING + 5

    asyncio.run(visit())


def test_the_inbox_gives_sound_in_portions_and_pictures_in_order() -> None:
    async def use() -> None:
        lost: list[int] = []
        inbox = Inbox(lambda: lost.append(1))
        for at in range(10):
            inbox.put(Samples(samples=np.zeros(2000, np.int16), rate=8000, at=at / 4))
            inbox.put(Picture(jpeg=b"", at=float(at), time=0.0, arrived=0.0))
        assert len(lost) == 10 - WAITING
        sound, picture = await inbox.take()
        assert [one.at for one in sound] == [0.0, 0.25] and picture is not None and picture.at == 2.0
        inbox.clear()
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(inbox.take(), 0.05)

    asyncio.run(use())


def test_who_costs_most_waits_first_and_only_while_others_wait() -> None:
    load = Load()
    limits = Limits(pictures_per_second=6, pixels_per_second=600.0, fair_pictures=3, fair_pixels=300.0)
    calm = Budget(limits, load)
    assert [calm.take(100) for _ in range(7)] == [True] * 6 + [False]
    assert [Budget(limits, load).take(400), Budget(limits, load).take(700)] == [True, False]
    for _ in range(100):
        load.note(0.05)
    busy = Budget(limits, load)
    assert load.is_high and [busy.take(100) for _ in range(4)] == [True, True, True, False]
    assert not Budget(limits, load).take(400)
    for _ in range(100):
        load.note(0.0)
    assert not load.is_high


def test_maps_are_sent_row_after_row() -> None:
    maps = np.array([[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]], np.float32)
    source = Heard(
        label="a",
        index=0,
        audio_prob=0.9,
        visual_prob=0.8,
        certainty=0.7,
        on_screen=True,
        peak=(0.5, 0.5),
        box=None,
        map=maps,
    )
    result = Result(
        time=1.0,
        frame=3,
        state="source",
        sources=(source,),
        audio_prob=np.ones(1, np.float32),
        visual_prob=np.ones(1, np.float32),
        maps=maps[None],
        loudness_db=-20.0,
        window=1,
        ms={},
        dropped=2,
    )
    line = json.loads(wire.answer(result, 50.5))
    assert line["sources"][0]["map"] == [0, 51, 102, 153, 204, 255] and line["sources"][0]["range"] == [0.0, 5.0]
    assert (line["time"], line["dropped"], line["frame"]) == (50.5, 2, 3)


def test_lost_pictures_are_in_the_result_that_follows(engine: Any) -> None:
    async def visit() -> None:
        async with visiting(engine) as session:
            result = Result(
                time=0.0,
                frame=0,
                state="none",
                sources=(),
                audio_prob=np.zeros(1, np.float32),
                visual_prob=np.zeros(1, np.float32),
                maps=np.zeros((1, 2, 2), np.float32),
                loudness_db=-20.0,
                window=1,
                ms={},
                dropped=1,
            )
            picture = Picture(jpeg=b"", at=0.0, time=50.0, arrived=time.monotonic())
            for lost in (4, 4, 6):
                session._take_result(result, Sent(picture, session._run, lost))
            await asyncio.sleep(0.01)
            assert [json.loads(text)["dropped"] for text in session._out] == [1, 3]
            assert b"avgn_dropped_frames_total 9.0" in session._metrics.text()

    asyncio.run(visit())
