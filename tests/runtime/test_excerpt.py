"""Parts of videos: the same answers as in the whole, at the file's own times; overlays that begin at 0."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from avgn.runtime import Localizer
from avgn.runtime.errors import InputError
from avgn.runtime.excerpt import Excerpt
from avgn.runtime.file_run import localize_file
from avgn.runtime.media import AudioEnd, VideoFrame, open_media
from avgn.scenes import SceneConfig
from avgn.scenes.video import write_scene_video
from tests.commands import forked, refused


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "scene.mp4"
    write_scene_video(path, seed=3, seconds=10.0, config=SceneConfig(split="test", sources=(1, 2), silent=(0, 0)))
    return path


@pytest.fixture(scope="module")
def localizer() -> Localizer:
    return Localizer.load("tiny", threads=1)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_part_has_the_answers_of_the_whole(tmp_path: Path, video: Path, localizer: Localizer) -> None:
    whole = {round(result.time, 3): result for result in localizer.stream(video)}
    found = list(localizer.stream(Excerpt(video, None, start=6.2, duration=1.5)))
    assert [round(result.time, 3) for result in found] == [round(6.2 + n / 25, 3) for n in range(38)]
    for result in found:
        same = whole[round(result.time, 3)]
        np.testing.assert_allclose(result.maps, same.maps, atol=2e-3)
        np.testing.assert_allclose(result.audio_prob, same.audio_prob, atol=2e-3)
        assert result.window == same.window


def test_the_overlay_of_a_part_begins_at_zero_with_its_own_sound(
    tmp_path: Path, video: Path, localizer: Localizer
) -> None:
    summary = localize_file(
        localizer, video, output=tmp_path / "o.mp4", json_path=tmp_path / "r.jsonl", start=6, duration=2
    )
    assert summary.frames == 50 and summary.seconds == pytest.approx(2.0, abs=0.05) and summary.warnings == ()
    assert [line["time"] for line in lines(tmp_path / "r.jsonl")] == [round(6 + n / 25, 6) for n in range(50)]
    with av.open(str(tmp_path / "o.mp4")) as container:
        times = [float(frame.time or 0) for frame in container.decode(video=0)]
    assert times == pytest.approx([n / 25 for n in range(50)], abs=1e-3)
    cut, whole = (
        np.concatenate([block.samples[:, 0] for block in open_media(path).audio()])
        for path in (tmp_path / "o.mp4", video)
    )
    rate = open_media(video).info.audio_rate
    assert len(cut) / rate == pytest.approx(2.0, abs=0.1)
    # coded once more, it is the sound from second 6 on
    part = whole[6 * rate : 8 * rate]
    lags = range(-2048, 2049, 64)
    middle = cut[8000:24_000]
    best = max(abs(np.corrcoef(middle, part[8000 + lag : 24_000 + lag])[0, 1]) for lag in [*lags, 0])
    assert part.std() == 0 or best > 0.9


@pytest.mark.parametrize(("every", "expected"), [(0.5, 20), (0.04, 250), (0.05, 200), (3.0, 4), (60.0, 1)])
def test_every_takes_a_frame_every_so_many_seconds(video: Path, every: float, expected: int) -> None:
    times = [frame.time for frame in Excerpt(video, None, every=every).video()]
    assert len(times) == expected and times[0] == 0.0
    for number, time in enumerate(times):
        assert -1e-6 <= time - number * every < 0.04


def test_sound_is_read_from_before_the_part_to_behind_it(video: Path) -> None:
    blocks = list(Excerpt(video, None, start=5.0, duration=1.0).audio())
    assert blocks[0].time == pytest.approx(1.0, abs=1e-4)
    end = blocks[-1].time + len(blocks[-1].samples) / blocks[-1].rate
    assert end == pytest.approx(10.0, abs=0.03)
    events = list(Excerpt(video, None, start=5.0, duration=1.0).events(0.5))
    assert sum(isinstance(event, VideoFrame) for event in events) == 25
    assert not any(isinstance(event, AudioEnd) for event in events[:-30])


def test_numbers_that_cannot_be_meant(tmp_path: Path, video: Path, localizer: Localizer) -> None:
    for option, value in (
        ("--start", -1),
        ("--duration", 0),
        ("--every", 0),
    ):
        said = refused("localize", "tiny", video, f"{option}={value}", "--json", tmp_path / "r.jsonl")
        assert f"{option} must be" in said and "leave it out for all" in said
    said = refused("localize", "tiny", video, "--start", 11, "--json", tmp_path / "r.jsonl")
    assert f"--start 11 is behind the end of {video}, which lasts 10.0 s" in said
    assert not (tmp_path / "r.jsonl").exists()
    for option in ("--start", "--duration", "--every"):
        assert "is for video files" in refused("localize", "tiny", "rtsp://127.0.0.1:9/x", option, 1)
    for strange in (float("nan"), float("inf")):
        with pytest.raises(InputError, match="--duration must be 0.001 or more seconds"):
            localize_file(localizer, video, duration=strange)
    with pytest.raises(InputError, match="has no picture from second 9.99 on"):
        localize_file(localizer, video, start=9.99)


def test_thresholds_of_ones_own(tmp_path: Path, video: Path) -> None:
    counts = []
    for value in ("0", "0.5", "bell=1,flute=1.0,drum=1,0.5", "1"):
        done = forked("localize", "tiny", video, "--duration", 1, "--json", tmp_path / "r.jsonl", "--threshold", value)
        assert done.returncode == 0, done.stderr
        counts.append(sum(len(line["sources"]) for line in lines(tmp_path / "r.jsonl")))
    assert counts[0] > counts[1] >= counts[3] and counts[3] <= counts[2]
    for value in ("2", "x", "", "theremin=0.5", "bell="):
        assert "--threshold" in refused("localize", "tiny", video, "--threshold", value)
