"""Which sound track is read, what is said about silent ones, and what `avgn probe` shows."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from avgn.cli import main
from avgn.runtime import InputError, Localizer, localize_file, open_media
from avgn.runtime.clock import AudioClock
from avgn.runtime.track import claimed_end
from tests.runtime.clips import Scene, read_video, still_clip
from tests.runtime.ffmpeg import ffmpeg, needs_ffmpeg

pytestmark = needs_ffmpeg

TONES = {"eng": 440.0, "ger": 1500.0, "fre": 4000.0}


def many_tracks(path: Path, default: int | None, *, silent: int | None = None) -> Path:
    """A clip with a sound track for each of TONES; `default` counts from 1."""
    clip = still_clip(path.with_name("base.mkv"), Scene(seen={0: (0.5, 0.5)}, heard=(0,)), seconds=1.0)
    inputs: list[object] = ["-i", clip]
    options: list[object] = ["-map", "0:v", "-c:v", "copy", "-c:a", "aac", "-t", "1"]
    for number, (language, frequency) in enumerate(TONES.items()):
        source = "anullsrc=r=48000" if number + 1 == silent else f"sine={frequency}:r=48000"
        inputs += ["-f", "lavfi", "-i", source]
        options += ["-map", f"{number + 1}:a", f"-metadata:s:a:{number}", f"language={language}"]
        options += [f"-disposition:a:{number}", "default" if number + 1 == default else "0"]
    ffmpeg(*inputs, *options, path)
    return path


def heard(path: Path, track: str | int | None = None) -> str:
    """The language whose tone is heard."""
    clock = AudioClock(22050)
    for block in open_media(path, audio_track=track).audio():
        clock.push(block.samples, block.rate, block.time)
    clock.close()
    spectrum = np.abs(np.fft.rfft(clock.window(4000, 8192)))
    frequency = float(spectrum.argmax()) * 22050 / 8192
    return min(TONES, key=lambda name: abs(TONES[name] - frequency))


@pytest.mark.parametrize("suffix", ["mkv", "mp4", "mov"])
def test_the_default_track_is_read(tmp_path: Path, suffix: str) -> None:
    assert heard(many_tracks(tmp_path / f"a.{suffix}", 2)) == "ger"
    assert heard(many_tracks(tmp_path / f"b.{suffix}", 3)) == "fre"


def test_without_a_default_the_first_is_read(tmp_path: Path) -> None:
    assert heard(many_tracks(tmp_path / "a.mkv", None)) == "eng"


def test_a_track_is_chosen_by_number_or_language(tmp_path: Path) -> None:
    clip = many_tracks(tmp_path / "a.mkv", 2)
    asked: list[tuple[str | int, str]] = [("1", "eng"), (3, "fre"), ("fre", "fre"), ("fr", "fre"), ("fra", "fre")]
    for track, language in [*asked, ("EN", "eng"), ("de-DE", "ger")]:
        assert heard(clip, track) == language
    for wrong in ("0", "4", "ita", "x", "-1", ""):
        with pytest.raises(InputError) as caught:
            open_media(clip, audio_track=wrong)
        assert str(caught.value) == (
            f"{clip} has no sound track {wrong}: choose one of 1 (aac, eng), 2 (aac, ger), 3 (aac, fre)"
        )


def test_the_overlay_has_the_sound_that_was_heard(tmp_path: Path, localizer: Localizer) -> None:
    clip = many_tracks(tmp_path / "a.mkv", 2)
    localize_file(localizer, clip, output=tmp_path / "o.mp4", audio_track="fre")
    assert heard(tmp_path / "o.mp4") == "fre" and len(read_video(tmp_path / "o.mp4")[0]) == 30


def test_a_silent_sound_is_reported_once(tmp_path: Path, localizer: Localizer) -> None:
    clip = many_tracks(tmp_path / "a.mkv", 1, silent=1)
    assert localize_file(localizer, clip).warnings == (
        f"the sound of {clip} is silent in the track that was read: choose one of 2 other tracks with --audio-track "
        "(avgn probe lists them)",
    )
    assert localize_file(localizer, clip, audio_track="ger").warnings == ()
    alone = still_clip(tmp_path / "silent.mp4", Scene(seen={0: (0.5, 0.5)}), seconds=1.0)
    assert localize_file(localizer, alone).warnings == (
        f"the sound of {alone} is silent: give another sound with --audio FILE",
    )


def test_probe_lists_tracks_and_what_is_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip = many_tracks(tmp_path / "a.mkv", 2)
    assert main(["probe", str(clip)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{clip}: matroska") and len(lines) == 8
    assert lines[1].startswith("  video 1: h264, 240x180, ") and ", fre, " in lines[4] and lines[3].endswith("default")
    assert lines[5:7] == ["used: pictures of 240x180, 30 a second", "used: sound track 2 of 3, 48000 Hz, 1 channel"]
    assert main(["probe", str(clip), "--audio-track", "fr", "--json", "-"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["used"]["audio_track"] == 3 and facts["problem"] is None
    assert [(t["kind"], t["number"], t["language"]) for t in facts["tracks"]][1:] == [
        ("audio", 1, "eng"),
        ("audio", 2, "ger"),
        ("audio", 3, "fre"),
    ]


def test_probe_says_why_a_file_is_of_no_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ffmpeg("-f", "lavfi", "-i", "sine=440:r=48000:d=1", tmp_path / "s.wav")
    assert main(["probe", str(tmp_path / "s.wav"), "--json", str(tmp_path / "f.json")]) == 0
    assert "can't be localized:" in capsys.readouterr().out
    assert json.loads((tmp_path / "f.json").read_text())["used"] is None
    assert main(["probe", str(tmp_path / "none.mp4")]) == 2
    assert "does not exist" in capsys.readouterr().err


def test_the_command_takes_an_audio_track(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip = many_tracks(tmp_path / "a.mkv", 2)
    assert main(["localize", "tiny", str(clip), "--audio-track", "it"]) == 2
    assert capsys.readouterr().err.startswith(f"avgn: {clip} has no sound track it: choose one of 1 (aac, eng)")
    assert main(["localize", "tiny", "udp://127.0.0.1:9", "--audio-track", "2"]) == 2
    assert "--audio-track is for video files" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("track", "whole", "end"),
    [
        # in ticks of a track that begins at 10 s of a file that begins at 8 s
        ({"duration": 45_000, "start_time": 900_000}, {"start_time": 8e6, "duration": 99e6}, 2.5),
        # Matroska's tag, on the clock of the file
        ({"metadata": {"DURATION": "01:02:03.500000000"}}, {"start_time": 0}, 3723.5),
        ({"metadata": {"DURATION": "00:00:12.5"}}, {"start_time": 2e6}, 10.5),
        # what the file says, where it can't be another track's
        ({"metadata": {"DURATION": "soon"}}, {"duration": 7e6}, 7.0),
        ({}, {"duration": 7e6, "streams": [0, 1, 2]}, None),
        ({}, {}, None),
    ],
)
def test_where_a_track_says_it_ends(track: dict[str, Any], whole: dict[str, Any], end: float | None) -> None:
    stream = SimpleNamespace(
        **({"duration": None, "start_time": None, "time_base": Fraction(1, 90_000), "metadata": {}} | track)
    )
    container = SimpleNamespace(**({"start_time": None, "duration": None, "streams": [stream]} | whole))
    assert claimed_end(container, stream) == end
