"""A visitor's session alone: clocks, limits, what a reset leaves behind, and what is passed over."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from avgn.runtime import Localizer
from avgn.runtime.web import wire
from avgn.runtime.web.door import Stage
from avgn.runtime.web.inbox import WAITING, Jpeg
from avgn.runtime.web.run import Sent
from avgn.runtime.web.wire import WireError
from tests.hostile.web_attacks import jpeg, message
from tests.patience import PATIENCE
from tests.web.visitors import Wire, at_once, awaited, counted, later, result, visiting


@pytest.fixture(scope="module")
def engine() -> Any:
    return Localizer.load("tiny", threads=1).engine


@awaited
async def test_no_result_from_before_a_reset_is_sent(engine: Any) -> None:
    """Neither those in line for a visitor who reads slowly, nor those still on their way from the engine."""
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


@awaited
async def test_a_reset_forgets_the_clock_the_rate_and_what_is_in_line(engine: Any) -> None:
    async with visiting(engine) as session:
        at_once(session, message(wire.FRAME, 50.0, b"x"), message(wire.FRAME, 52.0, b"x"))
        at_once(session, message(wire.SAMPLES, 50.0, bytes(960), 48000))
        assert [one.at for one in session._inbox._frames] == [0.0, 2.0] and session._visit.stage is Stage.PLACE
        # times never step back, and clocks never jump
        at_once(session, message(wire.FRAME, 51.0, b"x"))
        assert session._inbox._frames[-1].at == 2.0
        with pytest.raises(WireError) as refused:
            at_once(session, message(wire.FRAME, 5.0, b"x"))
        assert refused.value.code == wire.BAD_CLOCK
        at_once(session, json.dumps({"type": "reset"}))
        assert not session._inbox._frames and not session._inbox._samples
        assert session._visit.door.count(Stage.LOOKING) == 1
        # another clock, behind the old one, and another rate
        at_once(session, message(wire.FRAME, 7.0, b"x"), message(wire.SAMPLES, 7.5, bytes(320), 16000))
        assert session._inbox._frames[0].at == 0.0 and 0.4 < session._inbox._samples[0].at <= 0.5
        with pytest.raises(WireError) as refused:
            at_once(session, message(wire.SAMPLES, 7.5, bytes(320), 8000))
        assert refused.value.code == wire.UNSUPPORTED


@awaited
async def test_times_that_we_are_late_to_take_are_no_jump(engine: Any) -> None:
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


@awaited
async def test_a_visitor_who_never_reads_is_left(engine: Any) -> None:
    async with visiting(engine, send=0.1) as session:
        begin = time.monotonic()
        session._queue("a result", session._run)
        with pytest.raises(WireError, match="does not read") as refused:
            await asyncio.wait_for(session._until_ended(session._send_results(), session._take_messages()), PATIENCE)
        assert refused.value.code == wire.POLICY and time.monotonic() - begin < 9


@awaited
async def test_a_session_ends_although_a_cancellation_is_lost(engine: Any) -> None:
    """As asyncio.wait_for loses one, before Python 3.12, that comes together with what it waits for."""

    async def goes_on() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)
        await asyncio.sleep(3600)

    async def fails() -> None:
        raise WireError(wire.TOO_FAST, "too many lessons")

    async with visiting(engine) as session:
        with pytest.raises(WireError, match="too many lessons"):
            await asyncio.wait_for(session._until_ended(goes_on(), fails()), PATIENCE)


@awaited
async def test_no_place_is_left_for_pictures(engine: Any) -> None:
    async with visiting(engine, sessions=1) as session:
        session._visit.door.enter(Wire()).enter(Stage.PLACE)
        with pytest.raises(WireError) as refused:
            at_once(session, message(wire.SAMPLES, 50.0, bytes(960), 48000))
        assert refused.value.code == wire.FULL


@awaited
async def test_pictures_passed_over_are_told_of_once(engine: Any) -> None:
    """More pictures at once than are kept: the newest win, and the next result says how many were lost."""
    async with visiting(engine) as session:
        picture = jpeg(64, 48)
        at_once(session, json.dumps({"type": "sound-end"}))
        at_once(session, *(message(wire.FRAME, 50 + at / 30, picture) for at in range(WAITING + 5)))
        assert session._dropped == 5 and len(session._inbox._frames) == WAITING
        working = asyncio.create_task(session._work())
        found: list[Any] = []
        deadline = time.monotonic() + PATIENCE
        while sum(1 + one["dropped"] for one in found) < WAITING + 5:
            found += [json.loads(text) for text in session._out]
            session._out.clear()
            assert time.monotonic() < deadline and not working.done(), found
            await asyncio.sleep(0.001)
        working.cancel()
        times = [round(30 * (one["time"] - 50)) for one in found]
        assert times == sorted(set(times)) and times[0] >= 5 and found[0]["dropped"] >= 5
        assert sum(1 + one["dropped"] for one in found) == WAITING + 5


@awaited
async def test_lost_pictures_are_in_the_result_that_follows(engine: Any) -> None:
    async with visiting(engine) as session:
        picture = Jpeg(jpeg=b"", at=0.0, time=50.0, arrived=time.monotonic())
        for lost in (4, 4, 6):
            session._take_result(replace(result(), dropped=1), Sent(picture, session._run, lost))
        await asyncio.sleep(0.01)
        assert [json.loads(text)["dropped"] for text in session._out] == [1, 3]
        assert counted(session, "avgn_dropped_frames_total") == 9


@awaited
async def test_what_comes_before_the_first_message_is_at_its_time(engine: Any) -> None:
    async with visiting(engine) as session:
        at_once(session, message(wire.SAMPLES, 50.0, bytes(960), 48000), message(wire.FRAME, 49.5, b"x"))
        assert session._inbox._frames[0].at == 0.0 == session._inbox._samples[0].at
        assert session._inbox._frames[0].time == 49.5


@awaited
async def test_clocks_may_differ_by_the_limit_and_no_more(engine: Any) -> None:
    for off in (-4.0, 4.0):
        async with visiting(engine, clock=4.0) as session:
            session._visit.door._stalled = 7.0
            at_once(session, message(wire.FRAME, 100.0, b"x"))
            session._take_frame(wire.Frame(time=100.0 + off, jpeg=b"x"))
            # both clocks go on
            later(session, 20.0)
            session._take_frame(wire.Frame(time=120.0 + 0.99 * off, jpeg=b"x"))
            for time_ in (120.0 + 1.01 * off, 100.0 + off, 140.0):
                with pytest.raises(WireError, match="clock") as refused:
                    session._take_frame(wire.Frame(time=time_, jpeg=b"x"))
                assert refused.value.code == wire.BAD_CLOCK
            # what we were late to take may come late, and not early
            session._visit.door._stalled += 3.0
            session._take_frame(wire.Frame(time=120.0 - 6.99, jpeg=b"x"))
            for time_ in (120.0 - 7.01, 124.01):
                with pytest.raises(WireError):
                    session._take_frame(wire.Frame(time=time_, jpeg=b"x"))


@awaited
async def test_as_much_sound_comes_at_once_as_the_limits_say(engine: Any) -> None:
    """1.5 s at first, later 4 s, which come back at the rate of 2 s a second."""

    def second(at: float) -> bytes:
        return message(wire.SAMPLES, at, bytes(16000), 8000)

    async with visiting(engine, audio_rate=2.0, audio_burst=4.0, audio_begin=1.5, clock=1e6) as session:
        at_once(session, second(0.0))
        with pytest.raises(WireError, match="sound") as refused:
            session._take_samples(wire.Samples(time=1.0, rate=8000, samples=np.zeros(8000, np.int16)))
        assert refused.value.code == wire.TOO_FAST
        later(session, 100.0)
        for at in range(4):
            session._take_samples(wire.Samples(time=1.0 + at, rate=8000, samples=np.zeros(8000, np.int16)))
        with pytest.raises(WireError):
            session._take_samples(wire.Samples(time=5.0, rate=8000, samples=np.zeros(8000, np.int16)))
        later(session, 0.4)
        session._take_samples(wire.Samples(time=5.0, rate=8000, samples=np.zeros(6000, np.int16)))
        # the last of each try was not taken
        assert counted(session, "avgn_audio_seconds_total") == 5.75


@awaited
async def test_sound_keeps_its_rate_and_follows_its_own_clock(engine: Any) -> None:
    async with visiting(engine) as session:
        for at in (0.0, 0.1):
            at_once(session, message(wire.SAMPLES, 5.0 + at, bytes(3200), 16000))
        # a burst: both blocks at nearly the same time, which the clock knows better
        at_once(session, message(wire.SAMPLES, 5.12, bytes(3200), 16000))
        times = [one.at for one in session._inbox._samples]
        assert times[:2] == [0.0, pytest.approx(0.1)] and 0.19 < times[2] < 0.2
        assert [one.rate for one in session._inbox._samples] == [16000] * 3
        with pytest.raises(WireError, match="rate") as refused:
            at_once(session, message(wire.SAMPLES, 5.3, bytes(3200), 48000))
        assert refused.value.code == wire.UNSUPPORTED


@awaited
@pytest.mark.parametrize("kind", ["reset", "sound-end"])
async def test_commands_are_as_rare_as_the_limits_say(engine: Any, kind: str) -> None:
    async with visiting(engine, resets_per_second=2.0, reset_burst=6.0) as session:
        command = json.dumps({"type": kind})
        at_once(session, *6 * [command])
        # being alive costs nothing
        at_once(session, *30 * [json.dumps({"type": "alive"})])
        with pytest.raises(WireError, match="reset") as refused:
            at_once(session, command)
        assert refused.value.code == wire.TOO_FAST
        later(session, 0.6)
        at_once(session, command)
        with pytest.raises(WireError):
            at_once(session, command)


@awaited
async def test_the_end_of_sound_waits_in_line_and_begins_nothing_anew(engine: Any) -> None:
    async with visiting(engine) as session:
        run = session._run
        at_once(session, message(wire.SAMPLES, 5.0, bytes(3200), 16000), '{"type": "sound-end"}')
        assert [one.samples.size for one in session._inbox._samples] == [1600, 0] and session._run is run
        sound, picture = await session._inbox.take()
        assert len(sound) == 2 and picture is None


@awaited
async def test_commands_that_nobody_knows_are_named_but_not_at_length(engine: Any) -> None:
    async with visiting(engine) as session:
        for kind in ("hello", "", "x" * 20):
            with pytest.raises(WireError, match=f"message type '{kind}' is not known") as refused:
                at_once(session, json.dumps({"type": kind}))
            assert refused.value.code == wire.UNSUPPORTED
        with pytest.raises(WireError) as refused:
            at_once(session, json.dumps({"type": "x" * 20 + "yz"}))
        assert "'" + "x" * 20 + "'" in refused.value.reason


@awaited
async def test_the_last_place_is_a_place(engine: Any) -> None:
    async with visiting(engine, sessions=2) as session:
        other = session._visit.door.enter(Wire())
        other.enter(Stage.PLACE)
        at_once(session, message(wire.FRAME, 5.0, b"x"))
        assert session._visit.stage is Stage.PLACE
        # who has one keeps it where all are taken
        assert session._visit.door.count(Stage.PLACE) == 2
        at_once(session, message(wire.FRAME, 5.1, b"x"))


@awaited
async def test_who_only_looks_gives_the_place_back(engine: Any) -> None:
    async with visiting(engine, idle=5.0) as session:
        at_once(session, message(wire.FRAME, 5.0, b"x"))
        run = session._run
        session._free_place()
        assert session._visit.stage is Stage.PLACE and session._run is run
        session._visit._used = (session._visit._used[0] - 5.1, session._visit._used[1])
        session._free_place()
        assert session._visit.door.count(Stage.LOOKING) == 1 and session._run is not run
        # who has none loses nothing
        run = session._run
        session._free_place()
        assert session._run is run


@awaited
async def test_the_newest_results_wait_for_the_network(engine: Any) -> None:
    async with visiting(engine) as session:
        for text in "abc":
            session._queue(text, session._run)
        assert list(session._out) == ["b", "c"]


@awaited
async def test_a_result_takes_as_long_as_it_took(engine: Any) -> None:
    async with visiting(engine) as session:
        picture = Jpeg(jpeg=b"", at=0.0, time=50.0, arrived=time.monotonic() - 0.25)
        session._take_result(result(), Sent(picture, session._run, 0))
        assert 0.25 <= counted(session, "avgn_latency_seconds_sum") < PATIENCE
