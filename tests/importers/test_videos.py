"""Folders of videos: what is cut, what is told, and cutting that was killed in the middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from avgn.importers import import_dataset
from avgn.importers.wav import read_header
from avgn.runtime.errors import InputError
from avgn.runtime.manifest import read_manifest
from avgn.scenes.video import write_scene_video
from tests.commands import ENVIRONMENT, forked, refused
from tests.disks import small_disk
from tests.importers.conftest import CONFIG
from tests.importers.layouts import options, place
from tests.patience import tried_again


def content(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def test_a_folder_is_a_class_and_every_interval_an_item(tmp_path: Path, clip: Path) -> None:
    root = place(tmp_path / "in", clip, "female speech, woman/a b.mp4", "drum/deep/c.mp4")
    (root / "drum" / "notes.txt").write_text("no video")
    found = import_dataset("videos", options(root, output=tmp_path / "m.jsonl", window=1.0), strict=True)
    manifest = read_manifest(tmp_path / "m.jsonl")
    assert manifest.classes == ("drum", "female_speech_woman")
    # the middle of each second of two seconds
    assert [item.id for item in manifest.items] == [
        *("drum__deep__c_00000520", "drum__deep__c_00001520"),
        *("female_speech,_woman__a_b_00000520", "female_speech,_woman__a_b_00001520"),
    ]
    assert {item.video for item in manifest.items} == {"drum__deep__c", "female_speech,_woman__a_b"}
    for item in manifest.items:
        assert item.frame is not None and item.audio is not None
        picture = cv2.imread(str(item.frame))
        assert picture is not None and picture.std() > 1
        header = read_header(item.audio)
        assert (header.rate, header.channels, header.seconds) == (22_050, 1, 1.0)
    assert found.report.counts["clips"] == 2
    import_dataset("videos", options(root, output=tmp_path / "m.jsonl", window=1.0, fps=2.0))
    assert len(read_manifest(tmp_path / "m.jsonl").items) == 8


def test_a_list_gives_several_classes(tmp_path: Path, clip: Path) -> None:
    root = place(tmp_path / "in", clip, "a.mp4", "b.mp4")
    labels = tmp_path / "labels.csv"
    labels.write_text('a.mp4,drum,"female speech, woman"\nb.mp4,drum\na.mp4,drum\n')
    found = import_dataset("videos", options(root, output=tmp_path / "m.jsonl", labels=labels))
    manifest = read_manifest(tmp_path / "m.jsonl")
    assert [[source.label for source in item.sources] for item in manifest.items[::2]] == [
        ["drum", "female_speech_woman"],
        ["drum"],
    ]
    assert found.report.problems == {"listed more than once": ["a"]}


def test_videos_that_cannot_be_used_are_listed(tmp_path: Path, clip: Path) -> None:
    root = place(tmp_path / "in", clip, "drum/good.mp4")
    (root / "drum" / "empty.mp4").write_bytes(b"")
    (root / "drum" / "text.mkv").write_text("no video " * 100)
    (root / "drum" / "cut.mp4").write_bytes(clip.read_bytes()[: clip.stat().st_size // 3])
    command = ("import", "videos", root, "--output", tmp_path / "m.jsonl", "--jobs", 2)
    strict = refused(*command, "--strict")
    assert "--strict: 3 videos that can't be used (drum__cut, drum__empty, drum__text)" in strict
    assert not (tmp_path / "m.jsonl").exists()
    done = forked(*command)
    assert done.returncode == 0 and "videos that can't be used: 3" in done.stdout, done.stderr
    assert all(any(f"{name} " in line for line in done.stdout.splitlines()) for name in ("empty.mp4", "text.mkv"))
    assert len(read_manifest(tmp_path / "m.jsonl").items) == 2


def test_arguments_and_lists(tmp_path: Path, clip: Path) -> None:
    root = place(tmp_path / "in", clip, "drum/a.mp4", "drum/a.mkv")
    labels = tmp_path / "labels.csv"

    def refuse(expected: str, **values: object) -> None:
        with pytest.raises(InputError, match=expected):
            import_dataset("videos", options(root, output=tmp_path / "m.jsonl", **values))

    refuse("drum/a.mkv and .*drum/a.mp4 would have the same names: rename one")
    refuse("--fps must be in 0..60 and --window in 0.1..60, got nan", fps=float("nan"))
    labels.write_text("b.mp4,drum\n")
    refuse("video .*b.mp4 does not exist: mend the list or the folder", labels=labels)
    labels.write_text("drum,drum\n")
    refuse("video .*in/drum is a folder, not a file: mend the list or the folder", labels=labels)
    (tmp_path / "out.mp4").hardlink_to(clip)
    labels.write_text("../out.mp4,drum\n")
    refuse("video ../out.mp4 is not below .*in: give a ROOT that holds it", labels=labels)
    labels.write_text("drum/a.mp4\n")
    refuse("labels.csv line 1 has 1 columns", labels=labels)
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="none has no videos in folders named after classes: give --labels"):
        import_dataset("videos", options(tmp_path / "none"))
    with pytest.raises(InputError, match=r"gives no item \(1 videos that can't be used\)"):
        (root / "drum" / "a.mkv").unlink()
        import_dataset("videos", options(root, output=tmp_path / "m.jsonl", fps=0.1))


def test_a_folder_in_the_place_of_a_piece_is_no_fault_of_the_videos(tmp_path: Path, clip: Path) -> None:
    root = place(tmp_path / "in", clip, "drum/a.mp4")
    (tmp_path / "m_cut" / "audio" / "drum__a_00000520.wav").mkdir(parents=True)
    with pytest.raises(InputError, match="drum__a_00000520.wav is a folder"):
        import_dataset("videos", options(root, output=tmp_path / "m.jsonl"))


@tried_again
def test_a_killed_run_leaves_no_process_and_resumes_to_the_same_result(tmp_path: Path, clip: Path) -> None:
    names = [f"drum/c{n:02d}.mp4" for n in range(12)]
    root = place(tmp_path / "in", clip, *names)
    whole, broken = tmp_path / "whole" / "m.jsonl", tmp_path / "broken" / "m.jsonl"
    for output in (whole, broken):
        output.parent.mkdir()
    import_dataset("videos", options(root, output=whole, fps=4.0))
    # the whole run is killed after the first clip
    arguments = ["import", "videos", root, "--output", broken, "--fps", 4, "--jobs", 2]
    process = start(*arguments)
    wait_for(lambda: any((broken.parent / "m_cut").glob("*.done")))
    workers = children_of(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(workers) >= 2 and not broken.exists()
    wait_for(lambda: not any(alive(pid) for pid in workers))
    assert 1 <= len(list((broken.parent / "m_cut").glob("*.done"))) < len(names)
    # one worker of the second run is killed
    process = start(*arguments)
    wait_for(lambda: len(children_of(process.pid, "spawn_main")) == 2)
    os.kill(children_of(process.pid, "spawn_main")[0], signal.SIGKILL)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert said == (
        "avgn: a process that cut videos was killed (out of memory?): run the same command again, with fewer --jobs; "
        "what is cut stays\n"
    )
    # what was finished is not cut again
    first = next((broken.parent / "m_cut").glob("*.done"))
    picture = broken.parent / "m_cut" / "frames" / f"{json.loads(first.read_text())['names'][0]}.jpg"
    kept = picture.stat().st_mtime_ns
    assert forked(*arguments).returncode == 0
    assert picture.stat().st_mtime_ns == kept
    assert content(broken.parent) == content(whole.parent)


@tried_again
def test_ctrl_c_ends_at_once_without_a_trace(tmp_path: Path, clip: Path) -> None:
    root = place(tmp_path / "in", clip, *[f"drum/c{n:02d}.mp4" for n in range(12)])
    process = start("import", "videos", root, "--output", tmp_path / "m.jsonl", "--fps", 25, "--jobs", 2)
    wait_for(lambda: any((tmp_path / "m_cut").glob("*.done")))
    workers = children_of(process.pid)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (130, "avgn: interrupted\n")
    assert not (tmp_path / "m.jsonl").exists() and len(list((tmp_path / "m_cut").glob("*.done"))) < 12
    wait_for(lambda: not any(alive(pid) for pid in workers))


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_full_disk_is_a_sentence_and_what_is_cut_stays(tmp_path: Path, clip: Path, jobs: int) -> None:
    root = place(tmp_path / "in", clip, *[f"drum/c{n}.mp4" for n in range(9)])
    with small_disk(tmp_path / "disk", 150) as disk:
        said = refused("import", "videos", root, "--output", disk / "m.jsonl", "--fps", 4, "--jobs", jobs)
        assert said.startswith(f"avgn: file {disk}/m_cut/") and said.endswith(
            "can't be written (no space left on the disk): free some space or choose another folder"
        )
        assert not (disk / "m.jsonl").exists() and not list(disk.rglob("*.partial"))
        done = {json.loads(mark.read_text())["names"][0] for mark in (disk / "m_cut").glob("*.done")}
        found = {path.stem for path in disk.rglob("*.jpg")} | {path.stem for path in disk.rglob("*.wav")}
        whole = {name.rpartition("_")[0] for name in done}
        # a process beside the one that found the disk full is killed amid its video
        assert done <= found and len({name.rpartition("_")[0] for name in found} - whole) <= jobs - 1
    with small_disk(tmp_path / "none", 4) as disk:
        refused("import", "videos", root, "--output", disk / "m.jsonl", "--fps", 4, "--jobs", jobs)
        assert list(disk.iterdir()) == []


def test_a_changed_video_and_a_lost_piece_are_cut_again(tmp_path: Path, clip: Path) -> None:
    root = tmp_path / "in"
    (root / "drum").mkdir(parents=True)
    (root / "drum" / "a.mp4").write_bytes(clip.read_bytes())
    given = options(root, output=tmp_path / "m.jsonl")
    import_dataset("videos", given)
    frame = tmp_path / "m_cut" / "frames" / "drum__a_00000520.jpg"
    before = frame.read_bytes()
    frame.unlink()
    import_dataset("videos", given)
    assert frame.read_bytes() == before
    write_scene_video(root / "drum" / "a.mp4", seed=4, seconds=2.0, config=CONFIG)
    import_dataset("videos", given)
    assert not np.array_equal(np.frombuffer(frame.read_bytes(), np.uint8), np.frombuffer(before, np.uint8))


def start(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "avgn", *map(str, arguments)]
    return subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)


def children_of(pid: int, argument: str = "") -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rpartition(")")[2].split()[1])
            if parent == pid and argument in path.with_name("cmdline").read_text():
                found.append(int(path.parent.name))
        except (OSError, ValueError):
            continue
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for(condition: object, seconds: float = 60.0) -> None:
    assert callable(condition)
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)
