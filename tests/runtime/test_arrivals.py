"""Times of a stream's pictures and sound, by its own clock or by their arrival."""

from __future__ import annotations

import numpy as np
import pytest

from avgn.runtime.sources.drift import CaptureClock
from avgn.runtime.sources.times import Times, WallClock
from tests.runtime.stamped import RATE


@pytest.mark.parametrize("speed", [0.4, 0.8, 1.3, 2.5])
def test_a_clock_of_another_speed_ends_with_arrivals(speed: float, caplog: pytest.LogCaptureFixture) -> None:
    now = 100.0
    times, found, came = Times(WallClock(lambda: now)), [], []
    for index in range(1000):
        now = 100 + index / 20
        found.append(times.frame(7 + index * speed / 20))
        came.append(now - 100)
    assert found == sorted(found)
    half = slice(500, None)
    np.testing.assert_allclose(np.diff(found[half]), np.diff(came[half]), atol=1e-9)
    assert caplog.text.count("does not keep time") == 1


def test_a_network_that_stands_still_and_catches_up_is_believed() -> None:
    """Three seconds of nothing, then all of it at once: then times are those of the stream again."""
    now = 0.0
    times, found = Times(WallClock(lambda: now)), []
    for index in range(500):
        sent = index / 25
        now = 13.0 if 10 <= sent < 13 else sent
        found.append(times.frame(500 + sent))
    np.testing.assert_allclose(np.diff(found[380:]), 1 / 25, atol=1e-6)
    assert found == sorted(found) and found[-1] == pytest.approx(499 / 25, abs=0.05)


def test_what_was_read_while_connecting_keeps_its_times() -> None:
    """A burst of a second: the pictures keep their distances, and the wall clock is that of the newest."""
    now = 50.0
    wall = WallClock(lambda: now)
    times = Times(wall)
    found = [times.frame(index / 25) for index in range(25)]
    assert found == pytest.approx([index / 25 for index in range(25)])
    assert wall() == pytest.approx(24 / 25)
    now = 50.04
    assert times.frame(1.0) == pytest.approx(1.0)


def test_a_server_that_kept_seconds_for_newcomers_is_believed(caplog: pytest.LogCaptureFixture) -> None:
    """Ten seconds at ten times their speed, which takes one, then as they come: each keeps its own time."""
    now = 50.0
    wall = WallClock(lambda: now)
    times, found = Times(wall), []
    for index in range(500):
        sent = index / 25
        now = 50 + (sent / 10 if sent < 10 else 1 + sent - 10)
        found.append(times.frame(7 + sent))
    np.testing.assert_allclose(found, np.arange(500) / 25, atol=1e-6)
    assert wall() == pytest.approx(found[-1], abs=0.1) and not caplog.text


def test_sound_without_timestamps_follows_its_arrival() -> None:
    now = 10.0
    times, found = Times(WallClock(lambda: now)), []
    rng = np.random.default_rng(0)
    for index in range(300):
        now = 10 + (index + 1) * 0.064 + rng.uniform(0, 0.03)
        found.append(times.audio(None, 1024, RATE))
    steps = np.diff(found[100:])
    assert steps.mean() == pytest.approx(0.064, rel=0.01) and steps.std() < 0.003


def test_sound_without_timestamps_begins_before_it_arrives_and_may_change_its_rate() -> None:
    """A block is there when its last sample was captured: its first one is its length earlier."""
    now = 10.0
    times = Times(WallClock(lambda: now))
    found, began = [], []
    for index in range(200):
        rate, samples = (RATE, 1024) if index < 100 else (2 * RATE, 512)
        found.append(times.audio(None, samples, rate))
        began.append(now - 10 - samples / rate)
        now += 1024 / RATE if index < 99 else 512 / (2 * RATE)
    np.testing.assert_allclose(found, began, atol=1e-6)


def test_pictures_never_run_backwards() -> None:
    now = 0.0
    times, found = Times(WallClock(lambda: now)), []
    for stamp in (5.0, 5.04, 4.7, 5.02, 5.08):
        found.append(times.frame(stamp))
        now += 0.04
    assert found == pytest.approx([0.0, 0.04, 0.04, 0.04, 0.08])


def test_what_is_from_before_a_jump_keeps_its_time_after_it(caplog: pytest.LogCaptureFixture) -> None:
    """Sound and pictures of one stream come to its new clock one after the other."""
    now = 0.0
    times, pictures, sounds = Times(WallClock(lambda: now)), [], []
    for index in range(100):
        now = index / 25
        pictures.append(times.frame(now if index < 50 else 1000 + now))
        # the sound is four pictures late
        late = now - 4 / 25
        if index >= 4:
            sounds.append(times.audio(late if index < 54 else 1000 + late, 1764, 44100))
    np.testing.assert_allclose(pictures, np.arange(100) / 25, atol=1e-6)
    np.testing.assert_allclose(sounds, np.arange(96) / 25, atol=1e-6)
    assert caplog.text.count("jumped by 1000.0 s") == 1 and caplog.text.count("jumped") == 1


def test_a_server_that_sends_more_than_newcomers_need_is_not_believed(caplog: pytest.LogCaptureFixture) -> None:
    """A hundred seconds at twenty times their speed: up to thirty are what was kept, the rest a clock that jumps."""
    now = 50.0
    times = Times(WallClock(lambda: now))
    for index in range(2500):
        now = 50 + index / 500
        times.frame(index / 25)
    assert caplog.text


@pytest.mark.parametrize(("late", "jumps"), [(0.2, 0), (0.3, 1)])
def test_a_quarter_of_a_second_is_no_jitter(late: float, jumps: int) -> None:
    device = CaptureClock(8000)
    for index in range(100):
        device.block(160, index * 0.02)
    time = device.block(160, 100 * 0.02 + late)
    assert device.jumps == jumps
    assert time == pytest.approx(2.0 + late if jumps else 2.0, abs=0.02)


def test_no_devices_rate_is_believed_to_be_off_by_more_than_two_percent() -> None:
    """Blocks that come ever earlier are a backlog that is handed over, no fast device."""
    device = CaptureClock(8000)
    for index in range(300):
        device.block(160, index * 0.02 * 0.9)
    assert device.drift == pytest.approx(0.02)
