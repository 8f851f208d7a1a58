"""avgn localize with folders and several files, and arguments in any order."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest

from avgn.cli.arguments import arrange
from avgn.cli.options import make_parser
from avgn.runtime.errors import InputError
from avgn.runtime.several import list_jobs
from avgn.scenes import SceneConfig
from avgn.scenes.video import write_scene_video
from tests.commands import forked, refused


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "scene.mp4"
    write_scene_video(path, seed=3, seconds=1.0, config=SceneConfig(split="test", sources=(1, 1), silent=(0, 0)))
    return path


def place(root: Path, video: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(video, root / name)
    return root


def written(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_folder_is_localized_and_a_bad_file_named(tmp_path: Path, video: Path) -> None:
    root = place(tmp_path / "in", video, "a.mp4", "a.mkv", "deep/er/b.MOV", ".hidden/c.mp4", "__MACOSX/d.mp4")
    (root / "bad.mp4").write_text("no video " * 100)
    (root / "notes.txt").write_text("x")
    done = forked("localize", "tiny", root, "--output", tmp_path / "out", "--csv", tmp_path / "out" / "csv")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert written(tmp_path / "out") == sorted(
        f"{folder}{name}"
        for name in ("a.mkv", "a.mp4", "deep/er/b")
        for folder, name in (("", f"{name}.overlay.mp4"), ("", f"{name}.jsonl"), ("csv/", f"{name}.csv"))
    )
    assert all(len((tmp_path / "out" / f"{n}.jsonl").read_text().splitlines()) == 25 for n in ("a.mp4", "deep/er/b"))
    assert "3 of 4 videos, 75 frames" in done.stdout.splitlines()[-1]
    assert f"{root / 'bad.mp4'}: not localized: {root / 'bad.mp4'} can't be opened as video" in done.stdout
    assert done.stderr.splitlines() == [
        "avgn: passed over: 2 hidden or system files (.hidden, __MACOSX)",
        "avgn: passed over: 1 files that are no videos (notes.txt)",
        f"avgn: 1 of 4 videos could not be localized: {root / 'bad.mp4'}",
    ]


def test_outputs_inside_of_the_folder_are_no_inputs(tmp_path: Path, video: Path) -> None:
    root = place(tmp_path / "in", video, "a.mp4")
    for output in (root / "out", root):
        for _ in range(2):
            done = forked("localize", "tiny", root, "--output", output, "--duration", 0.2)
            assert done.returncode == 0 and "1 of 1 videos, 5 frames" in done.stdout, done.stdout
    assert (root / "a.mp4").read_bytes() == video.read_bytes()


def test_several_files_whose_names_collide(tmp_path: Path, video: Path) -> None:
    one, two = place(tmp_path / "1", video, "a.mp4"), place(tmp_path / "2", video, "A.mp4", "a.mkv")
    given = [one / "a.mp4", two / "A.mp4", two / "a.mkv", one / "a.mp4"]
    jobs = list_jobs([str(path) for path in given], [], lambda message: None)
    assert [(job.video, job.name) for job in jobs] == [
        (given[0], "a.mp4"),
        (given[1], "A.mp4-2"),
        (given[2], "a.mkv"),
    ]
    done = forked("localize", "tiny", given[0], "--json", tmp_path / "out", given[2], "--duration", 0.1)
    assert done.returncode == 0, done.stderr
    assert written(tmp_path / "out") == ["a.mkv.jsonl", "a.mp4.jsonl"]
    # without any output the lines on the terminal are all that is wanted
    done = forked("localize", "tiny", *given[:2], "--duration", 0.1)
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 3


def test_what_does_not_go_with_several(tmp_path: Path, video: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    assert "holds no video: give a folder" in refused("localize", "tiny", tmp_path / "empty")
    for options, expected in (
        (("--output", tmp_path / "file"), "is a file, but must be a folder for several videos"),
        (("--json", "-"), "--json - is a file"),
        (("--audio", video), "--audio goes with one video"),
        (("--seconds", 3), "--seconds goes with one video"),
        (("--show",), "--show is for live sources"),
        (("--live",), "--live and --no-live are for an address"),
        (("rtsp://x/y",), "is an address or a camera: localize it on its own"),
        (("--manifest", tmp_path / "m.jsonl"), "--manifest names the items"),
    ):
        assert expected in refused("localize", "tiny", video, video.parent, *options)
    done = forked("localize", "tiny", tmp_path / "none.mp4", video, "--duration", 0.1)
    assert done.returncode == 1 and "none.mp4 does not exist" in done.stdout


def test_one_file_into_a_folder(tmp_path: Path, video: Path) -> None:
    assert forked("localize", "tiny", video, "--output", f"{tmp_path}/new/", "--duration", 0.1).returncode == 0
    assert written(tmp_path / "new") == ["scene.jsonl", "scene.overlay.mp4"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("-clip.mp4", "--json", "out.jsonl", "--duration", "0.1"),
        ("--", "-clip.mp4", "--json", "out.jsonl", "--duration", "0.1"),
        ("--json", "out.jsonl", "--duration", "0.1", "--", "-clip.mp4"),
        ("--json=out.jsonl", "-clip.mp4", "--duration=0.1"),
        ("--dur", "0.1", "--json", "out.jsonl", "./-clip.mp4"),
        ("--audio", "-clip.mp4", "-clip.mp4", "--json", "out.jsonl", "--duration", "0.1"),
    ],
    ids=["plain", "dashes first", "dashes last", "joined", "short", "value"],
)
def test_a_file_that_begins_with_a_dash(tmp_path: Path, video: Path, arguments: tuple[str, ...]) -> None:
    place(tmp_path, video, "-clip.mp4")
    done = forked("localize", "tiny", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 3


def test_arguments_are_arranged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("-x").write_text("")
    Path("--output").write_text("")
    parser = make_parser("x", "")
    parser.add_argument("files", nargs="*")
    parser.add_argument("-o", "--output", type=str, default=None)
    parser.add_argument("--show", action="store_true")
    parser.add_argument("--number", type=float, default=None)
    for given, files, output in (
        (["a", "--output", "o", "b"], ["a", "b"], "o"),
        (["--show", "a", "-o", "-x", "b"], ["a", "b"], "-x"),
        (["-x", "a", "--output=o"], ["-x", "a"], "o"),
        (["--", "--output", "-y", "--show"], ["--output", "-y"], None),
        (["a", "-"], ["a", "-"], None),
        (["--number", "-3", "a"], ["a"], None),
        (["--out", "o", "a"], ["a"], "o"),
        ([], [], None),
    ):
        found = parser.parse_args(given)
        assert (found.files, found.output) == (files, output), given
    assert arrange(parser, ["a", "--bogus", "b"]) == ["a", "--bogus", "b"]
    for wrong in (["a", "--bogus"], ["-y"], ["a", "--output"], ["a", "--output", "--show"]):
        with pytest.raises(InputError, match="see avgn x --help"):
            parser.parse_args(wrong)


@pytest.mark.skipif(os.name == "nt", reason="names on Windows are text")
def test_names_that_are_no_utf8(tmp_path: Path, video: Path) -> None:
    name = os.fsdecode(b"fl\xf6te.mp4")
    root = place(tmp_path / "in", video, name)
    done = forked("localize", "tiny", root, "--json", tmp_path / "out", "--duration", 0.1)
    assert done.returncode == 0 and "fl\\udcf6te.mp4: 3 frames" in done.stdout, done.stderr
    (lines,) = (tmp_path / "out").iterdir()
    assert os.fsencode(lines.name) == b"fl\xf6te.jsonl" and json.loads(lines.read_text().splitlines()[0])["frame"] == 0


@pytest.mark.parametrize("command", ["localize", "serve", "evaluate"])
def test_every_option_says_what_it_does(command: str) -> None:
    lines = " ".join(forked(command, "--help").stdout.partition("positional arguments:")[2].split())
    assert "--backend BACKEND what runs the graphs" in lines
    assert not re.findall(r"--[a-z-]+ [A-Z_]+ \(", lines)
