"""The limits of a server as they are without options, and what a bucket lets through."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, asdict

import pytest

from avgn.runtime.errors import InputError
from avgn.runtime.web.limits import LONGEST_STALL, Bucket, Limits


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
