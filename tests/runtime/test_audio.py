from __future__ import annotations

import numpy as np
import pytest
import scipy.signal

from avgn.runtime.audio import (
    Resampler,
    count_clipped,
    fit_window,
    loudness_db,
    replace_non_finite,
    resample,
    to_float,
    to_mono,
)
from avgn.runtime.clock import AudioClock
from avgn.runtime.image import resize, upsample_map

RATES = [8000, 11025, 16000, 22050, 44099, 44100, 48000, 96000]


@pytest.mark.parametrize("rate", RATES)
def test_passband_tones_agree_with_scipy(rate: int) -> None:
    time = np.arange(rate) / rate
    divisor = np.gcd(rate, 22050)
    up, down = 22050 // divisor, rate // divisor
    # SciPy's default filter is short; a long one is the reference
    taps = scipy.signal.firwin(2 * 64 * max(up, down) + 1, 0.93 / max(up, down), window=("kaiser", 9.0))
    for frequency in (50, 440, 1000, 0.4 * min(rate, 22050)):
        tone = np.sin(2 * np.pi * frequency * time).astype(np.float32)
        ours = resample(tone, rate, 22050)
        assert ours.dtype == np.float32 and len(ours) == -(-len(tone) * 22050 // rate)
        theirs = scipy.signal.resample_poly(tone.astype(np.float64), up, down, window=taps)
        middle = slice(1500, -1500)
        assert np.abs(ours[middle] - theirs[: len(ours)][middle]).max() < 1e-3
        exact = np.sin(2 * np.pi * frequency * np.arange(len(ours)) / 22050)
        assert np.abs(ours[middle] - exact[middle]).max() < 1e-4


@pytest.mark.parametrize("rate", [44100, 48000, 96000])
def test_what_can_not_be_kept_is_removed(rate: int) -> None:
    tone = np.sin(2 * np.pi * 13000 * np.arange(rate) / rate).astype(np.float32)
    assert np.abs(resample(tone, rate, 22050)[1500:-1500]).max() < 1e-3


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("limit", [1, 7, 5000])
def test_any_chunking_gives_the_same_bits(rate: int, limit: int) -> None:
    rng = np.random.default_rng(rate + limit)
    signal = rng.standard_normal(1500 if limit == 1 else 30011).astype(np.float32)
    resampler, parts, at = Resampler(rate, 22050), [], 0
    while at < len(signal):
        count = int(rng.integers(0, limit + 1))
        parts.append(resampler.push(signal[at : at + count]))
        at += count
    parts.append(resampler.flush())
    assert np.array_equal(np.concatenate(parts), resample(signal, rate, 22050))


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("count", [0, 1, 60, 12347])
def test_pushed_silence_equals_zeros(rate: int, count: int) -> None:
    signal = np.random.default_rng(0).standard_normal(9000).astype(np.float32)
    resampler = Resampler(rate, 22050)
    parts = [resampler.push(signal[:4000])]
    head, zeros = resampler.push_silence(count)
    parts += [head, np.zeros(zeros, np.float32), resampler.push(signal[4000:]), resampler.flush()]
    whole = np.concatenate([signal[:4000], np.zeros(count, np.float32), signal[4000:]])
    assert np.array_equal(np.concatenate(parts), resample(whole, rate, 22050))


def test_mono_and_pcm() -> None:
    stereo = np.array([[1.0, 0.0], [0.5, -0.5]], np.float32)
    assert np.array_equal(to_mono(stereo), np.array([0.5, 0.0], np.float32))
    assert np.array_equal(to_float(np.array([-32768, 16384], np.int16)), np.array([-1, 0.5], np.float32))
    assert np.array_equal(to_float(np.array([0, 128, 192], np.uint8)), np.array([-1, 0, 0.5], np.float32))
    assert np.array_equal(to_float(np.array([-(2**31), 2**30], np.int32)), np.array([-1, 0.5], np.float32))
    with pytest.raises(ValueError, match=r"audio must be \[T\] or \[T, C\]"):
        to_mono(np.zeros((2, 2, 2), np.float32))


def test_fit_window_tiles_and_crops() -> None:
    clip = np.arange(5, dtype=np.float32)
    assert fit_window(clip, 12).tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1]
    assert fit_window(clip, 3).tolist() == [1, 2, 3]
    # one more sample is left at the end where they can't be even
    assert fit_window(clip, 2).tolist() == [1, 2] and fit_window(clip, 4).tolist() == [0, 1, 2, 3]
    assert fit_window(clip, 5).tolist() == [0, 1, 2, 3, 4] and fit_window(clip, 1).tolist() == [2]
    with pytest.raises(ValueError, match="a clip must be"):
        fit_window(clip[:0], 3)


def test_levels_and_bad_samples() -> None:
    assert loudness_db(np.ones(10, np.float32)) == pytest.approx(0)
    assert loudness_db(np.zeros(10, np.float32)) == -200
    clean, bad = replace_non_finite(np.array([1, np.nan, np.inf, -np.inf, 0.5], np.float32))
    assert bad == 3 and clean.tolist() == [1, 0, 0, 0, 0.5]
    assert count_clipped(np.array([1.2, -1, 0.9, 0], np.float32)) == 2


@pytest.mark.parametrize("rate", [22050, 44100, 48000])
def test_clock_places_late_starts_gaps_and_overlaps(rate: int) -> None:
    signal = np.random.default_rng(1).standard_normal(2 * rate).astype(np.float32)
    clock = AudioClock(22050)
    clock.push(signal[:rate], rate, 0.5)
    # two seconds missing, then a block that repeats the last tenth of a second
    clock.push(signal[rate : rate + rate // 2], rate, 3.5)
    again = rate + rate // 2 - rate // 10
    clock.push(signal[again:], rate, 4.0 - (rate // 10) / rate)
    clock.close()
    rest = signal[rate + rate // 2 :]
    zeros = np.zeros
    whole = np.concatenate(
        [zeros(rate // 2), signal[:rate], zeros(2 * rate), signal[rate : rate + rate // 2], rest]
    ).astype(np.float32)
    expected = resample(whole, rate, 22050)
    assert clock.end == len(expected)
    assert np.array_equal(clock.window(-100, len(expected) + 200)[100:-100], expected)


def test_a_gap_of_days_costs_nothing() -> None:
    clock = AudioClock(22050)
    clock.push(np.ones(4800, np.float32), 48000, 0.0)
    clock.push(np.ones(4800, np.float32), 48000, 1e6)
    assert clock.end > 0.9e6 * 22050 and clock.window(22050 * 1000, 100).max() == 0


def test_clock_ignores_timestamp_jitter_and_cuts_what_is_before_zero() -> None:
    signal = np.random.default_rng(2).standard_normal(22050).astype(np.float32)
    clock = AudioClock(22050)
    for first in range(0, 22050, 1000):
        clock.push(signal[first : first + 1000], 22050, first / 22050 + (0.002 if first % 2000 else -0.002))
    assert np.array_equal(clock.window(0, 22050), signal)
    clock = AudioClock(22050)
    clock.push(signal, 22050, -0.5)
    assert np.array_equal(clock.window(0, 11025), signal[11025:])


@pytest.mark.parametrize(("jump", "heard"), [(0.009, 0), (0.011, 1), (0.015, 1), (0.1, 1), (-0.009, 0), (-0.011, -1)])
def test_jumps_from_ten_milliseconds_on_count(jump: float, heard: int) -> None:
    signal = np.random.default_rng(3).standard_normal(20_000).astype(np.float32)
    clock = AudioClock(22050)
    clock.push(signal[:10_000], 22050, 0.0)
    clock.push(signal[10_000:], 22050, 10_000 / 22050 + jump)
    moved = round(abs(jump) * 22050) * heard
    assert clock.end == 20_000 + moved
    if heard > 0:
        assert not clock.window(10_000, moved).any() and np.array_equal(
            clock.window(10_000 + moved, 10_000), signal[10_000:]
        )
    else:
        assert np.array_equal(clock.window(10_000, 10_000 + moved), signal[10_000 - moved :])


@pytest.mark.parametrize("size", [(224, 224), (360, 640), (3, 5), (7, 9), (13, 4)])
def test_upsampling_is_torchs_bilinear(size: tuple[int, int]) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed: avgn[train]")
    maps = np.random.default_rng(0).standard_normal((5, 7, 9)).astype(np.float32)
    theirs = torch.nn.functional.interpolate(torch.tensor(maps)[None], size=size, mode="bilinear", align_corners=False)
    assert np.abs(upsample_map(maps, size) - theirs[0].numpy()).max() < 1e-5
    assert np.array_equal(upsample_map(maps[0], size), upsample_map(maps, size)[0])


def test_resize_averages_when_shrinking_and_interpolates_when_growing() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed: avgn[train]")
    rgb = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    means = rgb.reshape(10, 4, 15, 4, 3).mean(axis=(1, 3))
    assert np.abs(resize(rgb, (10, 15)) - means).max() <= 0.51
    grown = torch.nn.functional.interpolate(
        torch.tensor(rgb.transpose(2, 0, 1)[None], dtype=torch.float32), size=(97, 131), mode="bilinear"
    )
    assert np.abs(resize(rgb, (97, 131)) - grown[0].numpy().transpose(1, 2, 0)).max() <= 1.01
    mixed = resize(rgb, (10, 131))
    assert mixed.shape == (10, 131, 3) and np.array_equal(resize(rgb, (40, 60)), rgb)
    with pytest.raises(ValueError, match=r"a frame must be uint8 \[H, W, 3\], got float32"):
        resize(rgb.astype(np.float32), (4, 4))  # type: ignore[arg-type]
