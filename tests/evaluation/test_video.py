"""Protocol video: the scores of hand-made tracks, and the real localizer over real video files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest

from avgn.evaluation import evaluate, format_table
from avgn.evaluation.video import evaluate_video, near_change, read_track, score_video
from avgn.evaluation.video_truth import VideoTruth, read_mask_video
from avgn.runtime.errors import InputError
from avgn.runtime.manifest import Box, Item, Manifest, Source, read_manifest, write_manifest

Make = Callable[..., Any]
CLASSES = ("bell", "drum", "flute", "horn")
FPS, SIZE = 20, (240, 320)
pytestmark = pytest.mark.timeout(120)
LEFT, RIGHT = (0.1, 0.2, 0.4, 0.7), (0.6, 0.3, 0.9, 0.8)


@dataclass(frozen=True)
class Said:
    label: str
    on_screen: bool = True
    peak: tuple[float, float] | None = (0.2, 0.4)


def _results(said: dict[str, tuple[int, int]], count: int = 60, **facts: Any) -> Iterator[SimpleNamespace]:
    """One result a frame at 20 fps; said: {label: (first frame, after last frame)}."""
    for n in range(count):
        sources = tuple(Said(label, **facts) for label, (first, last) in said.items() if first <= n < last)
        yield SimpleNamespace(time=n / FPS, frame=n, sources=sources)


def _item(*sources: Source, **facts: Any) -> Item:
    return Item(id="v", sources=sources, split="test", dataset="tones", video="v", **facts)


def _source(label: str, *intervals: tuple[float, float], box: Box | None = LEFT, count: int = 60) -> Source:
    return Source(
        label=label,
        sounding=bool(intervals),
        on_screen=box is not None,
        intervals=intervals,
        track=None if box is None else (box,) * count,
    )


def _score(said: dict[str, tuple[int, int]], item: Item, **facts: Any) -> tuple[dict[str, dict[str, Any]], int]:
    columns, missed = score_video(read_track(_results(said, **facts), CLASSES), VideoTruth(item, CLASSES), 0.5)
    return columns, missed


def test_perfect_tracks_score_fully() -> None:
    item = _item(_source("bell", (0.5, 2.0)), _source("drum", box=RIGHT))
    scores, missed = _score({"bell": (10, 40)}, item)
    assert missed == 0
    assert scores["all"]["precision"] == scores["all"]["recall"] == (30, 30)
    assert scores["all"]["F1"] == (60, 60)
    assert scores["all"]["peak in box"] == (30, 30)
    assert scores["all"]["floor peak in box"] == (0, 30)
    assert scores["all"]["silent frames with no source"] == (30, 30)
    assert scores["all"]["false sources per minute"] == pytest.approx((0, 3 / 60))
    assert scores["all"]["onset error (s)"] == pytest.approx((0, 1))
    assert scores["all"]["release error (s)"] == pytest.approx((0, 1))


def test_frames_after_a_change_stand_apart() -> None:
    scores, _ = _score({"bell": (15, 42)}, _item(_source("bell", (0.5, 2.0))))
    # the changes are at 0.5 and 2.0 s, the window is 0.5 s: 10 frames each
    assert scores["near_change"]["recall"] == (5, 10)
    assert scores["steady"]["recall"] == (20, 20)
    assert scores["near_change"]["precision"] == (5, 7)
    assert scores["near_change"]["silent frames with no source"] == (8, 10)
    assert scores["steady"]["silent frames with no source"] == (20, 20)
    assert scores["all"]["onset bias (s)"] == pytest.approx((0.25, 1))
    assert scores["all"]["release bias (s)"] == pytest.approx((0.1, 1))


def test_changes_of_sight_count_too() -> None:
    track = (None,) * 20 + (LEFT,) * 40
    source = Source(label="bell", sounding=True, on_screen=True, intervals=((0.0, 3.0),), track=track)
    truth = VideoTruth(_item(source), CLASSES)
    times = np.arange(60) / FPS
    assert truth.changes(times, np.arange(60)).tolist() == [0.0, 1.0, 3.0]
    assert truth.present(times, np.arange(60))[:, 0].sum() == 40
    near = near_change(times, np.array([1.0]), 0.5)
    assert near.sum() == 10 and near[20] and not near[30]
    assert not near_change(times, np.zeros(0), 0.5).any()


def test_false_sources_are_counted_once_a_run() -> None:
    scores, missed = _score({"drum": (5, 25), "bell": (0, 60)}, _item(_source("bell", (0.0, 1.0))))
    assert scores["all"]["false sources per minute"] == pytest.approx((1, 3 / 60))
    assert scores["all"]["precision"] == (20, 80)
    assert missed == 0


def test_unknown_sounds_are_no_sources() -> None:
    scores, _ = _score({"unknown": (0, 60)}, _item(_source("bell")))
    assert scores["all"]["silent frames with no source"] == (60, 60)
    assert scores["all"]["precision"] == (0, 0)


def test_sounds_off_screen_are_heard_not_shown() -> None:
    item = _item(_source("bell", (0.5, 2.0), box=None))
    scores, missed = _score({"bell": (10, 40)}, item, on_screen=False, peak=None)
    assert scores["all"]["precision"] == (0, 0) and scores["all"]["recall"] == (0, 0)
    assert missed == 0 and scores["all"]["onset error (s)"] == pytest.approx((0, 1))
    shown, _ = _score({"bell": (10, 40)}, item)
    assert shown["all"]["precision"] == (0, 30)
    assert shown["all"]["false sources per minute"][0] == 1


def test_intervals_never_heard_and_ends_never_seen() -> None:
    item = _item(_source("bell", (0.5, 1.0), (2.0, 3.0)))
    scores, missed = _score({"bell": (41, 60)}, item)
    assert missed == 1
    assert scores["all"]["onset error (s)"] == pytest.approx((0.05, 1))
    assert scores["all"]["release error (s)"] == (0, 0)
    nothing, missed = _score({}, item)
    assert missed == 2 and nothing["all"]["onset error (s)"] == (0, 0)


def test_peaks_are_compared_with_masks(tmp_path: Path) -> None:
    index = np.zeros((60, 12, 16), dtype=np.uint8)
    index[:, 2:6, 2:6] = 1
    index[30:] = 0
    np.savez_compressed(tmp_path / "masks.npz", index=index)
    item = _item(_source("bell", (0.0, 3.0)), mask_video=tmp_path / "masks.npz")
    hit, _ = _score({"bell": (0, 60)}, item, peak=(2.5 / 16, 2.5 / 12))
    miss, _ = _score({"bell": (0, 60)}, item, peak=(0.9, 0.9))
    assert hit["all"]["peak in mask"] == (30, 30) and miss["all"]["peak in mask"] == (0, 30)
    assert hit["all"]["peak in box"] == (60, 60) and miss["all"]["peak in box"] == (0, 60)


def test_broken_mask_videos_are_named(tmp_path: Path) -> None:
    path = tmp_path / "masks.npz"
    path.write_bytes(b"no archive")
    with pytest.raises(InputError, match="masks.npz"):
        read_mask_video(path)
    np.savez(path, index=np.zeros((3, 4), np.uint8))
    with pytest.raises(InputError, match=r"\[frames, h, w\]"):
        read_mask_video(path)


def _write_video(path: Path, draw: Make, sound: Make, seconds: float) -> None:
    """A bell on the left that sounds from 1 to 2.5 s, and a silent drum on the right; H.264 and AAC."""
    rate = 16000
    audio = np.zeros(round(seconds * rate), dtype=np.float32)
    audio[rate : round(2.5 * rate)] = sound(["bell"], 1.5, rate)
    picture = draw([("bell", LEFT), ("drum", RIGHT)], SIZE)
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=FPS)
        video.width, video.height, video.pix_fmt = SIZE[1], SIZE[0], "yuv420p"
        voice = container.add_stream("aac", rate=rate, layout="mono")
        for n in range(round(seconds * FPS)):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = n, Fraction(1, FPS)
            container.mux(video.encode(frame))
        block = av.AudioFrame.from_ndarray(audio[None], format="fltp", layout="mono")
        block.sample_rate, block.pts, block.time_base = rate, 0, Fraction(1, rate)
        container.mux(voice.encode(block))
        container.mux(voice.encode(None))
        container.mux(video.encode(None))


@pytest.fixture
def videos(tmp_path: Path, draw: Make, sound: Make) -> Manifest:
    _write_video(tmp_path / "a.mp4", draw, sound, 4.0)
    items = [_item(_source("bell", (1.0, 2.5), count=80), _source("drum", box=RIGHT, count=80))]
    items = [
        Item(**{**{name: getattr(items[0], name) for name in items[0].__slots__}, "video_file": tmp_path / "a.mp4"})
    ]
    write_manifest(tmp_path / "manifest.jsonl", CLASSES, items)
    return read_manifest(tmp_path / "manifest.jsonl")


def test_the_real_localizer_on_a_real_video(videos: Manifest, tone_engine: Make) -> None:
    engine = tone_engine(decision={"audio_smoothing": 0.0, "min_off": 0.0})
    [result] = evaluate(engine, videos, ["video"], bootstrap=10)
    assert result["protocol"] == "video" and result["items"] == 1
    assert result["steady"]["recall"] == 100 and result["steady"]["precision"] == 100
    assert result["metrics"]["peak in box"] == 100 and result["metrics"]["peak in mask"] is None
    assert result["metrics"]["false sources per minute"] == 0
    assert result["metrics"]["onset error (s)"] <= 0.3 and result["metrics"]["release error (s)"] <= 0.3
    assert result["floor"]["peak in box"] == 0
    table = format_table([result])
    assert "near change" in table and "steady" in table and "onset error (s)" in table


def test_unreadable_videos_are_named_or_counted(videos: Manifest, tone_engine: Make, tmp_path: Path) -> None:
    good = videos.items[0]
    (tmp_path / "broken.mp4").write_bytes(b"not a video")
    bad = replace(good, id="broken", video_file=tmp_path / "broken.mp4")
    still = replace(good, id="still", video_file=None)
    both = Manifest(path=videos.path, classes=videos.classes, items=(bad, good, still))
    with pytest.raises(InputError, match="'broken'.*broken.mp4"):
        evaluate_video(tone_engine(), both)
    result = evaluate_video(tone_engine(), both, skip_bad=True)
    assert result["items"] == 1 and result["skipped"] == {"unreadable": 1, "no video file": 1}
    with pytest.raises(InputError, match="no readable item"):
        evaluate_video(tone_engine(), Manifest(path=videos.path, classes=videos.classes, items=(still,)))


def test_given_thresholds_and_resamples_reach_the_videos(videos: Manifest, tone_engine: Make) -> None:
    engine = tone_engine(decision={"audio_smoothing": 0.0, "min_off": 0.0})
    never = (np.ones(len(CLASSES)), np.ones(len(CLASSES)))
    [result] = evaluate(engine, videos, ["video"], thresholds=never, bootstrap=0)
    # the tone engine is surest at 1.0: with its own thresholds it finds every frame
    assert result["metrics"]["recall"] < 60
    assert not any(result["ci95"].values())


def test_early_and_late_onsets_add_up_as_errors_and_cancel_as_bias() -> None:
    item = _item(_source("bell", (0.5, 1.0)), _source("drum", (1.0, 2.0)))
    scores, _ = _score({"bell": (5, 20), "drum": (25, 40)}, item)
    # a quarter of a second too early, and one too late
    assert scores["all"]["onset error (s)"] == pytest.approx((0.5, 2))
    assert scores["all"]["onset bias (s)"] == pytest.approx((0, 2))


def test_a_sound_said_to_be_off_screen_breaks_the_silence() -> None:
    scores, _ = _score({"bell": (0, 20)}, _item(_source("bell")), on_screen=False, peak=None)
    assert scores["all"]["silent frames with no source"] == (40, 60)


def test_what_is_shown_without_a_peak_hits_nothing(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "masks.npz", index=np.ones((60, 12, 16), dtype=np.uint8))
    item = _item(_source("bell", (0.0, 3.0)), mask_video=tmp_path / "masks.npz")
    scores, _ = _score({"bell": (0, 60)}, item, peak=None)
    assert scores["all"]["peak in mask"] == scores["all"]["peak in box"] == (0, 60)
