"""Reading real files and running a model over them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from scipy.io import wavfile

from avgn.evaluation.inference import predict
from avgn.runtime.errors import FailureError, InputError
from avgn.runtime.manifest import Item, Manifest
from avgn.runtime.reading import read_clip, read_frame, read_wav

Make = Callable[..., Any]


def test_batches_give_what_single_items_give(make_manifest: Make, tone_engine: Make) -> None:
    manifest = make_manifest(7)
    engine = tone_engine()
    calls: list[tuple[int, int]] = []
    batched = predict(engine, manifest, batch_size=3, progress=lambda done, total: calls.append((done, total)))
    single = predict(engine, manifest, batch_size=1)
    assert calls == [(3, 7), (6, 7), (7, 7)]
    assert all(maps.shape == (4, 7, 7) and maps.dtype == np.float32 for maps in batched.maps)
    np.testing.assert_allclose(np.stack(batched.maps), np.stack(single.maps), atol=1e-6)
    np.testing.assert_allclose(batched.audio_prob, single.audio_prob, atol=1e-6)
    assert batched.items == manifest.items and batched.skipped == {}


def test_frames_are_rgb_and_squashed(tmp_path: Path) -> None:
    image = np.zeros((40, 90, 3), dtype=np.uint8)
    image[:, :, 2] = 200
    cv2.imwrite(str(tmp_path / "red.png"), image)
    frame = read_frame(tmp_path / "red.png", (20, 30))
    assert frame.shape == (20, 30, 3)
    assert (frame == [200, 0, 0]).all()


@pytest.mark.parametrize("kind", [np.int16, np.int32, np.uint8, np.float32])
def test_wav_of_any_kind_becomes_mono(tmp_path: Path, kind: type) -> None:
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(8000) / 8000)
    if kind is np.float32:
        samples = tone.astype(np.float32)
    elif kind is np.uint8:
        samples = (tone * 127 + 128).astype(np.uint8)
    else:
        samples = (tone * np.iinfo(kind).max).astype(kind)
    wavfile.write(tmp_path / "tone.wav", 8000, np.stack([samples, samples], axis=1))
    mono, rate = read_wav(tmp_path / "tone.wav")
    assert rate == 8000 and mono.dtype == np.float32
    np.testing.assert_allclose(mono, tone, atol=0.02)


def test_other_rates_are_resampled(tmp_path: Path, sound: Make) -> None:
    wavfile.write(tmp_path / "tone.wav", 44100, sound(["drum"], 1.0, 44100))
    clip = read_clip(tmp_path / "tone.wav", 16000, 8000)
    spectrum = np.abs(np.fft.rfft(clip * np.hanning(8000)))
    assert clip.shape == (8000,) and spectrum.argmax() == 450


def test_short_clips_are_tiled(tmp_path: Path) -> None:
    wavfile.write(tmp_path / "short.wav", 16000, np.array([0.1, 0.2, 0.3], dtype=np.float32))
    np.testing.assert_allclose(read_clip(tmp_path / "short.wav", 16000, 7), [0.1, 0.2, 0.3, 0.1, 0.2, 0.3, 0.1])


def _break_frame(item: Item) -> None:
    assert item.frame is not None
    item.frame.write_bytes(b"no picture")


def _empty_frame(item: Item) -> None:
    assert item.frame is not None
    item.frame.write_bytes(b"")


def _break_audio(item: Item) -> None:
    assert item.audio is not None
    item.audio.write_bytes(b"RIFF no sound")


def _empty_audio(item: Item) -> None:
    assert item.audio is not None
    wavfile.write(item.audio, 16000, np.zeros(0, dtype=np.int16))


def _nan_audio(item: Item) -> None:
    assert item.audio is not None
    wavfile.write(item.audio, 16000, np.full(9000, np.nan, dtype=np.float32))


def _remove_audio(item: Item) -> None:
    assert item.audio is not None
    item.audio.unlink()


@pytest.mark.parametrize(
    ("damage", "name"),
    [
        (_break_frame, "scene001.png"),
        (_empty_frame, "scene001.png"),
        (_break_audio, "scene001.wav"),
        (_empty_audio, "scene001.wav"),
        (_nan_audio, "scene001.wav"),
        (_remove_audio, "scene001.wav"),
    ],
)
def test_unreadable_files_are_named_or_counted(
    make_manifest: Make, tone_engine: Make, damage: Callable[[Item], None], name: str
) -> None:
    manifest: Manifest = make_manifest(3)
    damage(manifest.items[1])
    with pytest.raises(InputError, match=rf"'scene001'.*{name}"):
        predict(tone_engine(), manifest)
    kept = predict(tone_engine(), manifest, skip_bad=True)
    assert [item.id for item in kept.items] == ["scene000", "scene002"]
    assert kept.skipped == {"unreadable": 1}


def test_items_without_frame_or_audio_are_counted(make_manifest: Make, tone_engine: Make) -> None:
    manifest: Manifest = make_manifest(3)
    items = (replace(manifest.items[0], frame=None), replace(manifest.items[1], audio=None), manifest.items[2])
    kept = predict(tone_engine(), replace(manifest, items=items))
    assert kept.skipped == {"no frame": 1, "no audio": 1} and len(kept.items) == 1
    with pytest.raises(InputError, match="1 no frame, 1 no audio"):
        predict(tone_engine(), replace(manifest, items=items[:2]))
    with pytest.raises(InputError, match="lists no items"):
        predict(tone_engine(), replace(manifest, items=()))


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (("bell", "drum", "flute", "horn", "viola"), "only the manifest has viola"),
        (("bell", "drum", "flute"), "only the model has horn"),
        (("bell", "drum", "viola", "horn"), "only the manifest has viola; only the model has flute"),
        (("drum", "bell", "flute", "horn"), "another order"),
    ],
)
def test_other_classes_are_refused(
    make_manifest: Make, tone_engine: Make, classes: tuple[str, ...], message: str
) -> None:
    manifest = make_manifest([], classes)
    with pytest.raises(InputError, match=message):
        predict(tone_engine(), manifest)


def test_nan_from_the_model_is_a_failure(make_manifest: Make, tone_engine: Make) -> None:
    engine = tone_engine()
    run = engine.run_image

    def broken(image: Any, sources: Any) -> dict[str, Any]:
        outputs: dict[str, Any] = run(image, sources)
        outputs["maps"][1] = np.nan
        return outputs

    engine.run_image = broken
    with pytest.raises(FailureError, match="scene001"):
        predict(engine, make_manifest(2))
