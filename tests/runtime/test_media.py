"""Real files in real codecs, read as frames and sound and localized."""

from __future__ import annotations

import struct
import wave
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from avgn.runtime import InputError, Localizer, open_media
from avgn.runtime.media import AudioBlock, AudioEnd, VideoFrame
from avgn.runtime.probe import probe
from tests.runtime.clips import Scene, still_clip, write_clip

SCENE = Scene(seen={0: (0.25, 0.3), 1: (0.7, 0.6)}, heard=(0, 2))
MATRICES = {90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}

FORMATS: dict[str, dict[str, Any]] = {
    "h264-aac.mp4": {},
    "vp9-opus.mkv": {"video_codec": "libvpx-vp9", "audio_codec": "libopus", "rate": 48000, "channels": 2},
    "vp9-opus.webm": {"video_codec": "libvpx-vp9", "audio_codec": "libopus", "rate": 48000},
    "mjpeg-pcm.avi": {"video_codec": "mjpeg", "audio_codec": "pcm_s16le", "rate": 8000, "ticks": 0},
    "six-channels.mp4": {"rate": 48000, "channels": 6},
    "broadcast.ts": {"rate": 48000, "channels": 2},
    "odd-size.mkv": {"video_codec": "mjpeg", "audio_codec": "flac", "rate": 96000, "size": (141, 203)},
}


@pytest.mark.parametrize("name", FORMATS)
def test_containers_and_codecs(localizer: Localizer, tmp_path: Path, name: str) -> None:
    clip = still_clip(tmp_path / name, SCENE, seconds=1.5, **dict(FORMATS[name]))
    media = open_media(clip)
    results = list(localizer.stream(media))
    assert len(results) == 45 and media.warnings() == []
    assert media.info.audio_channels == FORMATS[name].get("channels", 1)
    times = [result.time for result in results]
    assert times[0] == pytest.approx(0, abs=0.05) and np.diff(times) == pytest.approx(np.full(44, 1 / 30), abs=0.002)
    for number, result in enumerate(results[10:40], start=10):
        found = {source.label: source for source in result.sources}
        # blue is never seen: it is said after 0.6 s; 8 kHz hold none of it
        expected = {"red"} if name == "mjpeg-pcm.avi" or number < 25 else {"red", "blue"}
        assert expected <= set(found) and "green" not in found
        assert found["red"].on_screen and found["red"].peak == pytest.approx((0.25, 0.3), abs=0.07)


def test_variable_frame_rate_keeps_the_containers_times(localizer: Localizer, tmp_path: Path) -> None:
    times = [0.0, 0.05, 0.3, 0.31, 0.5, 0.95, 1.2, 1.9]
    clip = write_clip(tmp_path / "v.mkv", [SCENE.frame()] * len(times), times, SCENE.sound(2.0, 44100), ticks=1000)
    found = np.array([r.time for r in localizer.stream(clip)])
    # FFmpeg 7 writes AAC's first block before the first picture of Matroska, and times count from it
    assert 0 <= found[0] < 0.025 and found - found[0] == pytest.approx(np.array(times), abs=0.0011)


@pytest.mark.parametrize(
    ("name", "video", "audio"),
    [
        ("a.flv", "flv", "aac"),
        ("a.mpg", "mpeg2video", "mp2"),
        ("a.vob", "mpeg2video", "mp2"),
        ("a.ts", "mpeg2video", "mp2"),
    ],
)
def test_containers_whose_tracks_are_found_by_reading_on(tmp_path: Path, name: str, video: str, audio: str) -> None:
    """PyAV before 17.1 crashes at those that have no list of tracks."""
    clip = still_clip(tmp_path / name, SCENE, seconds=1.0, video_codec=video, audio_codec=audio, fps=25, ticks=0)
    media = open_media(clip)
    assert len(list(media.video())) == 25 and len(list(media.audio())) > 10


@pytest.mark.parametrize("angle", MATRICES)
def test_rotated_video_is_upright(localizer: Localizer, tmp_path: Path, angle: int) -> None:
    upright = SCENE.frame(180, 240)
    stored = np.ascontiguousarray(np.rot90(upright, angle // 90))
    clip = write_clip(tmp_path / "r.mp4", [stored] * 20, [n / 30 for n in range(20)], SCENE.sound(1.0, 44100))
    data = bytearray(clip.read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    a, b, c, d = (struct.pack(">i", value << 16) for value in MATRICES[angle])
    zero, one = struct.pack(">i", 0), struct.pack(">i", 1 << 30)
    data[at : at + 36] = a + b + zero + c + d + zero + zero + zero + one
    clip.write_bytes(data)
    media = open_media(clip)
    assert (media.info.width, media.info.height) == (240, 180) and media.info.rotation % 360 == (-angle) % 360
    frame = next(media.video())
    assert np.abs(frame.rgb.astype(int) - upright).mean() < 4
    result = list(localizer.stream(media))[10]
    assert result.sources[0].peak == pytest.approx((0.25, 0.3), abs=0.07)


def test_sound_that_starts_late_and_has_a_gap(tmp_path: Path, localizer: Localizer) -> None:
    scene = Scene(seen={0: (0.5, 0.5)}, heard=(0,))
    times = [n / 20 for n in range(120)]
    clip = write_clip(
        tmp_path / "gap.mkv",
        [scene.frame()] * 120,
        times,
        scene.sound(4.0, 48000),
        48000,
        audio_codec="libopus",
        sound_start=1.0,
        gap=(1.5, 3.0),
    )
    loud = {round(r.time, 2): r.loudness_db for r in localizer.stream(clip)}
    blocks = list(open_media(clip).audio())
    assert blocks[0].time == pytest.approx(1.0, abs=0.03)
    # the sound is at 1.0 .. 2.5 and 4.0 .. 5.0 seconds; windows of one second around each frame
    assert loud[0.3] < -60 and loud[5.8] < -60 and loud[3.25] < -60
    full = 20 * np.log10(0.2 / np.sqrt(2))
    assert loud[1.75] == pytest.approx(full, abs=0.5) and loud[4.5] == pytest.approx(full, abs=0.7)
    assert loud[2.5] == pytest.approx(full - 3, abs=1.0)


def test_sound_of_another_file(tmp_path: Path, localizer: Localizer) -> None:
    times = [n / 30 for n in range(45)]
    silent = write_clip(tmp_path / "silent.mp4", [SCENE.frame()] * 45, times, None)
    other = still_clip(tmp_path / "other.mkv", Scene(heard=(1,)), seconds=1.5)
    results = list(localizer.stream(silent, audio=other))
    assert [s.label for s in results[20].sources] == ["green"] and results[20].sources[0].on_screen


def test_interleaving_keeps_sound_ahead_and_little_in_memory(tmp_path: Path) -> None:
    clip = still_clip(tmp_path / "c.mp4", SCENE, seconds=3.0)
    heard, ended = 0.0, False
    for event in open_media(clip).events(0.7):
        if isinstance(event, AudioBlock):
            heard = event.time + len(event.samples) / event.rate
        elif isinstance(event, AudioEnd):
            ended = True
        else:
            assert ended or event.time + 0.7 <= heard < event.time + 0.8


def test_sound_that_ends_early_holds_no_frames_back(tmp_path: Path, localizer: Localizer) -> None:
    times = [n / 30 for n in range(90)]
    clip = write_clip(tmp_path / "short.mp4", [SCENE.frame()] * 90, times, SCENE.sound(0.5, 44100))
    stream = localizer.open_stream(mode="file")
    waiting = []
    for event in open_media(clip).events(stream.lookahead):
        if isinstance(event, VideoFrame):
            stream.push_frame(event.rgb, event.time)
        elif isinstance(event, AudioBlock):
            stream.push_audio(event.samples, event.rate, event.time)
        else:
            stream.end_audio()
        waiting.append(len(stream.state.pending))
    assert max(waiting) <= 1 and len(stream.flush()) == 0 and stream.state.frames == 90


@pytest.mark.parametrize("name", ["bad.avi", "bad.mp4", "bad.mkv"])
def test_corrupt_frame_is_skipped_and_counted(tmp_path: Path, localizer: Localizer, name: str) -> None:
    how: dict[str, Any] = FORMATS["mjpeg-pcm.avi"] if name == "bad.avi" else {}
    clip = still_clip(tmp_path / name, SCENE, seconds=2.0, **dict(how))
    with av.open(str(clip)) as container:
        packets = [(p.pos, p.size) for p in container.demux(container.streams.video[0]) if p.size]
    at, size = packets[24]
    data = bytearray(clip.read_bytes())
    data[at + 16 : at + size - 16] = np.random.default_rng(0).bytes(size - 32)
    clip.write_bytes(data)
    media = open_media(clip)
    results = list(localizer.stream(media))
    assert media.corrupt_frames >= 1 and len(results) >= 45
    # as above: times may count from AAC's first block
    assert 0 <= results[0].time < 0.025
    assert results[-1].time - results[0].time == pytest.approx(59 / 30, abs=0.001)
    assert media.warnings()[0] == f"{media.corrupt_frames} corrupt pieces of video were skipped in {clip}"


def message(path: Path, audio: Path | None = None) -> str:
    with pytest.raises(InputError) as caught:
        open_media(path, audio)
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(str(path), "FILE")


def test_files_that_can_not_be_used(tmp_path: Path) -> None:
    file = tmp_path / "x.mp4"
    assert message(file) == "FILE does not exist: give the path of a video file"
    assert message(tmp_path) == "FILE is not a file: give the path of a video file"
    file.write_bytes(b"")
    assert message(file) == "FILE is empty (0 bytes): give a complete video file"
    broken = (
        "FILE can't be opened as video (Invalid data found when processing input): "
        "it is not a media file, or it is truncated"
    )
    file.write_bytes(b"no media at all\n" * 100)
    assert message(file) == broken
    clip = still_clip(tmp_path / "good.mp4", SCENE, seconds=0.5)
    file.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    assert message(file) == broken
    text = tmp_path / "x.txt"
    text.write_text("just text\n" * 50)
    assert message(text) == "FILE can't be opened as video (it is text): it is not a media file"


def test_sound_that_can_not_be_used_is_called_sound(tmp_path: Path) -> None:
    clip = still_clip(tmp_path / "good.mp4", SCENE, seconds=0.3)

    def refusal(sound: Path) -> str:
        return message(clip, sound).replace(str(sound), "SOUND")

    why = "(Invalid data found when processing input): it is not a media file, or it is truncated"
    assert refusal(tmp_path / "gone.wav") == "SOUND does not exist: give the path of a sound file"
    assert refusal(tmp_path) == "SOUND is not a file: give the path of a sound file"
    file = tmp_path / "x.wav"
    file.write_bytes(b"")
    assert refusal(file) == "SOUND is empty (0 bytes): give a complete sound file"
    file.write_bytes(b"RIFF\x00\x00\x00\x00WAVEfmt ")
    assert refusal(file) == f"SOUND can't be opened as sound {why}"
    file.write_text("no media at all\n" * 100)
    assert refusal(file) == f"SOUND can't be opened as sound {why}"
    text = tmp_path / "x.txt"
    text.write_text("just text\n" * 50)
    assert refusal(text) == "SOUND can't be opened as sound (it is text): it is not a media file"
    text.write_text("#EXTM3U\ngood.wav\n")
    assert refusal(text) == "SOUND is a playlist or script that names other files: give the sound itself"
    picture = tmp_path / "x.png"
    assert cv2.imwrite(str(picture), SCENE.frame())
    assert refusal(picture) == "SOUND has no sound: give another file to --audio"
    samples = tmp_path / "none.wav"
    with wave.open(str(samples), "wb") as out:
        out.setparams((1, 2, 22050, 0, "NONE", ""))
    assert "as sound" in refusal(samples) or refusal(samples).endswith("give another file to --audio")
    # the same names where a video is asked for, and where either will do
    assert message(file).startswith("FILE can't be opened as video")
    with pytest.raises(InputError, match="can't be opened as media"):
        probe(file)


def test_sound_that_goes_away_while_it_is_read_is_called_sound(tmp_path: Path) -> None:
    clip = still_clip(tmp_path / "good.mp4", SCENE, seconds=0.3)
    sound = tmp_path / "sound.mp4"
    sound.write_bytes(clip.read_bytes())
    media = open_media(clip, sound)
    sound.unlink()
    for read in (lambda: next(media.audio()), media.open_audio):
        with pytest.raises(InputError, match="sound.mp4 does not exist: give the path of a sound file"):
            read()


def test_missing_streams(tmp_path: Path) -> None:
    silent = write_clip(tmp_path / "silent.mp4", [SCENE.frame()] * 5, [n / 30 for n in range(5)], None)
    assert message(silent) == "FILE has no sound: give the sound with --audio FILE"
    assert message(still_clip(tmp_path / "good.mp4", SCENE, seconds=0.3), silent) == (
        f"{silent} has no sound: give another file to --audio"
    )
    sound = tmp_path / "sound.wav"
    with av.open(str(sound), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=22050, layout="mono")
        samples = (SCENE.sound(1.0, 22050).T * 32767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.sample_rate = 22050
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert message(sound) == "FILE has no video: give a video file (a sound file goes to --audio)"


def test_zero_length(tmp_path: Path) -> None:
    file = tmp_path / "zero.mkv"
    with av.open(str(file), "w") as container:
        video = container.add_stream("mjpeg", rate=30)
        video.width, video.height, video.pix_fmt = 64, 64, "yuvj420p"
        container.add_stream("pcm_s16le", rate=22050, layout="mono")
        container.start_encoding()
    assert message(file) == "FILE holds neither pictures nor sound: it is zero-length or truncated"


def test_pictures_that_can_not_be_decoded(tmp_path: Path) -> None:
    clip = still_clip(tmp_path / "c.avi", SCENE, seconds=0.3, **dict(FORMATS["mjpeg-pcm.avi"]))
    with av.open(str(clip)) as container:
        packets = [(p.pos, p.size) for p in container.demux(container.streams.video[0]) if p.size]
    data = bytearray(clip.read_bytes())
    for at, size in packets:
        data[at + 8 : at + 8 + size] = bytes(size)
    clip.write_bytes(data)
    assert message(clip) == "FILE holds no picture that can be decoded: it is zero-length or damaged"


def test_a_decoder_that_can_not_be_opened_ends(tmp_path: Path) -> None:
    # Theora's wants a header that AVI's lacks, and says so for every packet and at the end
    clip = still_clip(tmp_path / "c.avi", SCENE, seconds=0.3, **dict(FORMATS["mjpeg-pcm.avi"]))
    clip.write_bytes(clip.read_bytes().replace(b"MJPG", b"theo"))
    assert message(clip) == "FILE holds no picture that can be decoded: it is zero-length or damaged"
