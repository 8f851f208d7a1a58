"""What files merely claim costs neither memory nor time: each in a process of its own, whose memory is measured."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.signal
from scipy.io import wavfile

from avgn.runtime import InputError, open_media
from avgn.runtime.audio import fit_window, resample, resample_span, to_mono
from avgn.runtime.clock import AudioClock
from avgn.runtime.limits import MAX_PIXELS, usable_fps, waiting_frames
from avgn.runtime.reading import read_clip, read_frame, read_part, read_wav
from tests.runtime.clips import Scene, write_clip
from tests.runtime.ffmpeg import ffmpeg, make_clip, needs_ffmpeg

ROOT = Path(__file__).parents[2]
SCENE = Scene(seen={0: (0.25, 0.3)}, heard=(0,))

RUN = """
import json, resource, sys, time
from pathlib import Path
import numpy as np
from avgn.runtime import InputError, open_media, localize_file, Localizer
from avgn.runtime.reading import read_clip, read_frame, read_part, read_wav
from avgn.runtime.image import import_cv2
from avgn.runtime.clock import AudioClock
import_cv2()
import av
localizer = Localizer.load("tiny", threads=1) if "localiz" in sys.argv[1] else None
idle, begin, said = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time(), None
try:
    exec(sys.argv[1])
except InputError as error:
    said = str(error)
print(json.dumps({"said": said, "mb": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - idle) / 1024,
                  "seconds": time.process_time() - begin}))
"""


def measure(code: str) -> tuple[str | None, float, float]:
    """What it said, MB of memory beyond those of an idle process, seconds of the processor."""
    done = subprocess.run(
        [sys.executable, "-c", RUN, code], check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT, timeout=120
    )
    found = json.loads(done.stdout.splitlines()[-1])
    return found["said"], found["mb"], found["seconds"]


def claim_rate(path: Path, rate: int, channels: int = 1, samples: int = 44100) -> Path:
    data = np.zeros(samples * min(channels, 2), "<i2").tobytes()
    form = struct.pack("<HHIIHH", 1, channels, rate, rate * 2 * channels & 0xFFFFFFFF, 2 * channels & 0xFFFF, 16)
    body = b"WAVEfmt " + struct.pack("<I", 16) + form + b"data" + struct.pack("<I", len(data)) + data
    path.write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)
    return path


RATES = "sound of 1000 to 768000 Hz can be used, so resample it or mend its header"


@pytest.mark.parametrize("rate", [1, 10, 999, 768_001, 999_983, 2**31 - 1])
def test_sound_that_claims_an_impossible_rate(tmp_path: Path, rate: int) -> None:
    sound = claim_rate(tmp_path / "s.wav", rate)
    for reader in (f"read_clip(Path({str(sound)!r}), 22050, 22050)", f"read_wav(Path({str(sound)!r}))"):
        said, memory, seconds = measure(reader)
        assert said == f"audio {sound} claims a sample rate of {rate} Hz: {RATES}"
        assert memory < 60 and seconds < 5
    with pytest.raises(InputError, match="claims a sample rate"):
        AudioClock(22050).push(np.zeros(10, np.float32), rate, 0.0)


def test_a_video_whose_sound_claims_an_impossible_rate(tmp_path: Path) -> None:
    frames = [SCENE.frame(48, 64)] * 10
    how = {"video_codec": "mjpeg", "audio_codec": "pcm_s16le", "ticks": 0, "fps": 10}
    clip = write_clip(tmp_path / "c.avi", frames, [n / 10 for n in range(10)], SCENE.sound(1.0, 8000), 8000, **how)  # type: ignore[arg-type]
    data = bytearray(clip.read_bytes())
    at = data.index(b"auds")
    form = data.index(b"strf", at) + 8
    data[form + 4 : form + 8] = (999_983).to_bytes(4, "little")
    clip.write_bytes(data)
    said, memory, seconds = measure(f"localize_file(localizer, {str(clip)!r})")
    assert said == f"{clip} claims a sample rate of 999983 Hz: {RATES}"
    assert memory < 100 and seconds < 10


def test_sound_that_claims_too_many_channels(tmp_path: Path) -> None:
    sound = claim_rate(tmp_path / "s.wav", 44100, channels=30_000)
    said, memory, _ = measure(f"read_clip(Path({str(sound)!r}), 22050, 22050)")
    assert said is not None and "claims 30000 channels of sound: 1 to 64 can be used" in said and memory < 60


@pytest.mark.parametrize("rate", [767_999, 1_009])
def test_odd_rates_cost_little_and_are_exact(tmp_path: Path, rate: int) -> None:
    """Rates without a common divisor once had a filter of their own for each of 22,050 phases."""
    code = f"AudioClock(22050).push(np.ones({rate}, np.float32), {rate}, 0.0)"
    said, memory, seconds = measure(code)
    assert said is None and memory < 200 and seconds < 20
    frequency = 200.0
    tone = np.sin(2 * np.pi * frequency * np.arange(rate) / rate).astype(np.float32)
    found = resample(tone[: rate // 2], rate, 22050)
    exact = np.sin(2 * np.pi * frequency * np.arange(len(found)) / 22050)
    assert np.abs(found - exact)[3000:-3000].max() < 1e-4


@pytest.fixture(scope="module")
def huge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One picture of a hundred million pixels, in less than a megabyte."""
    clip = tmp_path_factory.mktemp("huge") / "c.mp4"
    ffmpeg(
        *("-f", "lavfi", "-i", "color=gray:s=10000x10000:r=5", "-frames:v", "1", "-c:v", "libx264"),
        *("-preset", "ultrafast", "-threads", "1", clip),
    )
    return clip


@needs_ffmpeg
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_pictures_that_are_too_large(tmp_path: Path, huge: Path, suffix: str) -> None:
    clip = tmp_path / f"c.{suffix}"
    ffmpeg("-i", huge, "-c", "copy", clip)
    ffmpeg("-f", "lavfi", "-i", "sine=440:r=8000:d=1", tmp_path / "s.wav")
    said, memory, seconds = measure(f"open_media({str(clip)!r}, {str(tmp_path / 's.wav')!r})")
    assert said == (
        f"{clip} has pictures of 10000x10000 pixels: up to 40 million pixels can be used (8K is 35 million), "
        "so scale it down first"
    )
    assert memory < 100 and seconds < 10


@needs_ffmpeg
def test_a_picture_that_turns_out_larger_than_its_container_says(tmp_path: Path) -> None:
    """The decoder itself is limited: the container's size is only a claim."""
    small = make_clip(tmp_path / "c.avi", "-c:a", "pcm_s16le", "-c:v", "mjpeg", seconds=0.5)
    large = tmp_path / "large.jpg"
    ffmpeg("-f", "lavfi", "-i", "color=gray:s=9000x9000", "-frames:v", "1", large)
    data = bytearray(small.read_bytes())
    at = data.index(b"00dc")
    picture = large.read_bytes()
    data[at + 4 : at + 8] = len(picture).to_bytes(4, "little")
    clip = tmp_path / "d.avi"
    clip.write_bytes(bytes(data[: at + 8]) + picture)
    ffmpeg("-f", "lavfi", "-i", "sine=440:r=8000:d=1", tmp_path / "s.wav")
    said, memory, _ = measure(f"list(open_media({str(clip)!r}, {str(tmp_path / 's.wav')!r}).video())")
    assert said is not None and memory < 150


@needs_ffmpeg
def test_a_large_still_is_refused_by_the_decoder(tmp_path: Path) -> None:
    large = tmp_path / "large.png"
    ffmpeg("-f", "lavfi", "-i", "color=gray:s=12000x12000", "-frames:v", "1", "-pix_fmt", "gray", large)
    said, memory, seconds = measure(f"read_frame(Path({str(large)!r}), (224, 224))")
    assert said == f"frame {large} has more than 128 million pixels: scale it down first"
    assert memory < 100 and seconds < 10


def test_large_pictures_wait_in_short_lines() -> None:
    assert MAX_PIXELS >= 8192 * 4320
    assert waiting_frames(1920, 1080, 8) == 8 and waiting_frames(3840, 2160, 8) == 5
    assert waiting_frames(8192, 4320, 8) == 1 and waiting_frames(1, 1, 4) == 4
    assert usable_fps(None, 0.0, 1e6, 50.0, default=25.0) == 50 and usable_fps(0.001, default=25.0) == 1
    assert usable_fps(None, 1e6, default=25.0) == 25 and usable_fps(29.97, default=25.0) == 29.97


@pytest.fixture(scope="module")
def minutes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five minutes of stereo at 48 kHz, no two seconds of them alike."""
    path = tmp_path_factory.mktemp("long") / "long.wav"
    left = np.random.default_rng(0).integers(-8000, 8000, 300 * 48_000, np.int16)
    wavfile.write(path, 48_000, np.stack([left, left // 2], axis=1))
    return path


def test_a_window_of_a_long_sound_is_read_alone(minutes: Path) -> None:
    said, memory, seconds = measure(f"read_clip(Path({str(minutes)!r}), 22050, 22050)")
    assert said is None and memory < 40 and seconds < 3
    said, memory, seconds = measure(f"read_part(Path({str(minutes)!r}), 60.0, lambda: 0.3)")
    assert said is None and memory < 100 and seconds < 5
    rate, samples = wavfile.read(minutes, mmap=True)
    middle = to_mono(samples[145 * rate : 155 * rate])
    ours = read_clip(minutes, 22050, 22050)
    # the same as of the ten seconds around it
    assert np.array_equal(ours, fit_window(resample(middle, rate, 22050), 22050))


@needs_ffmpeg
def test_a_window_of_a_long_coded_sound(tmp_path: Path) -> None:
    coded = tmp_path / "long.flac"
    ffmpeg("-f", "lavfi", "-i", "sine=440:r=48000:d=300", "-ac", "2", coded)
    said, memory, seconds = measure(f"read_clip(Path({str(coded)!r}), 22050, 22050)")
    assert said is None and memory < 100 and seconds < 40


@pytest.mark.parametrize("rate", [8000, 22050, 44099, 48000])
@pytest.mark.parametrize("length", [1, 500, 22050])
def test_a_span_is_bit_by_bit_that_of_the_whole(tmp_path: Path, rate: int, length: int) -> None:
    signal = np.random.default_rng(rate).normal(0, 0.1, rate + 17).astype(np.float32)
    whole = resample(signal, rate, 22050)
    length = min(length, len(whole))
    read: list[int] = []

    def part(first: int, end: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
        assert 0 <= first <= end <= len(signal)
        read.append(end - first)
        return signal[first:end]

    for start in (0, (len(whole) - length) // 2, len(whole) - length):
        assert np.array_equal(
            resample_span(part, len(signal), rate, 22050, start, length), whole[start : start + length]
        )
    assert max(read) <= length * rate / 22050 + 400
    wavfile.write(tmp_path / "s.wav", rate, signal)
    assert np.array_equal(read_clip(tmp_path / "s.wav", 22050, length), fit_window(whole, length))
    longer = len(whole) + 100
    assert np.array_equal(read_clip(tmp_path / "s.wav", 22050, longer), fit_window(whole, longer))


def test_training_reads_a_part_of_a_long_sound(minutes: Path) -> None:
    samples, rate = read_part(minutes, 2.0, lambda: 0.5)
    whole, _ = read_wav(minutes)
    first = round(0.5 * (len(whole) - 2 * rate))
    assert rate == 48_000 and np.array_equal(samples, whole[first : first + 2 * rate])

    def never() -> float:
        raise AssertionError("a short sound is read whole")

    assert len(read_part(minutes, 1000.0, never)[0]) == len(whole)


@needs_ffmpeg
def test_resampled_sound_is_ffmpegs(tmp_path: Path) -> None:
    """The sound of a file at the model's rate, beside ffmpeg's resampler."""
    clip = make_clip(tmp_path / "c.mkv", "-c:a", "pcm_s16le", sound="anoisesrc=r=48000:a=0.3:seed=1")
    clock = AudioClock(22050)
    for block in open_media(clip).audio():
        clock.push(block.samples, block.rate, block.time)
    clock.close()
    data = ffmpeg("-i", clip, "-vn", "-ar", "22050", "-ac", "1", "-f", "f32le", "-")
    theirs, ours = np.frombuffer(data, "<f4"), clock.window(0, clock.end)
    assert len(ours) == pytest.approx(len(theirs), abs=30)
    low = scipy.signal.firwin(301, 9000, fs=22050)
    count = min(len(ours), len(theirs))
    a, b = (np.convolve(x[:count], low, "same")[500:-500] for x in (ours, theirs))
    assert np.abs(a - b).max() < 0.01 * np.abs(b).max()


def test_read_frame_is_the_decoded_picture(tmp_path: Path) -> None:
    import cv2

    rgb = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "p.png"), rgb[..., ::-1])
    assert np.array_equal(read_frame(tmp_path / "p.png", (90, 120)), rgb)
