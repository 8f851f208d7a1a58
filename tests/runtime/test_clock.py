"""The clock of a stream's sound: what it counts, where it puts what comes, and what it lets go of."""

from __future__ import annotations

import numpy as np
import pytest

from avgn.runtime.audio import resample
from avgn.runtime.clock import CRUMB, TOLERANCE, AudioClock

RATE = 16_000
SOUND = np.random.default_rng(0).uniform(-0.5, 0.5, 3 * RATE).astype(np.float32)


def clock_of(*blocks: tuple[float, int, int]) -> AudioClock:
    """A clock at RATE that was given SOUND[first:end] at each time."""
    clock = AudioClock(RATE)
    for time, first, end in blocks:
        clock.push(SOUND[first:end], RATE, time)
    return clock


def test_a_new_clock_has_heard_nothing() -> None:
    clock = AudioClock(RATE)
    assert (clock.sample_rate, clock.end, clock.closed) == (RATE, 0, False)
    assert (clock.samples_in, clock.non_finite, clock.clipped, clock.peak) == (0, 0, 0, 0.0)
    assert not clock.window(-5, 10).any() and clock.window(-5, 10).shape == (10,)
    assert TOLERANCE == 0.01


def test_samples_clipped_ones_and_those_that_are_not_finite_are_counted_over_all_blocks() -> None:
    clock = AudioClock(RATE)
    first, second = np.full(100, 0.25, np.float32), np.full(50, -0.5, np.float32)
    first[:7] = 1.0
    first[10:13] = np.nan
    second[:2] = -1.5
    second[4] = np.inf
    clock.push(first, RATE, 0.0)
    assert (clock.samples_in, clock.clipped, clock.non_finite, clock.peak) == (100, 7, 3, 1.0)
    clock.push(second, RATE, 100 / RATE)
    assert (clock.samples_in, clock.clipped, clock.non_finite, clock.peak) == (150, 9, 4, 1.5)
    clock.push(np.full(50, 0.1, np.float32), RATE, 150 / RATE)
    assert (clock.samples_in, clock.clipped, clock.non_finite, clock.peak) == (200, 9, 4, 1.5)
    # they are heard as silence; a silence that was filled in is no sample
    assert not clock.window(10, 3).any() and clock.window(13, 1)[0] == np.float32(0.25)
    clock.push(np.full(10, 0.1, np.float32), RATE, 5.0)
    assert clock.samples_in == 210 and clock.end == 5 * RATE + 10


@pytest.mark.parametrize("jump", [0.0099, -0.0099])
def test_jitter_of_up_to_ten_milliseconds_moves_nothing(jump: float) -> None:
    clock = clock_of((0.0, 0, 4000), (4000 / RATE + jump, 4000, 8000))
    assert clock.end == 8000 and np.array_equal(clock.window(0, 8000), SOUND[:8000])
    # nor does it add up: each block is compared with what was heard, not with the block before
    clock = AudioClock(RATE)
    for first in range(0, 40_000, 800):
        clock.push(SOUND[first : first + 800], RATE, first / RATE + jump)
    assert clock.end == 40_000 and np.array_equal(clock.window(0, 40_000), SOUND[:40_000])


def test_a_gap_is_silence_of_its_length_and_an_overlap_is_left_out() -> None:
    clock = clock_of((0.0, 0, 4000), (0.5, 4000, 8000))
    assert clock.end == 12_000
    assert np.array_equal(clock.window(0, 4000), SOUND[:4000]) and not clock.window(4000, 4000).any()
    assert np.array_equal(clock.window(8000, 4000), SOUND[4000:8000])
    clock.push(SOUND[6000:10_000], RATE, 10_000 / RATE)
    assert clock.end == 14_000 and np.array_equal(clock.window(8000, 6000), SOUND[4000:10_000])
    # a block that lies before what was heard leaves nothing, not a negative rest
    clock.push(SOUND[:1000], RATE, 0.1)
    assert clock.end == 14_000


def test_sound_before_zero_is_cut_off_and_a_late_start_is_preceded_by_silence() -> None:
    early, late = clock_of((-0.25, 0, 8000)), clock_of((0.25, 0, 8000))
    assert early.end == 4000 and np.array_equal(early.window(0, 4000), SOUND[4000:8000])
    assert late.end == 12_000 and not late.window(0, 4000).any()
    assert np.array_equal(late.window(4000, 8000), SOUND[:8000])


def test_a_window_holds_what_lies_in_it_and_zeros_outside() -> None:
    clock = clock_of((0.0, 0, 6000), (0.5, 6000, 12_000))
    truth = np.zeros(20_000, np.float32)
    truth[1000:7000], truth[9000:15_000] = SOUND[:6000], SOUND[6000:12_000]
    for start, length in (
        (-1000, 20_000),
        (-1000, 1000),
        (-1000, 1001),
        (5999, 2),
        (6500, 100),
        (9000, 100),
        (13_990, 50),
    ):
        assert np.array_equal(clock.window(start, length), truth[1000 + start : 1000 + start + length]), start


def test_what_lies_wholly_before_is_forgotten_and_nothing_else() -> None:
    clock = clock_of((0.0, 0, 5000), (0.5, 5000, 10_000), (1.0, 10_000, 15_000))
    clock.forget(4999)
    assert np.array_equal(clock.window(0, 5000), SOUND[:5000])
    clock.forget(5000)
    assert not clock.window(0, 8000).any() and np.array_equal(clock.window(8000, 5000), SOUND[5000:10_000])
    clock.forget(12_999)
    assert np.array_equal(clock.window(8000, 5000), SOUND[5000:10_000])
    short = clock_of((0.0, 0, 9000), (1.0, 9000, 9100))
    short.forget(8000)
    assert np.array_equal(short.window(0, 9000), SOUND[:9000])
    clock.forget(100_000)
    assert not clock.window(0, 30_000).any() and clock.end == 21_000
    # and it goes on where it was
    clock.push(SOUND[15_000:16_000], RATE, 21_000 / RATE)
    assert np.array_equal(clock.window(21_000, 1000), SOUND[15_000:16_000])


@pytest.mark.parametrize("size", [1, 100, 4095, 4096, 5000])
def test_crumbs_are_joined_until_they_are_large(size: int) -> None:
    clock = AudioClock(RATE)
    for first in range(0, 20 * size, size):
        clock.push(SOUND[first % RATE : first % RATE + size], RATE, first / RATE)
    pieces = [len(samples) for _, samples in clock._segments]
    assert sum(pieces) == clock.end == 20 * size
    assert all(piece >= CRUMB for piece in pieces[:-1]) and len(pieces) <= -(-20 * size // CRUMB)
    assert max(pieces) < CRUMB + size and CRUMB == 4096
    starts = np.cumsum([0, *pieces[:-1]])
    assert [first for first, _ in clock._segments] == starts.tolist()


def test_sound_after_a_gap_begins_a_piece_of_its_own() -> None:
    clock = clock_of((0.0, 0, 100), (0.1, 100, 200), (0.1 + 100 / RATE, 200, 300))
    assert [(first, len(samples)) for first, samples in clock._segments] == [(0, 100), (1600, 200)]


def test_another_rate_goes_on_where_the_first_one_ended() -> None:
    clock = clock_of((0.0, 0, 8000))
    other = np.sin(np.arange(24_000) * 0.05).astype(np.float32)
    clock.push(other[:12_000], 24_000, 0.5)
    clock.push(other[12_000:], 24_000, 1.0)
    clock.close()
    assert clock.closed and clock.end == 8000 + 16_000 and clock.samples_in == 8000 + 24_000
    assert np.array_equal(clock.window(0, 8000), SOUND[:8000])
    assert np.array_equal(clock.window(8000, 16_000), resample(other, 24_000, RATE))
    # and a gap after a change is measured from there
    clock = clock_of((0.0, 0, 8000))
    clock.push(other, 24_000, 0.5)
    clock.push(other, 24_000, 2.0)
    clock.close()
    assert clock.end == 2 * RATE + 16_000


def test_stereo_that_waits_for_its_correlation_is_counted_as_heard() -> None:
    stereo = np.stack([SOUND, SOUND], axis=1)
    clock = AudioClock(RATE)
    # less than a block: the mix waits
    clock.push(stereo[:2000], RATE, 0.0)
    assert clock.end == 0 and clock.samples_in == 0
    clock.push(stereo[2000:3000], RATE, 2000 / RATE)
    clock.push(stereo[3000:4000], RATE, 1.0)
    clock.close()
    assert clock.end == RATE + 1000 and clock.samples_in == 4000
    np.testing.assert_allclose(clock.window(0, 3000), SOUND[:3000], atol=1e-7)
    assert not clock.window(3000, RATE - 3000).any()
    np.testing.assert_allclose(clock.window(RATE, 1000), SOUND[3000:4000], atol=1e-7)


def test_closing_twice_or_without_sound_is_harmless() -> None:
    clock = AudioClock(RATE)
    clock.close()
    clock.close()
    assert clock.closed and clock.end == 0
