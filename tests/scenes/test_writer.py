"""Writing scenes and videos: same bytes, a manifest that reads back, real files."""

from __future__ import annotations

import hashlib
import wave
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from avgn.runtime.errors import InputError
from avgn.runtime.manifest import Manifest, read_manifest
from avgn.scenes import CLASSES, SceneConfig, render_scene, synthesize, write_scene_video


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_same_seed_gives_the_same_bytes_whatever_the_jobs(tmp_path: Path) -> None:
    config = SceneConfig(split="train", seconds=1.0)
    done: list[int] = []
    synthesize(tmp_path / "one", scenes=10, config=config, seed=3, jobs=1, progress=done.append)
    synthesize(tmp_path / "two", scenes=10, config=config, seed=3, jobs=2)
    synthesize(tmp_path / "few", scenes=4, config=config, seed=3, jobs=1)
    one, two, few = (digests(tmp_path / name) for name in ("one", "two", "few"))
    assert one == two and done == list(range(1, 11))
    assert all(one[name] == digest for name, digest in few.items() if name != "manifest.jsonl")
    assert not list(tmp_path.glob("*.partial"))


def test_the_manifest_reads_back_as_the_scenes(tmp_path: Path) -> None:
    config = SceneConfig(split="test")
    manifest = read_manifest(synthesize(tmp_path / "out", scenes=6, config=config, seed=1, jobs=1))
    assert manifest.classes == CLASSES
    for index, item in enumerate(manifest.items):
        scene = render_scene(config, 1, index)
        assert item.id == item.video == f"test-{index:07d}" and item.split == "test" and item.dataset == "synthetic"
        assert item.frame is not None and item.audio is not None
        frame: Any = cv2.imread(str(item.frame))[..., ::-1]  # type: ignore[index]
        assert np.abs(frame.astype(int) - scene.frame).mean() < 8
        with wave.open(str(item.audio)) as file:
            assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (22_050, 1, 2)
            samples = np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32767
        assert np.abs(samples - scene.audio).max() < 1e-4
        assert len(item.sources) == len(scene.objects)
        for source, thing in zip(item.sources, scene.objects, strict=True):
            assert (source.label, source.sounding, source.on_screen) == (thing.label, thing.sounding, thing.on_screen)
            assert source.boxes == (() if thing.box is None else (thing.box,))
            if source.mask is not None:
                mask: Any = cv2.imread(str(source.mask), cv2.IMREAD_GRAYSCALE)
                assert thing.mask is not None
                assert np.array_equal(mask > 0, thing.mask) and set(np.unique(mask)) <= {0, 255}


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    config = SceneConfig(split="test", sources=(2, 3), silent=(1, 1), off_screen=0.3)
    out = tmp_path_factory.mktemp("videos") / "out"
    return read_manifest(synthesize(out, scenes=2, config=config, seed=4, jobs=2, video_seconds=6))


def test_videos_decode_with_the_right_streams(videos: Manifest) -> None:
    for item in videos.items:
        assert item.frame is None and item.audio is None and item.video_file is not None
        with av.open(str(item.video_file)) as container:
            picture, sound = container.streams.video[0], container.streams.audio[0]
            assert picture.codec_context.name == "h264" and picture.codec_context.pix_fmt == "yuv420p"
            assert (picture.width, picture.height, picture.average_rate) == (640, 360, 25)
            assert (sound.codec_context.name, sound.rate, sound.layout.name) == ("aac", 44_100, "stereo")
            moments = [frame.time for frame in container.decode(video=0)]
        assert moments == pytest.approx([k / 25 for k in range(150)], abs=1e-6)
        with av.open(str(item.video_file)) as container:
            samples = sum(frame.samples for frame in container.decode(audio=0))
        assert samples == pytest.approx(6 * 44_100, abs=2048)


def test_tracks_agree_with_the_mask_video(videos: Manifest) -> None:
    for item in videos.items:
        assert item.mask_video is not None
        index = np.load(item.mask_video)["index"]
        assert index.dtype == np.uint8 and index.shape == (150, 180, 320)
        for number, source in enumerate(item.sources, start=1):
            if not source.on_screen:
                assert source.track is None and not (index == number).any()
                continue
            assert source.track is not None and len(source.track) == 150
            centres = []
            for frame in range(0, 150, 7):
                rows, columns = np.nonzero(index[frame] == number)
                box = source.track[frame]
                assert box is not None
                half = (columns.min() / 320, rows.min() / 180, (columns.max() + 1) / 320, (rows.max() + 1) / 180)
                # a tip thinner than a pixel of the mask (half the size of the picture) may be missing from it
                assert np.abs(np.subtract(box, half)).max() <= 2.01 / 180
                centres.append(((box[0] + box[2]) / 2, (box[1] + box[3]) / 2))
            assert 0.005 < np.ptp(np.array(centres), axis=0).max() < 0.6


def test_the_mask_video_shows_where_the_picture_moves(videos: Manifest) -> None:
    item = videos.items[0]
    assert item.video_file is not None and item.mask_video is not None
    index = np.load(item.mask_video)["index"]
    with av.open(str(item.video_file)) as container:
        frames = [frame.to_ndarray(format="gray").astype(int) for frame in container.decode(video=0)]
    change = np.abs(frames[120] - frames[0])[::2, ::2]
    touched = cv2.dilate(((index[0] > 0) | (index[120] > 0)).astype(np.uint8), np.ones((41, 41))) > 0
    moved = (index[0] != index[120]) & touched
    assert change[moved].mean() > 10 * change[~touched].mean() + 1


def test_sources_fall_silent_and_start_again(tmp_path: Path) -> None:
    config = SceneConfig(split="val", sources=(1, 1), silent=(1, 1), off_screen=0)
    truth = write_scene_video(tmp_path / "clip.mp4", seed=2, seconds=12, config=config)
    (source,) = (source for source in truth.sources if source.sounding)
    (silent,) = (source for source in truth.sources if not source.sounding)
    assert silent.intervals == () and silent.track is not None
    assert source.intervals is not None and len(source.intervals) >= 2
    for start, end in source.intervals:
        assert 2 <= end - start <= 5.001
    gaps = [after[0] - before[1] for before, after in zip(source.intervals, source.intervals[1:], strict=False)]
    assert all(1.999 <= gap <= 4.001 for gap in gaps)
    with av.open(str(tmp_path / "clip.mp4")) as container:
        sound = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    on = np.zeros(len(sound), bool)
    for start, end in source.intervals:
        on[int(start * 44_100) : int(end * 44_100)] = True
    assert np.mean(sound[on] ** 2) > 1.3 * np.mean(sound[~on] ** 2)


def test_the_same_seed_gives_the_same_video(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        write_scene_video(tmp_path / name, seed=9, seconds=1)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "b.mp4"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scenes": 0}, "scenes 0 is not usable"),
        ({"jobs": 0}, "jobs 0 is not usable"),
        ({"seed": -1}, "seed -1 must not be negative"),
        ({"video_seconds": 0.2}, "video_seconds 0.2 is not usable"),
    ],
    ids=["scenes", "jobs", "seed", "video_seconds"],
)
def test_bad_arguments_are_refused(tmp_path: Path, options: dict[str, float], message: str) -> None:
    arguments = {"scenes": 1, "seed": 0, "jobs": 1, **options}
    with pytest.raises(InputError, match=message):
        synthesize(tmp_path / "out", config=SceneConfig(split="train"), **arguments)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_a_folder_with_something_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(InputError, match="is not an empty folder"):
        synthesize(tmp_path, scenes=1, config=SceneConfig(split="train"), seed=0, jobs=1)
    with pytest.raises(InputError, match="is not an empty folder"):
        synthesize(tmp_path / "mine.txt", scenes=1, config=SceneConfig(split="train"), seed=0, jobs=1)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    path = synthesize(tmp_path / "out", scenes=1, config=SceneConfig(split="val"), seed=0, jobs=1)
    assert path == tmp_path / "out" / "manifest.jsonl" and len(read_manifest(path).items) == 1


def test_a_failure_leaves_nothing_behind(tmp_path: Path) -> None:
    def stop(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        synthesize(tmp_path / "out", scenes=3, config=SceneConfig(split="val"), seed=0, jobs=1, progress=stop)
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="a part of its path is a file"):
        synthesize(tmp_path / "file" / "out", scenes=1, config=SceneConfig(split="train"), seed=0, jobs=1)
    with pytest.raises(InputError, match="can't be written"):
        write_scene_video(tmp_path / "file" / "clip.mp4", seed=0, seconds=1)
