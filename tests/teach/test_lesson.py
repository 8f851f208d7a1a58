"""A class taken out and taught back from a few pictures and sounds, and what people's folders hold besides."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from avgn.demo.collage import MATERIAL, read_recording
from avgn.runtime.audio import fit_window, resample
from avgn.runtime.bundle import Bundle
from avgn.runtime.errors import InputError
from avgn.runtime.localizer import Localizer
from avgn.runtime.manifest import read_manifest
from avgn.runtime.reading import read_frame
from avgn.scenes.encode import encode_video
from avgn.scenes.synth import RATE
from avgn.scenes.writer import write_wav
from avgn.teach import Changes, Lesson, give_lesson, teach
from avgn.teach.bundles import read_tokens
from avgn.teach.examples import MOST_FILES, check_contradictions, find_examples, read_examples
from avgn.teach.features import Encoders
from avgn.teach.marks import read_boxes
from tests.commands import avgn, forked
from tests.teach.material import COUNT, dog_pictures, dog_sounds, tone
from tests.teach.test_edits import check_same


@pytest.fixture(scope="module")
def dogs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dogs")
    dog_pictures(folder)
    dog_sounds(folder)
    return folder


@pytest.fixture(scope="module")
def lesson(dogs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lesson]:
    folder = tmp_path_factory.mktemp("lesson")
    (dogs / "notes.txt").write_text("not an example")
    (dogs / "broken.jpg").write_bytes(b"no picture")
    write_wav(dogs / "silent.wav", np.zeros(RATE, np.float32))
    (dogs / "copy.wav").write_bytes((dogs / "s0.wav").read_bytes())
    yield give_lesson(
        "world", Changes(classes={"Rex": dogs}, remove=["dog"]), folder / "new", manifest=folder / "training"
    )
    for name in ("notes.txt", "broken.jpg", "silent.wav", "copy.wav"):
        (dogs / name).unlink()


def say(bundle: Bundle, picture: str, sound: str) -> dict[str, float]:
    """Run a photograph with a recording of the demo; returns the probabilities heard and seen of Rex."""
    engine = Localizer.load(bundle, "onnxruntime", threads=1).engine
    info = engine.info
    waveform = fit_window(resample(read_recording(sound), RATE, info.sample_rate), info.window_samples)
    heard = engine.run_audio(waveform[None].astype(np.float32))
    seen = engine.run_image(read_frame(MATERIAL / picture, info.image_size)[None], heard["sources"])
    at = info.classes.index("Rex")
    return {"heard": float(heard["audio_prob"][0, at]), "seen": float(seen["visual_prob"][0, at])}


def check_finite(bundle: Bundle) -> None:
    """A class that is far behind the best one of a cell has a map of numbers all the same."""
    for backend in ("onnxruntime", "openvino"):
        engine = Localizer.load(bundle, backend, threads=1).engine
        for picture in ("dog.jpg", "cat.jpg", "drums.jpg", "astronaut.jpg"):
            frame = read_frame(MATERIAL / picture, engine.info.image_size)[None]
            found = engine.run_image(frame, np.zeros((1, len(bundle.classes), 1), np.float32))
            assert all(np.isfinite(value).all() for value in found.values())


def test_the_class_is_heard_and_seen_and_others_are_not_taken_for_it(lesson: Lesson) -> None:
    assert lesson.bundle.classes[-1] == "Rex" and "dog" not in lesson.bundle.classes
    right, wrong = say(lesson.bundle, "dog.jpg", "dog.flac"), say(lesson.bundle, "drums.jpg", "drums.flac")
    assert right["heard"] > 0.5 and right["seen"] > 0.99
    assert wrong["heard"] < 0.05 and wrong["seen"] < 0.95


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_the_other_classes_say_what_they_said(lesson: Lesson, backend: str) -> None:
    check_same(lesson.bundle, [(label, label) for label in lesson.bundle.classes if label != "Rex"], backend)


def test_the_report_counts_what_was_used_and_names_what_was_not(lesson: Lesson) -> None:
    facts = lesson.report["classes"]["Rex"]
    assert facts["examples"] == {"pictures": COUNT, "sounds": COUNT}
    reasons = {each["file"]: each["reason"] for each in facts["left_out"]}
    # of two files of the same content the first one by its name is used
    assert set(reasons) == {"broken.jpg", "silent.wav", "s0.wav"}
    assert "not an image" in reasons["broken.jpg"] and "silent" in reasons["silent.wav"]
    assert facts["recall"] >= 0.8 and facts["precision"] >= 0.8 and facts["heard"] >= 0.8 and facts["seen"] == 1.0
    assert json.loads(json.dumps(lesson.report)) == lesson.report


def test_the_bundle_says_what_was_taught_and_nothing_of_this_machine(lesson: Lesson, dogs: Path) -> None:
    assert lesson.bundle.info.provenance["taught"] == {"Rex": {"pictures": COUNT, "sounds": COUNT}}
    variant = lesson.bundle.info.variants[0]
    assert variant.verified is not None and variant.verified["max_abs_taught_sources"] < 1e-4
    assert "ciou_0.3" not in variant.verified
    for file in lesson.bundle.path.iterdir():
        assert str(dogs).encode() not in file.read_bytes() and dogs.name.encode() not in file.read_bytes()


def test_the_same_examples_are_a_manifest_for_training(lesson: Lesson) -> None:
    manifest = read_manifest(lesson.bundle.path.parent / "training" / "manifest.jsonl")
    assert manifest.classes == ("Rex",) and len(manifest.items) == COUNT
    assert all(item.frame and item.audio and item.sources[0].sounding for item in manifest.items)


@pytest.mark.soak
def test_training_runs_on_that_manifest(lesson: Lesson, tmp_path: Path) -> None:
    options = ["--preset", "avgn-tiny", "--visual-weights", "random", "--batch-size", "4", "--steps", "2"]
    manifest = lesson.bundle.path.parent / "training" / "manifest.jsonl"
    done = avgn("train", manifest, *options, "--output", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "run").rglob("model.safetensors"))


def test_a_taught_bundle_is_taught_further(lesson: Lesson, tmp_path: Path) -> None:
    again = give_lesson(lesson.bundle, Changes(keep=["Rex", "violin"], rename={"Rex": "Bello"}), tmp_path / "b").bundle
    assert again.classes == ("violin", "Bello")
    check_same(again, [("violin", "violin"), ("Bello", "Rex")], old=str(lesson.bundle.path))
    assert again.info.provenance["taught"] == {"Bello": {"renamed": "Rex"}}


def test_clips_are_learnt_from_with_boxes_and_masks(tmp_path: Path) -> None:
    """One clip alone: it works, and the report says what it is worth."""
    folder = tmp_path / "examples"
    folder.mkdir()
    picture = cv2.resize(cv2.imread(str(MATERIAL / "dog.jpg")), (320, 240))[..., ::-1]
    sound = read_recording("dog.flac")[: 2 * RATE]
    encode_video(folder / "clip.mp4", (picture for _ in range(50)), sound, (320, 240))
    cv2.imwrite(str(folder / "boxed.png"), picture[..., ::-1])
    (folder / "boxed.json").write_text('{"boxes": [[0.1, 0.1, 0.9, 0.9]]}')
    cv2.imwrite(str(folder / "masked.png"), picture[..., ::-1] // 2)
    cv2.imwrite(str(folder / "masked.mask.png"), np.full((240, 320), 255, np.uint8))
    made = give_lesson("world", Changes(classes={"Rex": folder}), tmp_path / "new")
    facts = made.report["classes"]["Rex"]
    assert facts["examples"] == {"clips": 1, "pictures": 2} and not facts["left_out"]
    assert facts["more_examples"] == 4 and any("fewer than 5" in text for text in facts["warnings"])
    found = say(made.bundle, "dog.jpg", "dog.flac")
    assert found["heard"] > 0.3 and found["seen"] > 0.9


def test_a_clip_without_a_sound_track_is_pictures_and_one_without_pictures_a_sound(tmp_path: Path) -> None:
    picture = cv2.resize(cv2.imread(str(MATERIAL / "dog.jpg")), (160, 120))[..., ::-1]
    bark = read_recording("dog.flac")[: 2 * RATE]
    for name in ("both", "silent", "a"):
        encode_video(tmp_path / f"{name}.mp4", (picture for _ in range(50)), bark, (160, 120))
    for name in ("silent", "a"):
        whole = tmp_path / f"{name}.mp4"
        part = ["ffmpeg", "-v", "error", "-i", str(whole), "-an", "-c", "copy", str(tmp_path / "part.mp4")]
        subprocess.run(part, check=True)
        (tmp_path / "part.mp4").rename(whole)
    subprocess.run(
        ["ffmpeg", "-v", "error", "-i", tmp_path / "both.mp4", "-vn", "-c", "copy", tmp_path / "heard.mp4"], check=True
    )
    dog_sounds(tmp_path, 1)
    # of the same name as pictures without sound
    write_wav(tmp_path / "a.wav", bark * 0.5)
    found, _ = find_examples("x", tmp_path)
    examples = read_examples("x", found, Encoders(read_tokens(Bundle.load("world"))), lambda: None)
    assert not examples.left_out
    assert {each.name: (each.kind, len(each.pictures), each.heard is not None) for each in examples.used} == {
        "a.wav": ("clip", 3, True),
        "both.mp4": ("clip", 3, True),
        "silent.mp4": ("picture", 3, False),
        "heard.mp4": ("sound", 0, True),
        "s0.wav": ("sound", 0, True),
    }


def test_a_class_without_pictures_is_only_off_screen(dogs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sounds"
    dog_sounds(folder, 5)
    bundle = teach("world", {"Rex": folder})
    facts = say(bundle, "dog.jpg", "dog.flac")
    assert facts["heard"] > 0.3 and facts["seen"] < 1e-6
    check_finite(bundle)
    done = forked("teach", "world", tmp_path / "new", "--class", f"Rex={folder}", "--report", tmp_path / "r.json")
    assert done.returncode == 0, done.stderr
    assert "no picture shows it" in done.stdout
    assert json.loads((tmp_path / "r.json").read_text())["classes"]["Rex"]["seen"] is None


def test_pictures_without_sound_are_refused_with_the_way_out(dogs: Path, tmp_path: Path) -> None:
    dog_pictures(tmp_path / "seen", 2)
    done = forked("teach", "world", tmp_path / "new", "--class", f"Rex={tmp_path / 'seen'}")
    assert done.returncode == 2 and "has 2 pictures and no sound that can be used" in done.stderr
    assert not (tmp_path / "new").exists()


def test_silence_alone_is_refused(tmp_path: Path) -> None:
    (tmp_path / "quiet").mkdir()
    write_wav(tmp_path / "quiet" / "a.wav", np.zeros(2 * RATE, np.float32))
    with pytest.raises(InputError, match=r"no example of class 'hush' can be used \(a.wav: it is silent"):
        teach("world", {"hush": tmp_path / "quiet"}, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_sound_of_a_moment_is_left_out_and_says_how_short_it_is(tmp_path: Path) -> None:
    """By itself, and in a file that is silent but for it; a drum's beat is heard."""
    encoders = Encoders(read_tokens(Bundle.load("world")))

    def beat(name: str, seconds: float, of: float) -> None:
        sound = np.zeros(round(of * RATE), np.float32)
        count = round(seconds * RATE)
        sound[:count] = 0.5 * np.sin(2 * np.pi * 300 * np.arange(count) / RATE)
        write_wav(tmp_path / name, sound)

    beat("moment.wav", 0.01, 0.01)
    beat("padded.wav", 0.05, 3.0)
    beat("drum.wav", 0.13, 0.13)
    beat("kept.wav", 0.13, 3.0)
    examples = read_examples("x", find_examples("x", tmp_path)[0], encoders, lambda: None)
    assert {each.name for each in examples.used} == {"drum.wav", "kept.wav"}
    reasons = dict(examples.left_out)
    assert reasons["moment.wav"] == "it is too short (0.01 s of it can be heard, 0.1 s are the least)"
    assert "it is too short (0.0" in reasons["padded.wav"]
    for name in ("drum.wav", "kept.wav", "padded.wav"):
        (tmp_path / name).unlink()
    done = forked("teach", "world", tmp_path / "new", "--class", f"tick={tmp_path}")
    said = done.stderr.splitlines()[-1]
    assert (
        done.returncode == 2
        and "avgn: no example of class 'tick' can be used (moment.wav: it is too short (0.01 s of it can be heard"
        in said
    ), said
    assert not (tmp_path / "new").exists()


def test_the_same_clip_in_two_classes_is_refused(tmp_path: Path) -> None:
    for label in ("one", "two"):
        (tmp_path / label).mkdir()
    tone(tmp_path / "one" / "a.wav", 440)
    (tmp_path / "two" / "b.wav").write_bytes((tmp_path / "one" / "a.wav").read_bytes())
    with pytest.raises(InputError, match=r"b.wav of class 'two' is the same clip as .*a.wav of class 'one'"):
        teach("world", {label: tmp_path / label for label in ("one", "two")}, tmp_path / "new")


def test_a_class_that_exists_asks_for_replace(dogs: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"class 'dog' is in the bundle already: pass --replace"):
        teach("world", {"dog": dogs}, tmp_path / "new")
    made = teach("world", {"dog": dogs}, tmp_path / "new", replace=True)
    assert made.classes == Bundle.load("world").classes
    check_same(made, [(label, label) for label in made.classes if label != "dog"])


def test_of_ten_thousand_files_as_many_are_read_as_help(tmp_path: Path) -> None:
    for number in range(10_000):
        (tmp_path / f"{number:05d}.wav").touch()
    found, passed = find_examples("many", tmp_path)
    assert len(found) == MOST_FILES and passed == 10_000 - MOST_FILES
    assert (found[0].name, found[-1].name) == ("00000.wav", "09999.wav")


def test_half_of_a_clip_is_used_where_the_other_half_is_nothing(tmp_path: Path) -> None:
    encoders = Encoders(read_tokens(Bundle.load("world")))
    tone(tmp_path / "black.wav", 700)
    cv2.imwrite(str(tmp_path / "black.png"), np.zeros((64, 64, 3), np.uint8))
    dog_pictures(tmp_path, 1)
    write_wav(tmp_path / "p0.wav", np.zeros(RATE, np.float32))
    (tmp_path / "empty.wav").touch()
    (tmp_path / "gone.wav").symlink_to(tmp_path / "nowhere.wav")
    found, _ = find_examples("x", tmp_path)
    examples = read_examples("x", found, encoders, lambda: None)
    assert {each.name: (bool(each.pictures), each.heard is not None) for each in examples.used} == {
        "black.wav": (False, True),
        "p0.wav": (True, False),
    }
    reasons = dict(examples.left_out)
    assert reasons["black.wav"] == "its picture: it is of one colour" and reasons["p0.wav"].startswith(
        "its sound: it is silent"
    )
    assert set(reasons) == {"black.wav", "p0.wav", "empty.wav", "gone.wav"}
    assert reasons["gone.wav"] == "it can't be read (no such file or directory)"


def test_frames_of_a_long_clip_go_with_its_sound(tmp_path: Path) -> None:
    """It barks and is seen for three seconds, and nothing comes after."""
    picture = cv2.resize(cv2.imread(str(MATERIAL / "dog.jpg")), (160, 120))[..., ::-1]
    black = np.zeros_like(picture)
    sound = np.zeros(50 * RATE, np.float32)
    bark = read_recording("dog.flac")[: 3 * RATE]
    sound[: len(bark)] = bark
    encode_video(tmp_path / "a.mp4", (picture if n < 75 else black for n in range(50 * 25)), sound, (160, 120))
    found, _ = find_examples("x", tmp_path)
    examples = read_examples("x", found, Encoders(read_tokens(Bundle.load("world"))), lambda: None)
    assert not examples.left_out
    assert examples.used[0].heard is not None and len(examples.used[0].pictures) == 3


def test_pairs_by_name_hidden_files_and_masks_are_told_apart(tmp_path: Path) -> None:
    for name in ("a.jpg", "a.wav", "b.PNG", "b.mask.png", ".hidden.wav", "sub/c.mp4", "Thumbs.db", "d.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found, passed = find_examples("x", tmp_path)
    assert {(each.name, each.kind) for each in found} == {
        ("a.wav", "clip"),
        ("b.PNG", "picture"),
        ("sub/c.mp4", "clip"),
    }
    assert not passed


def test_every_picture_of_one_name_is_used_and_one_goes_with_the_sound(tmp_path: Path) -> None:
    for name in ("a.bmp", "a.jpg", "a.png", "a.wav", "b.JPG", "b.png", "b.mask.jpg"):
        (tmp_path / name).touch()
    found, _ = find_examples("x", tmp_path)
    assert {(each.kind, *(file.name for file in each.files)) for each in found} == {
        ("clip", "a.bmp", "a.wav"),
        ("picture", "a.jpg"),
        ("picture", "a.png"),
        ("picture", "b.JPG"),
        ("picture", "b.png"),
    }


def test_a_copy_of_what_cant_be_used_is_used(tmp_path: Path) -> None:
    """The first of both has a broken file of boxes beside it."""
    dog_pictures(tmp_path, 1)
    (tmp_path / "p0.json").write_text("[]")
    (tmp_path / "q0.jpg").write_bytes((tmp_path / "p0.jpg").read_bytes())
    found, _ = find_examples("x", tmp_path)
    examples = read_examples("x", found, Encoders(read_tokens(Bundle.load("world"))), lambda: None)
    assert [each.name for each in examples.used] == ["q0.jpg"]
    assert [name for name, _ in examples.left_out] == ["p0.jpg"]


def test_empty_files_in_two_classes_are_no_contradiction(tmp_path: Path) -> None:
    for label in ("one", "two"):
        (tmp_path / label).mkdir()
        (tmp_path / label / "broken-download.wav").touch()
    check_contradictions({label: find_examples(label, tmp_path / label)[0] for label in ("one", "two")})


def test_an_empty_folder_and_a_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no clip, picture or sound"):
        find_examples("x", tmp_path)
    (tmp_path / "f").touch()
    with pytest.raises(InputError, match="is not a folder"):
        find_examples("x", tmp_path / "f")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"boxes": []}',
        '{"boxes": [[0, 0, 2, 1]]}',
        '{"boxes": [[0.5, 0, 0.4, 1]]}',
        '{"boxes": [["a"]]}',
        "[" * 9999,
    ],
    ids=len,
)
def test_boxes_that_are_none_are_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError, match=r"a.json beside it must be"):
        read_boxes(tmp_path / "a.json")


def test_a_marked_place_is_what_is_learnt(tmp_path: Path) -> None:
    source = read_tokens(Bundle.load("world"))
    encoders = Encoders(source)
    cv2.imwrite(str(tmp_path / "a.png"), np.arange(60_000, dtype=np.uint32).astype(np.uint8).reshape(100, 200, 3))
    (tmp_path / "a.json").write_text('{"boxes": [[0.5, 0, 1, 1]]}')
    found, _ = find_examples("x", tmp_path)
    (example,) = read_examples("x", found, encoders, lambda: None).used
    inside = example.pictures[0].inside
    assert inside is not None
    grid = inside.reshape(source.bundle.info.grid)
    assert (grid[:, :5] == 0).all() and (grid[:, 5:] == 1).all()


def test_encoders_that_were_trained_further_are_noticed(
    dogs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from avgn.teach import lesson as module
    from avgn.teach.bank import Bank, read_bank

    bank = read_bank()
    other = replace(bank.sounds, probe=bank.sounds.probe[:, ::-1].copy())
    monkeypatch.setattr(module, "read_bank", lambda: Bank(sounds=other, cells=bank.cells))
    with pytest.raises(InputError, match="trained further"):
        teach("world", {"Rex": dogs}, tmp_path / "new")
