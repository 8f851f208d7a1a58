"""Cameras and microphones: a real sound server with a null sink, and a file in place of a camera."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
import wave
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from avgn.runtime import open_media, read_manifest
from avgn.runtime.clock import AudioClock
from avgn.runtime.media import VideoFrame
from avgn.runtime.sources import StateChange, has_audio
from avgn.runtime.sources.devices import CameraSource, is_camera, list_devices
from avgn.runtime.sources.drift import CaptureClock
from avgn.runtime.sources.pushed import PushedSource
from avgn.scenes import SceneConfig, synthesize
from tests.patience import PATIENCE, tried_again
from tests.runtime import pulse


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A video with one sounding thing, and its label."""
    config = SceneConfig(split="test", sources=(1, 1), silent=(1, 1), off_screen=0.0, size=(320, 240))
    folder = tmp_path_factory.mktemp("scene")
    item = read_manifest(synthesize(folder, scenes=1, config=config, seed=9, video_seconds=6.0, jobs=1)).items[0]
    assert item.video_file is not None
    yield item.video_file, next(source.label for source in item.sources if source.sounding)


@pytest.mark.parametrize("ppm", [100, -100, 0])
def test_an_hour_of_drift_stays_within_an_audio_hop(ppm: int) -> None:
    """A microphone at 8000 Hz plus `ppm`, whose blocks arrive up to 8 ms late, over one virtual hour."""
    rate, length = 8000, 160
    device, sound, rng = CaptureClock(rate), AudioClock(rate), np.random.default_rng(0)
    block = np.zeros((length, 1), np.float32)
    worst = 0.0
    for index in range(3600 * rate // length):
        truth = index * length / (rate * (1 + ppm * 1e-6))
        sound.push(block, rate, device.block(length, truth + rng.uniform(0, 0.008)))
        if index % 500 == 0:
            sound.forget(sound.end - rate)
            # what the clock calls now, against what now is
            worst = max(worst, abs(sound.end / rate - (truth + length / rate)))
    assert worst <= 0.2, worst
    assert worst <= 0.03, worst
    assert abs(device.drift * 1e6 - ppm) <= 50 and device.jumps == 0


def test_a_device_that_stood_still_is_followed_at_once() -> None:
    device = CaptureClock(8000)
    for index in range(100):
        device.block(160, index * 0.02)
    assert device.block(160, 60.0) == 60.0 and device.jumps == 1


def test_a_file_in_place_of_a_camera(scene: tuple[Path, str]) -> None:
    source = CameraSource(str(scene[0]), audio=False)
    frames: list[VideoFrame] = []
    states: list[str] = []
    for event in source.events():
        if isinstance(event, VideoFrame):
            frames.append(event)
            if len(frames) == 60:
                source.close()
        elif isinstance(event, StateChange):
            states.append(event.state)
    truth = next(open_media(scene[0]).video()).rgb
    assert frames[0].rgb.shape == truth.shape
    # colours in the right order, up to what two decoders do
    assert np.abs(frames[0].rgb.astype(int) - truth.astype(int)).mean() < 4
    times = [frame.time for frame in frames]
    # they come when a camera would give them, or later
    assert times == sorted(times) and len(frames) == 60 and times[-1] - times[0] >= 0.9 * 59 / 25
    assert states == ["connecting", "live", "ended"]


@tried_again
def test_a_camera_that_is_not_there_is_tried_again() -> None:
    source = CameraSource("/nowhere/video9", audio=False)
    states: list[StateChange] = []
    timer = threading.Timer(1.2, source.close)
    timer.start()
    begin = time.monotonic()
    for event in source.events():
        if isinstance(event, StateChange):
            states.append(event)
    assert time.monotonic() - begin < 2.2
    assert [change.state for change in states[:3]] == ["connecting", "lost", "connecting"]
    assert states[1].reason == "the camera can't be opened" and states[-1].state == "ended"


def test_names() -> None:
    assert is_camera("camera:0") and not is_camera("video.mp4")
    assert all(device.kind in ("camera", "microphone") for device in list_devices())


@pytest.fixture(scope="module")
def sound_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    reason = pulse.missing()
    if reason:
        pytest.skip(reason)
    with pulse.server(tmp_path_factory.mktemp("pulse")) as environment:
        yield environment


@tried_again
def test_a_microphone_is_heard_and_classified(
    scene: tuple[Path, str], sound_server: dict[str, str], tmp_path: Path
) -> None:
    video, label = scene
    blocks = list(open_media(video).audio())
    samples = np.concatenate([block.samples.mean(axis=1) for block in blocks])
    with wave.open(str(tmp_path / "scene.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(blocks[0].rate)
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
    command = [sys.executable, "-m", "avgn", "localize", "tiny", f"camera:{video}", "--microphone", "pulse"]
    command += ["--seconds", "14", "--json", "-", "--threads", "1"]
    process = subprocess.Popen(command, env=sound_server, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        first = process.stdout.readline()
        assert first, process.stderr.read() if process.stderr else ""
        subprocess.run(["paplay", str(tmp_path / "scene.wav")], env=sound_server, check=True, timeout=60)
        output, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0, errors
    lines = [json.loads(line) for line in [first, *output.splitlines()]]
    heard = [source["label"] for line in lines for source in line["sources"]]
    counts = {name: heard.count(name) for name in heard}
    assert lines[-1]["time"] - lines[0]["time"] > 8 and counts.get(label, 0) > 20, (label, len(lines), counts)
    assert counts[label] >= 0.6 * len(heard), counts


def test_a_microphone_that_is_not_there(sound_server: dict[str, str]) -> None:
    code = "from avgn.runtime.sources.devices import Microphone; Microphone('theremin')"
    done = subprocess.run([sys.executable, "-c", code], env=sound_server, capture_output=True, text=True, timeout=60)
    assert "InputError: microphone 'theremin' can't be opened" in done.stderr and "see avgn devices" in done.stderr


WATCH = """
import sys, time
from avgn.runtime.media import AudioBlock
from avgn.runtime.sources import StateChange, has_audio
from avgn.runtime.sources.devices import CameraSource

source, seconds, count = CameraSource(sys.argv[1], "pulse"), 0.0, 0
for event in source.events():
    if isinstance(event, StateChange):
        print(event.state, event.reason, flush=True)
    elif isinstance(event, AudioBlock):
        seconds += len(event.samples) / event.rate
        if int(seconds) > count:
            count = int(seconds)
            print("heard", count, flush=True)
"""


def test_a_microphone_that_goes_away_is_opened_again(scene: tuple[Path, str], tmp_path: Path) -> None:
    """The sound server dies under a running camera and comes back."""
    if reason := pulse.missing():
        pytest.skip(reason)

    def until(process: subprocess.Popen[str], text: str) -> list[str]:
        assert process.stdout is not None
        said: list[str] = []
        for line in process.stdout:
            said.append(line.strip())
            if text in line:
                return said
        raise AssertionError(f"{text!r} was not said: {said}, {process.stderr.read() if process.stderr else None}")

    folder = tmp_path / "server"
    folder.mkdir()
    command = [sys.executable, "-c", WATCH, str(scene[0])]
    with pulse.server(folder) as environment:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        limit = threading.Timer(3 * PATIENCE, process.kill)
        limit.start()
        until(process, "heard 2")
    try:
        until(process, "the microphone gives nothing: trying to open it again")
        with pulse.server(folder):
            until(process, "the microphone is back")
            until(process, "heard 4")
    finally:
        limit.cancel()
        process.kill()
        process.communicate()


def test_former_names_of_sound_work_for_one_more_release() -> None:
    with pytest.warns(DeprecationWarning, match="sound is called audio now"):
        camera = CameraSource(0, sound=False)
    assert has_audio(camera) is False

    class Theirs(PushedSource):
        has_sound = True

    assert has_audio(Theirs()) is True and has_audio(PushedSource()) is None
