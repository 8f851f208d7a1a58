"""The door: frames counted however they are cut, standstills made good, room made by those who wait longest."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import struct
import sys
import time
from collections.abc import Iterator
from functools import partial

import pytest
from websockets.exceptions import ConnectionClosed

from avgn.runtime import Localizer
from avgn.runtime.web import wire
from avgn.runtime.web.door import Door, Stage, address_of
from avgn.runtime.web.frames import FLOOD, FrameCounter
from avgn.runtime.web.gate import Heading
from avgn.runtime.web.limits import Bucket, Limits
from avgn.runtime.web.metrics import Metrics
from avgn.runtime.web.protocols import Outlet
from benchmarks.hostile import Honest
from benchmarks.hostile import serving as process
from tests.hostile.web_attacks import BINARY, PING, TEXT, Attack, frame
from tests.patience import PATIENCE, Clock, until
from tests.web.browser import serving
from tests.web.visitors import Wire
from tests.web.visits import HELLO, TOKEN, Visitor, closed, get, jpeg, message, talk

# seconds without a message, and what is surely longer and far from the limits' own
SHORT, LONG = 2.0, 15.0


@pytest.fixture(scope="module")
def small(tiny: Localizer) -> Iterator[str]:
    limits = Limits(sessions=2, lookers=4, strangers=12, strangers_of_one=12, request=1.0, hello=1.0, idle=SHORT)
    with serving(tiny, limits=limits) as address:
        yield address


def test_frames_are_counted_however_they_are_cut() -> None:
    chance = random.Random(1)
    frames = [
        frame(chance.choice((TEXT, BINARY, PING)), bytes(chance.choice((0, 1, 125, 126, 300)))) for _ in range(60)
    ]
    frames.append(frame(BINARY, bytes(66_000)))
    data = b"".join(frames)
    for longest in (1, 2, 7, 100, 70_000, len(data)):
        counter, at, found = FrameCounter(), 0, 0
        while at < len(data):
            size = min(longest, chance.randrange(1, longest + 1))
            found += counter.take(data[at : at + size])
            at += size
            assert not counter.is_attack
        assert found == len(frames)
    # a server's frames have no mask
    assert FrameCounter().take(b"\x81\x02hi\x81\x7e\x00\x80" + bytes(128) + b"\x82\x00") == 3


def test_shreds_and_floods_are_attacks() -> None:
    counter = FrameCounter()
    counter.take(frame(TEXT, b"", final=False))
    for _ in range(63):
        counter.take(frame(0, b"", final=False) + frame(PING, b""))
    assert not counter.is_attack
    counter.take(frame(0, b"", final=False))
    assert counter.is_attack
    fresh = FrameCounter()
    assert fresh.take(frame(PING, b"") * 100_000) == FLOOD + 1 and fresh.is_attack


def test_a_bucket_makes_standstills_good() -> None:
    bucket = Bucket(10.0, 2.0, 0.0)
    assert bucket.take(20, 0.0) and not bucket.take(1, 0.0)
    # ten seconds pass of which eight were a standstill: 20 for the time, 80 for the standstill
    assert bucket.take(99, 10.0, 8.0) and bucket.take(1, 10.0, 8.0) and not bucket.take(1, 10.0, 8.0)
    later = Bucket(10.0, 2.0, 0.0, begin=5.0)
    assert later.take(5, 0.0) and not later.take(1, 0.0) and later.take(20, 50.0) and not later.take(1, 50.0)


def test_bytes_and_frames_a_second_have_limits() -> None:
    # so slow that a moment brings nothing back
    door = Door(Limits(messages_per_second=0.01, bytes_per_second=1, burst=2000.0), Metrics())
    visit = door.enter(Wire())
    assert all(visit.take(1, 10) for _ in range(20)) and not visit.take(1, 10)
    other = door.enter(Wire())
    assert other.take(1, 1500) and not other.take(1, 600) and other.take(1, 400)


def test_who_does_not_read_is_cut_off() -> None:
    door = Door(Limits(outgoing_bytes=1000), Metrics())
    wire_ = Wire()
    outlet = Outlet(wire_, door.enter(wire_), Heading(tls=False))
    outlet.write(b"x" * 900)
    assert not wire_.aborted
    outlet.write(b"x" * 200)
    assert wire_.aborted and b'avgn_refused_total{reason="unread"} 1.0' in door.metrics.text()


def test_those_who_have_waited_longest_make_room() -> None:
    async def crowd() -> None:
        door = Door(Limits(strangers=6, strangers_of_one=4, lookers=2, grace=0.0), Metrics())
        many = [Wire("10.0.0.1") for _ in range(6)]
        for one in many:
            door.enter(one)
        assert [one.aborted for one in many] == [True, True, False, False, False, False]
        other = Wire("10.0.0.2")
        inside = door.enter(other)
        few = [Wire("10.0.0.3") for _ in range(2)]
        for one in few:
            door.enter(one)
        # the address that has most gives way
        assert not other.aborted and not few[0].aborted and sum(one.aborted for one in many) == 3
        inside.enter(Stage.LOOKING)
        endings = [inside.ending()]
        for _ in range(2):
            visit = door.enter(Wire("10.0.0.2"))
            endings.append(visit.ending())
            visit.enter(Stage.LOOKING)
        assert endings[0].done() and endings[0].result().code == wire.FULL and not endings[1].done()

    asyncio.run(crowd())


def test_a_crowd_that_came_at_once_may_speak_first(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr("avgn.runtime.web.door.clock", clock)

    async def crowd() -> None:
        door = Door(Limits(strangers=6, strangers_of_one=4, grace=0.1), Metrics())
        many = [Wire("10.0.0.1") for _ in range(17)]
        visits = [door.enter(one) for one in many]
        # but no more than four times as many as may wait
        assert [one.aborted for one in many] == [True] + 16 * [False]
        visits[1].enter(Stage.ANSWER)
        clock.now += 0.11
        door.make_room()
        # whose request is there is answered
        assert [one.aborted for one in many] == [True, False] + 11 * [True] + 4 * [False]

    asyncio.run(crowd())


def test_whom_a_connection_counts_for() -> None:
    assert address_of(("1.2.3.4", 5)) == "1.2.3.4" == address_of(("::ffff:1.2.3.4", 5, 0, 0))
    assert address_of(("2001:db8::1", 5, 0, 0)) == address_of(("2001:db8::2:3", 5, 0, 0)) == "2001:db8::/64"
    assert address_of(("fe80::1%eth0", 5, 0, 3)) == "fe80::/64" and address_of(None) == "" == address_of(("x",))


def test_silent_connections_keep_nobody_out(small: str) -> None:
    port = int(small.rstrip("/").rsplit(":", 1)[1])
    silent = [socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) for _ in range(40)]
    sockets = [talk(small) for _ in range(20)]
    try:
        assert get(small)[0] == 200 and get(small + "healthz")[0] == 200 and get(small + "metrics")[0] == 200
        with talk(small) as owner:
            owner.send(HELLO)
            assert json.loads(owner.recv(timeout=PATIENCE))["type"] == "hello"
    finally:
        for one in (*silent, *sockets):
            one.close()


def test_no_header_and_no_silence_lasts(small: str) -> None:
    port = int(small.rstrip("/").rsplit(":", 1)[1])
    with contextlib.ExitStack() as stack:
        connections = [socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) for _ in range(2)]
        quiet, slow = map(stack.enter_context, connections)
        begin = time.monotonic()
        with contextlib.suppress(OSError):
            slow.sendall(b"GET / HTTP/1.1\r\n")
            while time.monotonic() < begin + 9.5:
                slow.sendall(b"x: y\r\n")
                time.sleep(0.1)
        assert time.monotonic() < begin + 9
        with contextlib.suppress(ConnectionResetError):
            assert quiet.recv(1) == b""
        # a socket is told
        assert closed(stack.enter_context(talk(small)), 4.5) == wire.IDLE


def test_a_place_is_held_by_pictures_and_sound(small: str) -> None:
    tabs = [talk(small) for _ in range(4)]
    try:
        for tab in tabs:
            tab.send(HELLO)
            assert json.loads(tab.recv(timeout=PATIENCE))["type"] == "hello"
        # two places, four who look, and one who begins
        with Visitor(small) as visitor:
            alive = tabs[-1]
            for _ in range(5):
                visitor.wait(1)
                alive.send(json.dumps({"type": "alive"}))
            assert json.loads(get(small + "healthz")[1])["sessions"] == 1
            alive.send(message(wire.FRAME, 1.0, jpeg()))
            assert json.loads(alive.recv(timeout=PATIENCE))["type"] == "result"
            assert json.loads(get(small + "healthz")[1])["sessions"] == 2
            # who says no more than to be alive loses the place, not the connection
            deadline = time.monotonic() + LONG
            while json.loads(get(small + "healthz")[1])["sessions"] == 2:
                alive.send(json.dumps({"type": "alive"}))
                time.sleep(0.2)
                assert time.monotonic() < deadline
            alive.send(message(wire.FRAME, 500.0, jpeg()))
            assert json.loads(alive.recv(timeout=PATIENCE))["frame"] == 0
            # and a reset gives it back at once
            alive.send(json.dumps({"type": "reset"}))
            while json.loads(get(small + "healthz")[1])["sessions"] == 2:
                time.sleep(0.02)
                assert time.monotonic() < deadline
    finally:
        for tab in tabs:
            tab.close()


def test_resets_are_rare_or_end_the_session(small: str) -> None:
    for kind in ("reset", "sound-end"):
        with talk(small) as one:
            one.send(HELLO)
            one.recv(timeout=PATIENCE)
            with contextlib.suppress(ConnectionClosed):
                # far more than a standstill of seconds makes good
                for _ in range(100):
                    one.send(json.dumps({"type": kind}))
            assert closed(one) == wire.TOO_FAST


def test_more_sound_than_time_ends_the_session(small: str) -> None:
    with talk(small) as one:
        one.send(HELLO)
        one.recv(timeout=PATIENCE)
        with contextlib.suppress(ConnectionClosed):
            for at in range(60):
                one.send(message(wire.SAMPLES, 1.0 + at / 60, bytes(2 * 8000), 8000))
        assert closed(one) == wire.TOO_FAST


def count(url: str, name: str) -> float:
    """A counter of /metrics."""
    lines = get(url + "metrics")[1].decode().splitlines()
    return next((float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name)), 0.0)


def test_bytes_beyond_the_limit_end_the_session(small: str) -> None:
    picture = jpeg(64, 48)
    padded = picture[:2] + 3 * (b"\xff\xfe" + struct.pack(">H", 65_000) + bytes(64_998)) + picture[2:]
    name = f'avgn_closed_total{{code="{wire.TOO_FAST}"}}'
    before = count(small, name)
    # a standstill of the server is made good to whoever it delayed, which may be this visitor: seldom, and never thrice
    for _ in range(3):
        attack = Attack(int(small.rstrip("/").rsplit(":", 1)[1]), "", time.monotonic() + 20)
        # far fewer messages than may come
        with attack.upgraded() as one:
            for at in range(150):
                one.sendall(frame(BINARY, message(wire.FRAME, 1.0 + at / 1000, padded)))
        deadline = time.monotonic() + LONG
        while time.monotonic() < deadline:
            if count(small, name) > before:
                return
            time.sleep(0.05)
    raise AssertionError("nobody was closed for too many bytes")


def test_large_messages_end_the_session_also_in_fragments(small: str) -> None:
    for pieces in ([bytes(300_000)], [[bytes(100_000)] * 3]):
        with talk(small) as one:
            one.send(HELLO)
            one.recv(timeout=PATIENCE)
            for piece in pieces:
                one.send(piece)
            assert closed(one) == wire.TOO_BIG


def _has_more(honest: Honest, count: int) -> bool:
    return len(honest.latency) >= count


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the server's process is looked at in /proc")
@pytest.mark.parametrize("seconds", [4.0, pytest.param(15.0, marks=pytest.mark.soak)])
def test_our_own_standstill_ends_nobody(seconds: float) -> None:
    """The server's process is stopped for longer than it waits for messages, and than clocks may differ."""
    with process("--idle-timeout", "2") as server, Honest(server, fps=15) as honest:
        for stopped in (0.0, seconds):
            os.kill(server.process.pid, signal.SIGSTOP)
            time.sleep(stopped)
            os.kill(server.process.pid, signal.SIGCONT)
            until(partial(_has_more, honest, len(honest.latency) + 30), going_on=lambda: not honest.ended)


def test_wrong_hello_with_a_token_is_told_apart(tiny: Localizer) -> None:
    with serving(tiny, token=TOKEN, limits=Limits(token_delay=0.01)) as address, talk(address) as one:
        one.send(json.dumps({"type": "hello", "version": 9, "token": TOKEN}))
        assert closed(one) == wire.POLICY
