"""Folders, lists and names as they come from other people's disks."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import wave
from pathlib import Path

import cv2
import numpy as np
import pytest

from avgn.checkpoint import save_model
from avgn.config import preset
from avgn.convert import read_classes
from avgn.data.cache import WaveformCache
from avgn.importers import import_dataset
from avgn.importers.cutting import stem_of
from avgn.importers.files import FRAME_SUFFIXES, Files, read_rows
from avgn.importers.registry import read_class_list
from avgn.importers.report import Report
from avgn.importers.silence import MUTED, MUTED_VIDEO, is_silent, note_muted
from avgn.model import build_model
from avgn.runtime.errors import InputError
from avgn.runtime.folders import PassedOver, find_videos
from avgn.runtime.manifest import Item, Source, read_manifest, write_manifest
from avgn.runtime.texts import read_text
from tests.commands import forked, refused
from tests.importers import sets
from tests.importers.layouts import options, place, write_files, write_jpg, write_list, write_wav

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg writes these containers")
# what ffmpeg is told to write each container with; None: no suffix at all
CONTAINERS = {
    ".3gp": ["-c:v", "h263", "-s", "176x144", "-c:a", "aac"],
    ".3g2": ["-c:v", "mpeg4", "-c:a", "aac"],
    ".wmv": ["-c:v", "wmv2", "-c:a", "wmav2"],
    ".asf": ["-c:v", "wmv2", "-c:a", "wmav2"],
    ".mts": ["-c:v", "mpeg2video", "-c:a", "ac3", "-f", "mpegts"],
    ".m2ts": ["-c:v", "mpeg2video", "-c:a", "ac3", "-f", "mpegts"],
    ".vob": ["-c:v", "mpeg2video", "-c:a", "ac3", "-f", "vob"],
    ".MPEG": ["-c:v", "mpeg1video", "-c:a", "mp2", "-f", "mpeg"],
    ".flv": ["-c:v", "flv", "-c:a", "aac"],
    ".f4v": ["-c:v", "mpeg4", "-c:a", "aac", "-f", "mp4"],
    ".divx": ["-c:v", "mpeg4", "-c:a", "mp2", "-f", "avi"],
    ".mxf": ["-c:v", "mpeg2video", "-c:a", "pcm_s16le", "-ar", "48000"],
    ".ogv": ["-c:v", "libtheora", "-c:a", "libvorbis"],
    ".dat": ["-c:v", "mpeg1video", "-c:a", "mp2", "-f", "mpeg"],
    "": ["-c:v", "mpeg4", "-c:a", "aac", "-f", "mp4"],
}


def ffmpeg(*arguments: object) -> None:
    subprocess.run(["ffmpeg", "-v", "error", "-y", *map(str, arguments)], check=True, timeout=60)


def imported(root: Path, output: Path, **values: object) -> tuple[list[str], dict[str, list[str]], list[str]]:
    """(classes, problems, notes) of an import of videos."""
    found = import_dataset("videos", options(root, output=output, **values))
    return list(found.classes), found.report.problems, found.report.notes


def test_system_folders_are_no_classes_and_are_told(tmp_path: Path, clip: Path) -> None:
    clutter = ("__MACOSX", ".git", "@eaDir", "lost+found", "$RECYCLE.BIN", "System Volume Information", ".Trash-0")
    root = place(tmp_path / "in", clip, "drum/a.mp4", *(f"{name}/x.mp4" for name in clutter))
    place(root, clip, "drum/._a.mp4", "drum/@eaDir/a.mp4", "drum/.hidden/b.mp4")
    for name in ("Thumbs.db", ".DS_Store", "drum/desktop.ini", "drum/Thumbs.db"):
        (root / name).write_bytes(b"x")
    classes, problems, _ = imported(root, tmp_path / "m.jsonl")
    assert classes == ["drum"]
    assert {item.video for item in read_manifest(tmp_path / "m.jsonl").items} == {"drum__a"}
    hidden = problems["hidden or system files, passed over"]
    assert set(hidden) == {
        *clutter,
        *(
            "drum/._a.mp4",
            "drum/@eaDir",
            "drum/.hidden",
            "Thumbs.db",
            ".DS_Store",
            "drum/desktop.ini",
            "drum/Thumbs.db",
        ),
    }


@needs_ffmpeg
@pytest.mark.parametrize("suffix", CONTAINERS, ids=lambda suffix: suffix or "no suffix")
def test_every_container_is_taken(tmp_path: Path, clip: Path, suffix: str) -> None:
    path = tmp_path / "in" / "drum" / f"a{suffix}"
    path.parent.mkdir(parents=True)
    try:
        ffmpeg("-i", clip, *CONTAINERS[suffix], path)
    except subprocess.CalledProcessError:
        pytest.skip(f"this ffmpeg can't write {CONTAINERS[suffix][1]}")
    _, problems, _ = imported(tmp_path / "in", tmp_path / "m.jsonl")
    assert problems == {}
    assert len(read_manifest(tmp_path / "m.jsonl").items) == 2


def test_what_is_passed_over_is_told(tmp_path: Path, clip: Path) -> None:
    root = place(tmp_path / "in", clip, "drum/a.mp4", "loose.mp4")
    (root / "drum" / "notes.txt").write_text("x")
    (root / "drum" / "unknown.xyz").write_bytes(os.urandom(2000))
    write_wav(root / "drum" / "sound.wav")
    (root / "drum" / "nowhere.mp4").symlink_to("none.mp4")
    (root / "bell").mkdir()
    done = forked("import", "videos", root, "--output", tmp_path / "m.jsonl")
    assert done.returncode == 0, done.stderr
    for line in (
        "videos outside of class folders, passed over: 1 (loose.mp4)",
        "files that are no videos, passed over: 4 (drum/notes.txt, drum/nowhere.mp4, drum/sound.wav, drum/unknown.xyz)",
        "class folders without a video: 1 (bell)",
    ):
        assert line in done.stdout.splitlines(), done.stdout


def test_linked_folders_are_followed_once(tmp_path: Path, clip: Path) -> None:
    real = place(tmp_path / "elsewhere", clip, "a.mp4")
    root = tmp_path / "in"
    root.mkdir()
    (root / "drum").symlink_to(real)
    (real / "loop").symlink_to(real)
    assert [str(path.relative_to(root)) for path in find_videos(root, PassedOver())] == ["drum/a.mp4"]
    assert imported(root, tmp_path / "m.jsonl")[0] == ["drum"]


@pytest.mark.skipif(os.name == "nt", reason="names on Windows are text")
def test_file_names_that_are_no_utf8_go_through(tmp_path: Path, clip: Path) -> None:
    name = os.fsdecode(b"fl\xf6te\xff.mp4")
    root = place(tmp_path / "in", clip, f"drum/{name}", "drum/two\nlines.mp4", "drum/" + 240 * "n" + ".mp4")
    done = forked("import", "videos", root, "--output", tmp_path / "m.jsonl", "--check", "--strict")
    assert done.returncode == 0, done.stderr
    items = read_manifest(tmp_path / "m.jsonl").items
    assert len(items) == 6 and all(item.frame is not None and item.frame.is_file() for item in items)
    again = tmp_path / "again.jsonl"
    write_manifest(again, ["drum"], items)
    assert [item.frame.resolve() for item in read_manifest(again).items if item.frame] == [
        item.frame.resolve() for item in items if item.frame
    ]
    assert len(list((tmp_path / "m_cut").glob("*.done"))) == 3
    kept = items[0].frame.stat().st_mtime_ns if items[0].frame else 0
    assert forked("import", "videos", root, "--output", tmp_path / "m.jsonl").returncode == 0
    assert items[0].frame is not None and items[0].frame.stat().st_mtime_ns == kept
    # the decoded sounds are kept under a name made of theirs
    WaveformCache(tmp_path / "cache", 8000).put(items[0].sounds[0], np.zeros(4, np.int16))
    labels = tmp_path / "labels.csv"
    labels.write_bytes(os.fsencode(f"drum/{name};drum\n"))
    assert imported(root, tmp_path / "l.jsonl", labels=labels)[0] == ["drum"]
    assert forked("inspect", tmp_path / "l.jsonl", "--output", tmp_path / "sheet").returncode == 0


@pytest.mark.skipif(os.name == "nt", reason="names on Windows are text")
def test_a_class_that_is_no_utf8_is_named(tmp_path: Path, clip: Path) -> None:
    root = place(tmp_path / "in", clip, os.fsdecode(b"fl\xf6te") + "/a.mp4", "b.mp4")
    said = refused("import", "videos", root, "--output", tmp_path / "m.jsonl")
    assert "class folder" in said and "fl\\udcf6te has a name that is not UTF-8: rename it" in said
    labels = tmp_path / "labels.csv"
    labels.write_bytes(b"b.mp4,fl\xf6te\n")
    said = refused("import", "videos", root, "--output", tmp_path / "m.jsonl", "--labels", labels)
    assert "class 'fl\\udcf6te' of b.mp4 is not UTF-8: save the list as UTF-8" in said


@pytest.mark.parametrize("check", [False, True], ids=["plain", "check"])
def test_muted_clips_are_told(tmp_path: Path, check: bool) -> None:
    root = sets.vggsound(tmp_path)
    for id, values in (
        (sets.VGG[0], np.zeros(80_000)),
        # loud for a hundredth of a second only, between the places that are looked at
        (sets.VGG[1], np.where(np.arange(80_000) // 80 == 517, 9000, 0)),
        (sets.VGG[2], np.where(np.arange(80_000) % 2, 20, -20)),
    ):
        with wave.open(str(root / "audio" / f"{id}.wav"), "wb") as file:
            file.setparams((1, 2, 8000, 0, "NONE", ""))
            file.writeframes(values.astype("<i2").tobytes())
    found = import_dataset("vggsound", options(root, check=check))
    assert found.report.problems["silent under a sounding label"] == [sets.VGG[0], sets.VGG[2]]
    with pytest.raises(InputError, match="2 silent under a sounding label"):
        import_dataset("vggsound", options(root, check=check), strict=True)


@needs_ffmpeg
def test_a_muted_video_is_told_once(tmp_path: Path, clip: Path) -> None:
    root = place(tmp_path / "in", clip, "drum/a.mp4")
    ffmpeg("-i", clip, "-af", "volume=0", root / "drum" / "muted.mp4")
    assert imported(root, tmp_path / "m.jsonl")[1] == {"videos that are silent under a sounding label": ["drum__muted"]}


def test_of_a_video_that_is_silent_in_parts_the_parts_are_told(tmp_path: Path) -> None:
    items = []
    for name, level in (("a0", 0), ("a1", 9000), ("b0", 0), ("b1", 0), ("c0", 0)):
        path = tmp_path / f"{name}.wav"
        with wave.open(str(path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(8000)
            file.writeframes(np.full(4000, level, "<i2").tobytes())
        sources = (Source(label="drum", sounding=True, on_screen=True),)
        items.append(Item(id=name, sources=sources, split="train", dataset="d", video=name[0], audio=path))
    report = Report()
    note_muted(items, 1, report)
    # one of two, both of two, and the only one
    assert report.problems[MUTED] == ["a0", "c0"] and report.problems[MUTED_VIDEO] == ["b"]


@pytest.mark.parametrize("code", ["u1", "<i2", "<i4", "<f4", "<f8"])
def test_silence_in_every_coding(tmp_path: Path, code: str) -> None:
    kind = np.dtype(code)
    middle = 128 if kind.kind == "u" else 0
    loud = {"u": 140, "i": 2 ** (8 * kind.itemsize - 6), "f": 0.01}[kind.kind]
    for name, value, expected in (("silent", middle, True), ("loud", loud, False)):
        data = np.full(5000, value, kind).tobytes()
        form = np.array([3 if kind.kind == "f" else 1, 1], "<u2").tobytes()
        form += np.array([8000, 8000 * kind.itemsize], "<u4").tobytes()
        form += np.array([kind.itemsize, 8 * kind.itemsize], "<u2").tobytes()
        path = tmp_path / f"{name}.wav"
        size = np.array([len(data)], "<u4").tobytes()
        path.write_bytes(b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0" + form + b"data" + size + data)
        assert is_silent(path) is expected
    assert not is_silent(tmp_path / "none.wav")


@pytest.mark.parametrize(
    "text",
    [
        "a.mp4,drum\nb/c.mp4,bell",
        "a.mp4;drum\nb/c.mp4;bell\n",
        "a.mp4\tdrum\r\nb/c.mp4\tbell\r\n",
        "file,class\na.mp4,drum\nb/c.mp4,bell",
        "\ufeffFile;Label\n\na.mp4;drum\nb/c.mp4;bell\n",
        "Class\tVideo file\ndrum\ta.mp4\nbell\tb/c.mp4\n",
        '"filename","labels"\n"a.mp4","drum"\n"b/c.mp4","bell"',
        "# video_id, label\na.mp4, drum\nb/c.mp4, bell",
        "Datei;Klasse\na.mp4;drum\nb/c.mp4;bell",
        "a.mp4,drum\nb\\c.mp4,bell",
    ],
    ids=["comma", "semicolon", "tab", "header", "mark", "turned", "quoted", "hash", "german", "windows"],
)
@pytest.mark.parametrize("codec", ["utf-8", "utf-16"])
def test_lists_of_videos(tmp_path: Path, clip: Path, text: str, codec: str) -> None:
    root = place(tmp_path / "in", clip, "a.mp4", "b/c.mp4")
    labels = tmp_path / "labels.csv"
    labels.write_bytes(text.removeprefix("\ufeff" if codec != "utf-8" else "").encode(codec))
    imported(root, tmp_path / "m.jsonl", labels=labels, fps=0.5)
    found = [(item.video, item.sources[0].label) for item in read_manifest(tmp_path / "m.jsonl").items]
    assert found == [("a", "drum"), ("b__c", "bell")]


def test_delimiters_inside_of_names(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    for text, expected in (
        ("a,female speech; woman\nb,drum", [["a", "female speech; woman"], ["b", "drum"]]),
        ("a;female speech, woman\nb;drum", [["a", "female speech, woman"], ["b", "drum"]]),
        ('a,"x;y"\nb,"x;z"', [["a", "x;y"], ["b", "x;z"]]),
        ('"a"\t"x\ny"\n"b"\tz', [["a", "x\ny"], ["b", "z"]]),
    ):
        path.write_text(text)
        assert read_rows(path, (2,)) == expected


def test_comments_in_lists(tmp_path: Path) -> None:
    path = tmp_path / "l.csv"
    path.write_text("# Segments csv created Sun Mar  5\n# YTID, label\n\na.mp4, bell\n#later\n#1.mp4,drum\n")
    assert read_rows(path, (2,)) == [["a.mp4", "bell"], ["#1.mp4", "drum"]]
    path.write_text("# of today\na.mp4;bell\nb,c.mp4;drum\n")
    assert read_rows(path, (2,)) == [["a.mp4", "bell"], ["b,c.mp4", "drum"]]
    path.write_text("a.mp4,bell\nb.mp4\n")
    with pytest.raises(InputError, match="line 2 has 1 columns, expected 2 to 11: quote names"):
        read_rows(path, range(2, 12))


def test_lists_that_excel_writes_and_quotes_that_nobody_closed(tmp_path: Path) -> None:
    path = tmp_path / "l.csv"
    path.write_bytes("\ufeffsep=;\r\nfile;label\r\na,b.mp4;bell\r\n".encode("utf-16-le"))
    assert read_rows(path, (2,)) == [["a,b.mp4", "bell"]]
    # all that follows the quote would be one class, in a manifest that nobody could read
    path.write_text('a.mp4,bell\nb.mp4,"drum\nc.mp4,flute\n')
    for name in "abc":
        (tmp_path / f"{name}.mp4").write_bytes(b"")
    with pytest.raises(InputError, match=r"l.csv: b.mp4: class 'drum.nc.mp4,flute' holds control characters"):
        import_dataset("videos", options(tmp_path, labels=path))
    (tmp_path / "be\nll").mkdir()
    (tmp_path / "be\nll" / "a.mp4").write_bytes(b"")
    with pytest.raises(InputError, match=r"class folder 'be.nll' holds control characters"):
        import_dataset("videos", options(tmp_path))


def test_names_of_pieces_can_be_shown() -> None:
    # marks of direction and of no width are in titles that were copied from pages
    assert stem_of(Path("bell/a\u202e\u200eb\x85c\u3000\u0645\u200c\u06cc.mp4")) == "bell__a__b_c_\u0645\u200c\u06cc"


def test_an_archive_is_to_be_unpacked(tmp_path: Path) -> None:
    (tmp_path / "set.zip").write_bytes(b"PK")
    with pytest.raises(InputError, match="set.zip is no folder: unpack it and give the one that holds the videos"):
        import_dataset("videos", options(tmp_path / "set.zip", output=tmp_path / "m.jsonl"))


def test_lists_of_data_sets_with_headers(tmp_path: Path) -> None:
    root = sets.vggsound(tmp_path)
    rows = [f"{id};{label}" for id, label in zip(sets.VGG, (sets.ELK, sets.FEMALE, sets.DRUM), strict=True)]
    write_list(root, "vggsound_single_test.csv", ["video_id;class", *rows])
    assert len(import_dataset("vggsound", options(root), strict=True).items) == 3
    published = [f'{id[:11]}\t{int(id[12:])}\t"elk bugling"\ttest' for id in sets.VGG]
    published.append('traincccccc\t10\t"elk bugling"\ttrain')
    write_list(root, "vggsound.csv", ["# YouTube ID\tstart seconds\tlabel\tsplit", *published])
    (root / "metadata" / "vggss.json").unlink()
    assert len(import_dataset("vggsound", options(root)).items) == 3


def test_absolute_paths_and_a_relative_root(tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = place(tmp_path / "in", clip, "a.mp4")
    (tmp_path / "link").symlink_to(root)
    monkeypatch.chdir(tmp_path)
    labels = tmp_path / "labels.csv"
    for given, written in (
        ("in", root / "a.mp4"),
        ("./in", "../in/a.mp4"),
        ("link", root / "a.mp4"),
        (root, tmp_path / "link" / "a.mp4"),
        ("in/../in", "a.mp4"),
    ):
        labels.write_text(f"{written},drum\n")
        imported(Path(given), tmp_path / "m.jsonl", labels=labels)
        assert read_manifest(tmp_path / "m.jsonl").items[0].video == "a"
    place(tmp_path, clip, "out.mp4")
    labels.write_text(f"{tmp_path / 'out.mp4'},drum\n")
    with pytest.raises(InputError, match="is not below in: give a ROOT that holds it"):
        imported(Path("in"), tmp_path / "m.jsonl", labels=labels)


def test_classes_that_differ_in_case_are_told(tmp_path: Path, clip: Path) -> None:
    root = place(tmp_path / "in", clip, "Bell/a.mp4", "bell/b.mp4", "acoustic-guitar/c.mp4", "acoustic guitar/d.mp4")
    place(root, clip, "Fl\u00f6te/e.mp4", "Flo\u0308te/f.mp4", "drum/g.mp4")
    classes, problems, _ = imported(root, tmp_path / "m.jsonl", fps=0.5)
    assert problems == {
        "classes that differ in case or separators alone": ["Bell / bell", "acoustic-guitar / acoustic_guitar"]
    }
    # the coding of an accent is no difference at all
    assert classes == ["Bell", "Fl\u00f6te", "acoustic-guitar", "acoustic_guitar", "bell", "drum"]
    names = tmp_path / "classes.txt"
    names.write_text("Bell\ndrum\n")
    one = place(tmp_path / "one", clip, "bell/a.mp4")
    said = refused("import", "videos", one, "--output", tmp_path / "m.jsonl", "--classes", names)
    assert "bell is written Bell there" in said


def test_byte_order_marks_everywhere(tmp_path: Path) -> None:
    root = write_files(tmp_path, ["a"], ["a"])
    plain = root / "m.jsonl"
    source = {"label": "bell", "sounding": True, "on_screen": True, "boxes": []}
    item = {"id": "a", "frame": "frames/a.jpg", "audio": "audio/a.wav", "split": "test", "sources": [source]}
    item["note"] = "one\u2028two"
    header = {"format": "avgn-manifest", "version": 1, "classes": ["bell"]}
    # JSON may hold what Unicode calls the end of a line
    text = "\n".join(json.dumps(line, ensure_ascii=False) for line in (header, item)) + "\n"
    for codec in ("utf-8", "utf-8-sig", "utf-16"):
        for end in ("\n", "\r\n"):
            plain.write_bytes(text.replace("\n", end).encode(codec))
            assert [item.id for item in read_manifest(plain).items] == ["a"]
        names = tmp_path / "classes.txt"
        names.write_bytes("flute\r\nbell\r\n".encode(codec))
        assert read_classes(names) == read_class_list(names) == ("flute", "bell")
    plain.write_bytes(text.encode() + b"\xff")
    with pytest.raises(InputError, match=r"manifest .* can't be read as UTF-8 \(line 3\): save it as UTF-8"):
        read_manifest(plain)
    with pytest.raises(InputError, match="list .*none does not exist: look"):
        read_text(tmp_path / "none", "list", "look")


def test_files_have_the_mode_that_the_umask_says(tmp_path: Path) -> None:
    small = {"width_visual": 4, "width_audio": 4, "dim": 16, "heads": 4, "depth": 1}
    model = build_model(preset("avgn-tiny", classes=("a", "b"), **small))
    before = os.umask(0o022)
    try:
        for mask in (0o022, 0o002, 0o077):
            os.umask(mask)
            folder = save_model(model, tmp_path / f"{mask:o}")
            modes = {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}
            assert modes == dict.fromkeys(("model.safetensors", "config.json"), 0o666 & ~mask)
            sound = write_wav(tmp_path / f"{mask:o}.wav")
            WaveformCache(tmp_path / f"cache{mask:o}", 8000).put(sound, np.zeros(4, np.int16))
            kept = next((tmp_path / f"cache{mask:o}").rglob("*.npy"))
            assert kept.stat().st_mode & 0o777 == 0o666 & ~mask
    finally:
        os.umask(before)


def test_jpg_comes_before_png_of_the_same_stem(tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg", "a.jpeg", "b.png", "b.jpeg", "c.png", "d.JPG", "._d.jpg"):
        write_jpg(tmp_path / name)
    files = Files([tmp_path], FRAME_SUFFIXES, "")
    assert [files.get(stem) for stem in "abcd"] == [tmp_path / n for n in ("a.jpg", "b.jpeg", "c.png", "d.JPG")]
    assert files.get("._d") is None


@pytest.mark.parametrize("name", ["{}", "{}_10", "{}_10_20", "{}_10000_20000", "video/{}", "a/b/{}"])
def test_vggsound_as_videos(tmp_path: Path, clip: Path, name: str) -> None:
    root = tmp_path / "VGG"
    id = "-_aaaaaaaa__000010"
    stem = id if name.endswith("{}") else id[:11]
    place(root, clip, f"{name.format(stem)}.mp4", "bbbbbbbbbbb_000001.mp4")
    write_list(root, "vggsound_single_test.csv", [f"{id},bell", "ccccccccccc_000002,bell"])
    done = forked("import", "vggsound", root, "--output", tmp_path / "m.jsonl")
    assert done.returncode == 0 and "without a frame on disk: 1 (ccccccccccc_000002)" in done.stdout, done.stderr
    (item,) = read_manifest(tmp_path / "m.jsonl").items
    assert item.id == id and item.frame is not None
    # frame 25 of 50, as it was coded, and all of the sound
    capture = cv2.VideoCapture(str(clip))
    frames = [capture.read()[1] for _ in range(50)]
    middle = cv2.imread(str(item.frame))
    assert middle is not None
    errors = [float(np.abs(middle.astype(float) - frame).mean()) for frame in frames]
    assert abs(int(np.argmin(errors)) - 25) <= 1 and min(errors) < 3
    with wave.open(str(item.sounds[0])) as file:
        assert abs(file.getnframes() / file.getframerate() - 2.0) < 0.1


def test_vggsound_pairs_and_negatives_as_videos(tmp_path: Path, clip: Path) -> None:
    root = tmp_path / "VGG"
    first, second = "aaaaaaaaaaa_000010", "bbbbbbbbbbb_000001"
    place(root, clip, f"{first}.mp4", f"{second}.mkv")
    write_list(root, "vggsound_duet_train.csv", [f"{first},bell,{second},drum"])
    found = import_dataset("vggsound-duet", options(root, split="train", output=tmp_path / "m.jsonl"), strict=True)
    assert [part.frame.name for part in found.items[0].parts] == [f"{first}.jpg", f"{second}.jpg"]
    assert read_manifest(tmp_path / "m.jsonl").items[0].id == f"{first}+{second}"


def test_vggsound_without_any_file(tmp_path: Path) -> None:
    write_list(tmp_path, "vggsound_single_test.csv", ["aaaaaaaaaaa_000010,bell"])
    said = refused("import", "vggsound", tmp_path, "--output", tmp_path / "m.jsonl")
    assert "the layout is frames/<id>.jpg and audio/<id>.wav, or videos <id>.mp4 anywhere below it" in said
