"""The limits of a server as they are without options, and what a bucket lets through."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, asdict

import pytest

from avgn.runtime.errors import InputError
from avgn.runtime.web import pace, seldom
from avgn.runtime.web.limits import LONGEST_STALL, Bucket, Limits
from tests.patience import Clock


def test_limits_without_options() -> None:
    assert asdict(Limits()) == {
        "sessions": 8,
        "lessons_per_second": 1.0,
        "lesson_burst": 10.0,
        "lookers": 64,
        "strangers": 256,
        "strangers_of_one": 48,
        "grace": 0.5,
        "request": 10.0,
        "answer": 30.0,
        "hello": 5.0,
        "idle": 30.0,
        "send": 10.0,
        "clock": 10.0,
        "message_bytes": 262_144,
        "header_bytes": 16_384,
        "outgoing_bytes": 524_288,
        "messages_per_second": 150.0,
        "bytes_per_second": 3e6,
        "burst": 4.0,
        "frames_per_second": 60.0,
        "pixels_per_second": 10e6,
        "fair_frames": 34.0,
        "fair_pixels": 3.5e6,
        "audio_rate": 1.1,
        "audio_burst": 15.0,
        "audio_begin": 3.0,
        "resets_per_second": 1.0,
        "reset_burst": 10.0,
        "requests_per_second": 100.0,
        "request_burst": 300.0,
        "sockets_per_second": 40.0,
        "socket_burst": 100.0,
        "token_delay": 0.5,
    }
    assert LONGEST_STALL == 120


def test_a_server_for_nobody_is_refused() -> None:
    with pytest.raises(InputError):
        Limits(sessions=0)
    for idle in (0.0, -0.5):
        with pytest.raises(InputError):
            Limits(idle=idle)
    assert (Limits(sessions=1).sessions, Limits(idle=0.5).idle) == (1, 0.5)


def test_limits_are_named_and_stay_as_they_are() -> None:
    with pytest.raises(TypeError):
        Limits(3)  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        Limits().sessions = 3  # type: ignore[misc]


def test_a_bucket_fills_with_time_and_with_our_own_standstill() -> None:
    bucket = Bucket(10.0, 2.0, now=100.0)
    assert bucket.take(20, 100.0) and not bucket.take(0.5, 100.0)
    assert not bucket.take(5.5, 100.5) and bucket.take(5, 100.5)
    # never more than the burst
    assert bucket.take(20, 200.0) and not bucket.take(1, 200.0)
    # two seconds in which the server stood still are made good, once
    assert bucket.take(20, 200.0, stalled=2.0) and not bucket.take(1, 200.0, stalled=2.0)


def test_strangers_of_a_thousand_kinds_are_remembered_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Addresses are free: whoever comes from ever new ones must not fill the memory."""
    now = Clock()
    for module in (pace, seldom):
        monkeypatch.setattr(module, "clock", now)
    turns, lines = pace.Pace(1.0, 0, 100.0), seldom.Seldom()
    for number in range(3000):
        turns.wait(str(number))
        lines.count(str(number))
    assert len(turns._next) == len(lines._seen) == 1000
    # the ones not seen for longest are forgotten
    assert turns.wait("2999") > turns.wait("0") and lines.count("0") == 1


def test_a_line_is_said_every_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = Clock()
    monkeypatch.setattr(seldom, "clock", now)
    lines, said = seldom.Seldom(), []
    for _ in range(100):
        said.append(lines.count("a wrong token"))
        now.now += 0.5
    assert [at / 2 for at, times in enumerate(said) if times] == [0, 10, 20, 30, 40]
    assert [times for times in said if times] == [1, 20, 20, 20, 20]
