"""Collections: every kind of worker gives the same rows, runs go on after a kill, what can't be read is listed."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from scipy.io import wavfile

from avgn.runtime import InputError, Localizer, read_manifest, write_manifest
from avgn.runtime.collections import localize_collection
from avgn.runtime.decision import STATES
from avgn.runtime.manifest import Item, Part
from avgn.runtime.reading import read_clip, read_frame, read_wav
from tests.commands import ENVIRONMENT, avgn, refused
from tests.runtime.clips import Scene, still_clip
from tests.runtime.ffmpeg import ffmpeg
from tests.runtime.graphs import CLASSES

CLIPS = 200
RATE = 44_100
Row = dict[str, Any]
SHOWN = Scene(seen={1: (0.3, 0.6)}, heard=(1,))

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed: avgn[cluster]")
needs_pyarrow = pytest.mark.skipif(
    importlib.util.find_spec("pyarrow") is None, reason="pyarrow is not installed: avgn[cluster]"
)


def draw_scene(n: int) -> Scene:
    """Scene n of the collection: 0 to 2 squares, 0 to 2 tones."""
    rng = np.random.default_rng(n)
    seen = {int(k): (0.25 + 0.5 * i, float(rng.uniform(0.3, 0.7))) for i, k in enumerate(rng.permutation(3)[: n % 3])}
    return Scene(seen=seen, heard=tuple(int(k) for k in rng.permutation(3)[: (n // 3) % 3]))


def write_item(folder: Path, name: str, scene: Scene) -> Item:
    frame, audio = folder / f"{name}.png", folder / f"{name}.wav"
    assert cv2.imwrite(str(frame), scene.frame()[..., ::-1])
    wavfile.write(audio, RATE, (32767 * scene.sound(1.2, RATE)[:, 0]).astype(np.int16))
    return Item(id=name, sources=(), split="test", dataset="squares", video=name, frame=frame, audio=audio)


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("collection")
    items = [write_item(folder, f"clip-{n:03d}", draw_scene(n)) for n in range(CLIPS)]
    write_manifest(folder / "manifest.jsonl", CLASSES, items)
    return folder / "manifest.jsonl"


@pytest.fixture(scope="module")
def rows(collection: Path, bundle_path: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    """The rows of one process."""
    output = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    summary = localize_collection(bundle_path, collection, json_path=output, threads=1)
    assert (summary.items, summary.localized, summary.before, summary.left_out) == (CLIPS, CLIPS, 0, ())
    assert sorted(path.name for path in output.parent.iterdir()) == ["rows.jsonl", "rows.run.json"]
    return read_rows(output)


def read_rows(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def assert_same(found: list[Row], expected: list[Row]) -> None:
    assert [row["id"] for row in found] == [row["id"] for row in expected]
    for one, other in zip(found, expected, strict=True):
        assert one["state"] == other["state"]
        assert [s["label"] for s in one["sources"]] == [s["label"] for s in other["sources"]]
        for a, b in zip(one["sources"], other["sources"], strict=True):
            assert a["on_screen"] == b["on_screen"]
            for key in ("audio_prob", "visual_prob", "peak", "box"):
                assert a[key] == (None if b[key] is None else pytest.approx(b[key], abs=1.5e-5)), (one["id"], key)


def test_rows_tell_the_truth(rows: list[Row]) -> None:
    assert [row["id"] for row in rows] == [f"clip-{n:03d}" for n in range(CLIPS)]
    states = set()
    for n, row in enumerate(rows):
        scene = draw_scene(n)
        heard = {source["label"]: source for source in row["sources"]}
        assert set(heard) == {CLASSES[k] for k in scene.heard}
        for k in scene.heard:
            source = heard[CLASSES[k]]
            assert source["on_screen"] == (k in scene.seen)
            if k in scene.seen:
                assert source["peak"] == pytest.approx(scene.seen[k], abs=0.12)
        states.add(row["state"])
    assert states == {"source", "off-screen", "none"} <= set(STATES)


def test_a_still_is_decided_as_a_frame_of_a_clip_that_does_not_change(
    localizer: Localizer, bundle_path: Path, tmp_path: Path
) -> None:
    write_manifest(tmp_path / "m.jsonl", CLASSES, [write_item(tmp_path, "still", SHOWN)])
    localize_collection(bundle_path, tmp_path / "m.jsonl", json_path=tmp_path / "o.jsonl")
    (still,) = read_rows(tmp_path / "o.jsonl")
    clip = still_clip(tmp_path / "clip.mp4", SHOWN, seconds=2.0, rate=RATE)
    middle = list(localizer.stream(clip))[30].to_json()
    assert middle["state"] == still["state"] == "source"
    assert [s["label"] for s in middle["sources"]] == [s["label"] for s in still["sources"]] == ["green"]
    assert middle["sources"][0]["peak"] == pytest.approx(still["sources"][0]["peak"], abs=0.02)


def test_a_loud_sound_of_no_class_is_unknown(bundle_path: Path, tmp_path: Path) -> None:
    item = write_item(tmp_path, "noise", Scene(seen={0: (0.5, 0.5)}))
    noise = np.random.default_rng(0).normal(0, 6000, RATE).astype(np.int16)
    wavfile.write(tmp_path / "noise.wav", RATE, noise)
    write_manifest(tmp_path / "m.jsonl", CLASSES, [item])
    localize_collection(bundle_path, tmp_path / "m.jsonl", json_path=tmp_path / "o.jsonl")
    assert read_rows(tmp_path / "o.jsonl") == [{"id": "noise", "state": "unknown", "sources": []}]


def test_two_processes_give_the_same_rows(collection: Path, bundle_path: Path, rows: list[Row], tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    localize_collection(
        bundle_path,
        collection,
        json_path=tmp_path / "o.jsonl",
        workers=2,
        batch=7,
        progress=lambda done, total: calls.append((done, total)),
    )
    assert_same(read_rows(tmp_path / "o.jsonl"), rows)
    assert calls[-1] == (CLIPS, CLIPS) and calls == sorted(calls)


@needs_ray
@needs_pyarrow
def test_ray_gives_the_same_rows_as_parquet_and_maps(
    collection: Path, bundle_path: Path, rows: list[Row], localizer: Localizer, tmp_path: Path
) -> None:
    import pyarrow.parquet as parquet

    options = ("--cluster", "ray", "--workers", 2, "--parquet", tmp_path / "o", "--maps", tmp_path / "maps")
    done = avgn("localize", bundle_path, "--manifest", collection, *options)
    assert done.returncode == 0 and f"{CLIPS} of {CLIPS} items localized" in done.stdout, done.stderr
    assert "Traceback" not in done.stderr and "Warning" not in done.stderr
    found = parquet.read_table(tmp_path / "o").to_pylist()
    assert_same(found, rows)
    item = read_manifest(collection).items[7]
    assert item.frame is not None and item.audio is not None
    info = localizer.bundle
    heard = localizer.engine.run_audio(read_clip(item.audio, info.sample_rate, RATE // 2)[None])
    seen = localizer.engine.run_image(read_frame(item.frame, info.image_size)[None], heard["sources"])
    with np.load(tmp_path / "maps" / found[7]["maps"]) as saved:
        assert saved["maps"].dtype == np.float16
        np.testing.assert_allclose(saved["maps"], seen["maps"][0], atol=2e-3)
    again = localize_collection(
        bundle_path, collection, parquet=tmp_path / "o", maps=tmp_path / "maps", cluster="ray", workers=2
    )
    assert (again.before, again.localized) == (CLIPS, 0)


def test_a_killed_run_is_continued(collection: Path, bundle_path: Path, rows: list[Row], tmp_path: Path) -> None:
    output, journal = tmp_path / "o.jsonl", tmp_path / "o.jsonl.partial"
    options = ["localize", str(bundle_path), "--manifest", str(collection), "--json", str(output), "--workers", "2"]
    process = subprocess.Popen([sys.executable, "-m", "avgn", *options], env=ENVIRONMENT)
    wait_for(lambda: journal.exists() and journal.stat().st_size > 0, process)
    workers = children(process.pid)
    process.kill()
    process.wait()
    assert len(workers) >= 2
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))
    assert not output.exists()
    with journal.open("ab") as file:
        file.write(b'{"id": "clip-199", "state": "sou')
    before = journal.read_bytes().count(b"\n")
    assert 0 < before < CLIPS
    done = avgn(*options)
    assert done.returncode == 0, done.stderr
    assert f"{CLIPS - before} of {CLIPS} items localized" in done.stdout and f"{before} were there" in done.stdout
    assert_same(read_rows(output), rows)
    assert not journal.exists()
    assert f"0 of {CLIPS} items localized" in avgn(*options).stdout


def test_an_interrupted_run_says_how_to_go_on(
    collection: Path, bundle_path: Path, rows: list[Row], tmp_path: Path
) -> None:
    output, journal = tmp_path / "o.jsonl", tmp_path / "o.jsonl.partial"
    options = ["localize", str(bundle_path), "--manifest", str(collection), "--json", str(output), "--workers", "2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "avgn", *options],
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_for(lambda: journal.exists() and journal.stat().st_size > 0, process)
    # a terminal sends it to the workers, too
    os.killpg(process.pid, signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130 and said.splitlines()[-1] == "avgn: interrupted"
    assert "run the same command again to continue" in said and "Traceback" not in said
    assert avgn(*options).returncode == 0
    assert_same(read_rows(output), rows)


def children(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in listed.read_text().split()] if listed.exists() else []


def wait_for(happened: Any, process: subprocess.Popen[Any] | None = None) -> None:
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline and (process is None or process.poll() is None)
        time.sleep(0.005)


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """A good still, a video, and one item of every kind that can't be localized."""
    folder = tmp_path / "in"
    folder.mkdir()
    items = [write_item(folder, name, SHOWN) for name in ("good", "frame", "audio", "none", "parts", "bare")]
    (folder / "frame.png").write_bytes(b"no picture")
    (folder / "audio.wav").write_bytes(b"RIFF no sound")
    (folder / "none.png").unlink()
    for name in ("clip", "text"):
        video = still_clip(folder / f"{name}.mp4", SHOWN, seconds=1.0)
        items.append(
            Item(id=f"videos/{name}", sources=(), split="test", dataset="", video=name, frame=None, video_file=video)
        )
    (folder / "text.mp4").write_text("no video " * 50)
    lines = {item.id: item for item in items}
    part = Part(frame=folder / "good.png", audio=folder / "good.wav")
    lines["parts"] = Item(id="parts", sources=(), split="test", dataset="", video="parts", parts=(part, part))
    lines["bare"] = Item(id="bare", sources=(), split="test", dataset="", video="bare", frame=folder / "good.png")
    write_manifest(folder / "m.jsonl", CLASSES, list(lines.values()))
    return folder / "m.jsonl"


@pytest.mark.parametrize("workers", [1, 2])
def test_what_can_not_be_read_is_listed(mixed: Path, bundle_path: Path, tmp_path: Path, workers: int) -> None:
    options = ("localize", bundle_path, "--manifest", mixed, "--json", tmp_path / "o.jsonl", "--workers", workers)
    done = avgn(*options)
    assert done.returncode == 0 and "2 of 8 items localized" in done.stdout, done.stderr
    assert "avgn: 6 of 8 items were left out, the first 'parts' (it has parts" in done.stderr
    still, video = read_rows(tmp_path / "o.jsonl")
    assert still["id"] == "good" and still["state"] == "source"
    assert (video["id"], video["frames"], video["corrupt"]) == ("videos/clip", 30, 0)
    assert video["seconds"] == pytest.approx(1.0, abs=0.01)
    (event,) = video["events"]
    assert event["label"] == still["sources"][0]["label"] and event["on_screen"] == 1.0
    assert event["mean"] == pytest.approx(still["sources"][0]["peak"], abs=0.03)
    reasons = {row["id"]: row["reason"] for row in read_rows(tmp_path / "o.failures.jsonl")}
    assert set(reasons) == {"frame", "audio", "none", "parts", "bare", "videos/text"}
    assert "frame.png is not an image" in reasons["frame"] and "audio.wav can't be read" in reasons["audio"]
    assert "none.png can't be read" in reasons["none"] and "text.mp4 can't be opened" in reasons["videos/text"]
    assert "6 of 8 items were left out" in refused_last(*options, "--strict")
    # mended items are tried again, and take their place in the manifest's order
    write_item(mixed.parent, "audio", SHOWN)
    assert "1 of 8 items localized" in avgn(*options).stdout
    assert [row["id"] for row in read_rows(tmp_path / "o.jsonl")] == ["good", "audio", "videos/clip"]
    assert len(read_rows(tmp_path / "o.failures.jsonl")) == 5


def refused_last(*arguments: object) -> str:
    done = avgn(*arguments)
    assert done.returncode == 1
    return done.stderr.strip().splitlines()[-1]


@needs_pyarrow
def test_parquet_rows_of_stills_and_videos(mixed: Path, bundle_path: Path, tmp_path: Path) -> None:
    import pyarrow.parquet as parquet

    localize_collection(bundle_path, mixed, parquet=tmp_path / "o")
    still, video = parquet.read_table(tmp_path / "o").to_pylist()
    assert still["events"] is None and still["sources"][0]["label"] == video["events"][0]["label"]
    write_item(mixed.parent, "audio", SHOWN)
    localize_collection(bundle_path, mixed, parquet=tmp_path / "o")
    assert parquet.read_table(tmp_path / "o").column("id").to_pylist() == ["good", "videos/clip", "audio"]
    assert len(list((tmp_path / "o").glob("*.parquet"))) == 2 and not (tmp_path / "o" / "_rows.jsonl").exists()


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed: it writes the tracks")
def test_the_track_that_is_heard_is_chosen(bundle_path: Path, tmp_path: Path) -> None:
    red, green = (still_clip(tmp_path / f"{k}.mkv", Scene(seen={k: (0.5, 0.5)}, heard=(k,))) for k in (0, 1))
    ffmpeg("-i", red, "-i", green, "-map", "0:v", "-map", "0:a", "-map", "1:a", "-c", "copy", tmp_path / "both.mkv")
    item = Item(id="a", sources=(), split="test", dataset="d", video="a", video_file=tmp_path / "both.mkv")
    write_manifest(tmp_path / "m.jsonl", CLASSES, [item])
    found = {}
    for track in ("1", "2"):
        out = tmp_path / f"{track}.jsonl"
        avgn("localize", bundle_path, "--manifest", tmp_path / "m.jsonl", "--json", out, "--audio-track", track)
        found[track] = {event["label"] for event in json.loads(out.read_text())["events"]}
    assert found == {"1": {"red"}, "2": {"green"}}


def test_names_of_maps_are_safe(bundle_path: Path, tmp_path: Path) -> None:
    names = ["../up", "a/b", "x" * 300]
    first = write_item(tmp_path, "good", SHOWN)
    items = [Item(**{**{name: getattr(first, name) for name in first.__slots__}, "id": name}) for name in names]
    write_manifest(tmp_path / "m.jsonl", CLASSES, items)
    localize_collection(bundle_path, tmp_path / "m.jsonl", json_path=tmp_path / "o.jsonl", maps=tmp_path / "maps")
    written = [row["maps"] for row in read_rows(tmp_path / "o.jsonl")]
    assert written[:2] == ["..%2Fup.npz", "a%2Fb.npz"] and len(written[2]) == 68
    assert sorted(path.name for path in (tmp_path / "maps").iterdir()) == sorted(written)


def test_bad_input_of_the_command(mixed: Path, bundle_path: Path, tmp_path: Path) -> None:
    output = tmp_path / "o.jsonl"
    run: tuple[object, ...] = ("localize", bundle_path, "--manifest", mixed, "--json", output)
    for arguments, words in (
        (("localize", bundle_path), "give a VIDEO, or the items of a collection with --manifest"),
        ((*run[:2], "a.mp4", *run[2:]), "VIDEO a.mp4 and --manifest"),
        ((*run[:2], "a.mp4", "--workers", 2), "--workers goes with --manifest"),
        ((*run, "--output", "a.mp4"), "--output is for a video"),
        ((*run, "--workers", 0), "workers must be at least 1, got 0"),
        ((*run, "--cluster", "slurm"), "cluster 'slurm' is not known: choose one of ray"),
        ((*run, "--address", "a:1"), "say --cluster ray, too"),
        ((*run, "--parquet", "p"), "give --json FILE or --parquet FOLDER"),
        (run[:4], "give --json FILE or --parquet FOLDER"),
        ((*run[:3], tmp_path / "none.jsonl", *run[4:]), "none.jsonl does not exist"),
        ((*run[:5], tmp_path / "no" / "o.jsonl"), "its folder does not exist"),
        ((*run[:5], tmp_path), "is a folder"),
        ((*run, "--backend", "abacus"), "backend 'abacus' is not known"),
        ((*run, "--maps", mixed), "maps"),
    ):
        assert words in refused(*arguments)
        assert [path.name for path in tmp_path.iterdir()] == ["in"]


@needs_ray
def test_a_cluster_that_is_not_there(mixed: Path, bundle_path: Path, tmp_path: Path) -> None:
    run = ("localize", bundle_path, "--manifest", mixed, "--json", tmp_path / "o.jsonl", "--cluster", "ray")
    assert "no Ray cluster answers at 127.0.0.1:9" in refused(*run, "--address", "127.0.0.1:9")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_outputs_of_something_else_are_left_alone(mixed: Path, bundle_path: Path, tmp_path: Path) -> None:
    output = tmp_path / "o.jsonl"
    output.write_text("mine\n")
    with pytest.raises(InputError, match="exists and is no collection's output"):
        localize_collection(bundle_path, mixed, json_path=output)
    assert output.read_text() == "mine\n"
    output.unlink()
    localize_collection(bundle_path, mixed, json_path=output)
    before = output.read_bytes()
    with pytest.raises(InputError, match="was made with another bundle .tiny|was made with another bundle .tones"):
        localize_collection("tiny", mixed, json_path=output)
    with pytest.raises(InputError, match="was made with another maps"):
        localize_collection(bundle_path, mixed, json_path=output, maps=tmp_path / "maps")
    lines = mixed.read_text().splitlines()
    mixed.write_text("\n".join(lines[:-1]) + "\n")
    with pytest.raises(InputError, match="was made with another manifest"):
        localize_collection(bundle_path, mixed, json_path=output)
    assert output.read_bytes() == before


def test_two_runs_do_not_share_an_output(mixed: Path, bundle_path: Path, tmp_path: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    localize_collection(bundle_path, mixed, json_path=tmp_path / "o.jsonl")
    with (tmp_path / "o.jsonl.partial").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="is being written by another run"):
            localize_collection(bundle_path, mixed, json_path=tmp_path / "o.jsonl")


def test_a_spoilt_journal_is_named(mixed: Path, bundle_path: Path, tmp_path: Path) -> None:
    localize_collection(bundle_path, mixed, json_path=tmp_path / "o.jsonl")
    for line, words in (("nonsense", "partial line 1 is not a result row"), ('{"id": "x"}', "holds 'x', which the")):
        (tmp_path / "o.jsonl.partial").write_text(line + "\n")
        with pytest.raises(InputError, match=words):
            localize_collection(bundle_path, mixed, json_path=tmp_path / "o.jsonl")


@pytest.mark.parametrize("kind", ["int16", "int32", "uint8", "float32", "float64"])
def test_plain_wav_equals_the_decoder(tmp_path: Path, kind: str) -> None:
    from avgn.runtime.sound_file import Decoded, Pcm, open_sound

    tone = np.random.default_rng(0).uniform(-0.9, 0.9, (5000, 2))
    scale = {"int16": 32767, "int32": 2**31 - 1, "uint8": 127}.get(kind, 1)
    samples = (tone * scale + (128 if kind == "uint8" else 0)).astype(kind)
    wavfile.write(tmp_path / "a.wav", 48_000, samples)
    decoded = Decoded(tmp_path / "a.wav")
    with open_sound(tmp_path / "a.wav") as found:
        assert isinstance(found, Pcm) and found.rate == decoded.rate == 48_000
        np.testing.assert_array_equal(found.read(0, 5000), decoded.read(0, 5000))
        np.testing.assert_array_equal(found.read(100, 203), decoded.read(100, 203))
    data = (tmp_path / "a.wav").read_bytes()
    (tmp_path / "cut.wav").write_bytes(data[: len(data) // 2])
    short, whole = (read_wav(tmp_path / name)[0] for name in ("cut.wav", "a.wav"))
    assert len(whole) == 5000 and 2450 < len(short) < 2500
    np.testing.assert_array_equal(short, whole[: len(short)])
