"""What visitors of a server teach its bundle, without a server."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avgn.demo import collage
from avgn.runtime import Localizer
from avgn.runtime.bundle import Bundle
from avgn.runtime.errors import InputError
from avgn.runtime.web.lessons import LessonError, Taught
from avgn.scenes.synth import RATE
from avgn.teach import classroom as teacher
from avgn.teach.classroom import Classroom
from avgn.teach.lesson import learn_all
from tests.commands import ENVIRONMENT, avgn, forked
from tests.teach.test_edits import check_same
from tests.web.lessons import classroom, load, picture, recording, without_dog


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return without_dog(tmp_path_factory.mktemp("classroom"))


@pytest.fixture
def room(bundle: Bundle) -> Iterator[Classroom]:
    with classroom(bundle) as (_, room):
        yield room


def dog() -> tuple[float, float, float, float]:
    found = next(source for source in collage.true_sources() if source.label == "dog")
    assert found.track is not None and found.track[0] is not None
    return found.track[0]


def learn(room: Classroom, name: str, box: Any = None, *, replace: bool = False, sound: str = "dog.flac") -> Taught:
    made = room.learn(name, room.look(recording(sound=sound)), box, replace=replace)
    room.keep(made)
    return made


def named(localizer: Localizer) -> dict[str, tuple[float, float] | None]:
    """What is said of the dog before the camera."""
    stream = localizer.open_stream(mode="live")
    sound = collage.read_recording("dog.flac")[: 4 * RATE]
    stream.push_audio(sound, RATE, 0.0)
    stream.end_audio()
    (result,) = stream.push_frame(picture(), 3.5)
    return {source.label: source.peak for source in result.sources}


def test_one_example_is_enough_to_be_found_and_it_is_forgotten_again(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The owner's folder always holds what the server knows, the archive verifies, and no other file is left."""
    left, top, right, bottom = dog()
    output, scratch = tmp_path / "mine", tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    with classroom(bundle, output) as (_, room):
        looked = room.look(recording())
        assert looked.box is not None and not output.exists()
        x, y = (looked.box[0] + looked.box[2]) / 2, (looked.box[1] + looked.box[3]) / 2
        # the hottest region of what the class would be is offered
        assert left <= x <= right and top <= y <= bottom
        made = room.learn("Rex", looked, looked.box, replace=False)
        assert room.taught == {} and "Rex" not in room.known
        room.keep(made)
        assert room.taught == {"Rex": 1} and room.known == (*bundle.classes, "Rex")
        peak = named(made.localizer)["Rex"]
        assert peak is not None and left <= peak[0] <= right and top <= peak[1] <= bottom
        again = learn(room, "Rex", dog())
        assert room.taught == {"Rex": 2} and again.facts["examples"] == 2 and "Rex" in named(again.localizer)
        check_archive(room, bundle, tmp_path)
        assert Bundle.load(output).classes == room.known
        # one edition at a time
        assert len(list(scratch.glob("avgn-teach-*/edition*"))) == 1
        forgotten = room.forget("Rex")
        room.keep(forgotten)
        assert room.taught == {} and room.known == bundle.classes and "Rex" not in named(forgotten.localizer)
    assert Bundle.load(output).classes == bundle.classes and not list(scratch.iterdir())
    with pytest.raises(InputError, match="exists already"), classroom(bundle, output):
        pass


def check_archive(room: Classroom, bundle: Bundle, tmp_path: Path) -> None:
    archive = room.pack()
    assert room.pack() == archive
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(tmp_path)
    unpacked = Bundle.load(tmp_path / "avgn-taught")
    assert unpacked.info.provenance["taught"] == {"Rex": {"clips": 2}}
    variant = unpacked.info.variants[0]
    assert variant.verified is not None and variant.verified["max_abs_taught_sources"] < 1e-3
    check_same(unpacked, [(label, label) for label in bundle.classes])
    assert "Rex" in named(load(unpacked))
    done = forked("verify", tmp_path / "avgn-taught")
    assert done.returncode == 0, done.stderr


def test_a_class_that_is_there_goes_only_when_it_is_said_so_and_comes_back(room: Classroom) -> None:
    looked = room.look(recording(sound="drums.flac"))
    with pytest.raises(LessonError) as refused:
        room.learn("drum", looked, None, replace=False)
    assert refused.value.code == "exists"
    count = len(room.known)
    room.keep(room.learn("drum", looked, None, replace=True))
    assert len(room.known) == count and room.taught == {"drum": 1}
    # what was taught is added to without asking
    learn(room, "drum", sound="drums.flac")
    assert room.taught == {"drum": 2}
    room.keep(room.forget("drum"))
    assert len(room.known) == count and "drum" in room.known


def test_only_classes_that_the_example_comes_near_are_fitted_anew(
    room: Classroom, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted: list[list[str]] = []

    def watched(source: Any, classes: Any, *rest: Any, known: Any, **more: Any) -> Any:
        fitted.append([each.label for each in classes if each.label not in known])
        return learn_all(source, classes, *rest, known=known, **more)

    monkeypatch.setattr(teacher, "learn_all", watched)
    learn(room, "Rex", dog())
    learn(room, "voice", (0.0, 0.0, 0.55, 0.6), sound="speech.flac")
    learn(room, "hound", dog())
    assert fitted == [["Rex"], ["voice"], ["Rex", "hound"]]


def test_what_can_not_be_learnt_from_is_said(room: Classroom, monkeypatch: pytest.MonkeyPatch) -> None:
    for code, given in {
        "silent": recording(sound=None),
        "dark": recording(shown=np.full((240, 320, 3), 30, np.uint8)),
    }.items():
        with pytest.raises(LessonError) as refused:
            room.look(given)
        assert refused.value.code == code
    monkeypatch.setattr(teacher, "MOST_EXAMPLES", 1)
    learn(room, "Rex", dog())
    with pytest.raises(LessonError) as refused:
        learn(room, "Rex", dog())
    assert refused.value.code == "many-examples"
    monkeypatch.setattr(teacher, "MOST_CLASSES", 1)
    with pytest.raises(LessonError) as refused:
        learn(room, "Bello", dog())
    assert refused.value.code == "many-classes" and room.taught == {"Rex": 1}


@pytest.mark.parametrize(
    "options, words",
    [
        (["tiny", "--teach"], "can't be taught: the classes of avgn-tiny are not rows of a classifier"),
        (["world", "--teach", "--backend", "tensorrt-rtx"], "tensorrt"),
        (["world", "--teach-output", "new"], "--teach-output goes with --teach"),
        (["world", "--teach", "--teach-output", "."], "is no bundle and is not overwritten|exists already"),
    ],
)
def test_what_can_not_be_is_refused_at_the_start(options: list[str], words: str, tmp_path: Path) -> None:
    (tmp_path / "something").touch()
    done = avgn("serve", *options, "--port", "0", cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert any(word in done.stderr for word in words.split("|")) and done.stderr.count("\n") == 1


def test_a_missing_extra_is_said_at_the_start() -> None:
    script = "import sys; sys.modules['onnx'] = None; from avgn.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", script, "serve", "world", "--teach", "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=300)
    assert done.returncode == 2 and done.stderr == "avgn: onnx is not installed: pip install 'avgn[teach]'\n"
