"""A visitor's session from its hello to its end: what is said, in which order, and how each way to end it is told."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
from starlette.websockets import WebSocketDisconnect

from avgn.runtime import Localizer
from avgn.runtime.web import wire
from avgn.runtime.web.door import Stage
from avgn.runtime.web.session import reason_of
from avgn.runtime.web.wire import WireError
from tests.hostile.web_attacks import jpeg, message
from tests.patience import Clock
from tests.web.visitors import Socket, at_once, awaited, counted, visiting

TOKEN = "a token of this test"
PICTURE = jpeg(64, 48)


@pytest.fixture(scope="module")
def engine() -> Any:
    return Localizer.load("tiny", threads=1).engine


def hello(**facts: Any) -> str:
    return json.dumps({"type": "hello", "version": 1} | facts)


async def greeted(engine: Any, said: Any, token: str | None = None) -> tuple[int, str, Stage]:
    """The code and reason with which a first message is answered, 0 where it is taken, and the stage it leads to."""
    async with visiting(engine, Socket(said), token=token, stage=Stage.HELLO) as session:
        try:
            await session.greet()
        except WireError as error:
            return error.code, error.reason, session._visit.stage
        return 0, "", session._visit.stage


@awaited
async def test_a_hello_comes_first(engine: Any) -> None:
    assert await greeted(engine, hello()) == (0, "", Stage.LOOKING)
    others = (
        *(hello(version=0), hello(version=2), hello(version="1"), hello(version=None), hello(type="reset")),
        *('{"type": "hello"}', '{"type": "alive", "version": 1}', hello().encode()),
        *(message(wire.FRAME, 1.0, PICTURE), b""),
    )
    for said in others:
        code, reason, stage = await greeted(engine, said)
        assert (code, stage) == (wire.POLICY, Stage.HELLO) and "version 1" in reason, said
    for said in ("nonsense", ""):
        assert (await greeted(engine, said))[0] == wire.INVALID
    assert (await greeted(engine, "x" * 5000))[0] == wire.TOO_BIG


@awaited
async def test_a_token_is_needed_where_there_is_one(engine: Any) -> None:
    assert (await greeted(engine, hello(token=TOKEN), TOKEN))[::2] == (0, Stage.LOOKING)
    for given in ({}, {"token": TOKEN[:-1]}, {"token": 1}, {"token": None}):
        begin = time.monotonic()
        code, reason, stage = await greeted(engine, hello(**given), TOKEN)
        assert (code, stage) == (wire.NO_TOKEN, Stage.REGRET) and "token" in reason and TOKEN not in reason
        # guesses are slow
        assert time.monotonic() - begin >= 0.01
    # where there is none, any is taken
    assert (await greeted(engine, hello(token="any")))[::2] == (0, Stage.LOOKING)
    # a wrong version is told before a wrong token
    assert (await greeted(engine, hello(version=2), TOKEN))[0] == wire.POLICY


@awaited
async def test_who_leaves_before_the_hello_has_left(engine: Any) -> None:
    for said, code in (
        ({"type": "websocket.disconnect", "code": 1001}, 1001),
        ({"type": "websocket.disconnect"}, 1005),
    ):
        async with visiting(engine, Socket(said), stage=Stage.HELLO) as session:
            with pytest.raises(WebSocketDisconnect) as left:
                await session.greet()
            assert left.value.code == code


@awaited
async def test_a_visit_that_must_end_ends_with_its_reason(engine: Any) -> None:
    async with visiting(engine, stage=Stage.HELLO) as session:
        asyncio.get_running_loop().call_later(0.02, session._visit.end, WireError(wire.IDLE, "no hello came"))
        with pytest.raises(WireError, match="no hello came"):
            await session.greet()
    socket = Socket()
    async with visiting(engine, socket) as session:
        asyncio.get_running_loop().call_later(0.02, session._visit.end, WireError(wire.FULL, "others wait"))
        with pytest.raises(WireError, match="others wait") as ended:
            await session.run()
        assert ended.value.code == wire.FULL and session._run._is_closed
    assert [one["type"] for one in socket.sent] == ["hello"]


@awaited
async def test_pictures_and_sound_become_results(engine: Any) -> None:
    """From the wire to the wire: the server's hello first, then a line a picture, at the picture's own time."""
    socket = Socket('{"type": "alive"}')
    async with visiting(engine, socket) as session:
        running = asyncio.create_task(session.run())
        for at in range(5):
            for half in (0.0, 0.1):
                socket.messages.append(message(wire.SAMPLES, 100 + at / 5 + half, bytes(9600), 48000))
            socket.messages.append(message(wire.FRAME, 100 + at / 5, PICTURE))
            while len(socket.sent) < 2 + at:
                assert not running.done()
                await asyncio.sleep(0.005)
        assert session._visit.stage is Stage.PLACE
        assert counted(session, "avgn_audio_seconds_total") == pytest.approx(1.0)
        assert counted(session, "avgn_frames_total") == 5
        session._visit.end(WireError(wire.IDLE, "the test is over"))
        with pytest.raises(WireError, match="over"):
            await running
    said, *lines = socket.sent
    info = engine.info
    assert said == json.loads(wire.hello(info.classes, info.grid, engine.name, info.has_presence))
    assert [round(one["time"], 3) for one in lines] == [100.0, 100.2, 100.4, 100.6, 100.8]
    assert {one["type"] for one in lines} == {"result"} and {one["dropped"] for one in lines} == {0}


@awaited
async def test_a_picture_that_costs_too_much_is_passed_over_and_told_of(
    engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("avgn.runtime.web.load.clock", Clock())
    socket = Socket()
    async with visiting(engine, socket, pixels_per_second=64.0 * 48, fair_pixels=64.0 * 48) as session:
        running = asyncio.create_task(session.run())
        at_once(session, *(message(wire.FRAME, 100 + at / 10, PICTURE) for at in range(4)))
        while len(socket.sent) < 2 or session._dropped < 3:
            assert not running.done()
            await asyncio.sleep(0.005)
        assert session._dropped == 3 and socket.sent[1]["dropped"] == 0
        session._visit.end(WireError(wire.IDLE, ""))
        with pytest.raises(WireError):
            await running


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("[]", wire.INVALID),
        ('{"type": "shutdown"}', wire.UNSUPPORTED),
        (b"x", wire.INVALID),
        (message(wire.FRAME, float("nan"), PICTURE), wire.BAD_CLOCK),
        (message(wire.FRAME, 1.0, PICTURE[:-2]), wire.INVALID),
        (message(wire.FRAME, 1.0, b"no picture"), wire.UNSUPPORTED),
        (message(wire.SAMPLES, 1.0, bytes(2), 1), wire.UNSUPPORTED),
    ],
)
@awaited
async def test_what_can_not_be_taken_ends_the_session(engine: Any, said: Any, code: int) -> None:
    async with visiting(engine, Socket('{"type": "alive"}', said)) as session:
        with pytest.raises(WireError) as ended:
            await session.run()
        assert ended.value.code == code and session._run._is_closed


@awaited
async def test_who_leaves_ends_the_session(engine: Any) -> None:
    async with visiting(engine, Socket({"type": "websocket.disconnect", "code": 1001})) as session:
        with pytest.raises(WebSocketDisconnect) as left:
            await session.run()
        assert left.value.code == 1001 and session._run._is_closed


@awaited
async def test_every_message_is_a_sign_of_life(engine: Any) -> None:
    for said in ('{"type": "alive"}', message(wire.FRAME, 1.0, PICTURE)):
        async with visiting(engine, Socket(said)) as session:
            visit = session._visit
            visit._since = (visit._since[0] - 60.0, visit._since[1])
            taking = asyncio.create_task(session._take_messages())
            await asyncio.sleep(0.01)
            assert visit.waited(time.monotonic()) < 5 and not taking.done()
            taking.cancel()


@awaited
async def test_a_failed_engine_ends_the_session_within_a_second(engine: Any) -> None:
    """Where nothing is sent, and nothing has to be done meanwhile."""
    async with visiting(engine, Socket()) as session:
        running = asyncio.create_task(session.run())
        await asyncio.sleep(0.05)
        session._shared.multi._error = RuntimeError("out of memory")
        begin, worked = time.monotonic(), time.process_time()
        with pytest.raises(WireError) as ended:
            await running
        assert ended.value.code == wire.FAILED and "memory" not in ended.value.reason
        took, worked = time.monotonic() - begin, time.process_time() - worked
        # a second later and no earlier; a busy machine looks later
        assert 0.5 < took < 10 and worked < 0.4 * max(1.0, took)


def test_a_reason_fits_into_a_close_frame() -> None:
    assert reason_of(WireError(1, "as it is")) == "as it is" and reason_of(WireError(1, "")) == ""
    assert reason_of(WireError(1, "x" * 130)) == "x" * 120
    # one line of ASCII, whatever stood in it
    assert reason_of(WireError(1, 'a "b"\nc')) == 'a \\"b\\"\\nc'
    assert reason_of(WireError(1, "é")) == "\\u00e9" and len(reason_of(WireError(1, "é" * 100))) == 120
