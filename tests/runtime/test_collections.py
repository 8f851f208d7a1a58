"""Collections: every kind of worker gives the same rows, runs go on after a kill, what can't be read is listed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import wavfile

from avgn.runtime import Localizer, read_manifest, write_manifest
from avgn.runtime.collections import localize_collection
from avgn.runtime.decision import STATES
from avgn.runtime.reading import read_clip, read_frame
from tests.commands import ENVIRONMENT, forked
from tests.patience import tried_again
from tests.runtime.clips import Scene, still_clip
from tests.runtime.collection import (
    CLIPS,
    RATE,
    SHOWN,
    Row,
    assert_same,
    draw_scene,
    needs_pyarrow,
    needs_ray,
    read_rows,
    write_item,
)
from tests.runtime.graphs import CLASSES


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
    done = forked("localize", bundle_path, "--manifest", collection, *options)
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


@tried_again
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
    done = forked(*options)
    assert done.returncode == 0, done.stderr
    assert f"{CLIPS - before} of {CLIPS} items localized" in done.stdout and f"{before} were there" in done.stdout
    assert_same(read_rows(output), rows)
    assert not journal.exists()
    assert f"0 of {CLIPS} items localized" in forked(*options).stdout


@tried_again
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
    assert forked(*options).returncode == 0
    assert_same(read_rows(output), rows)


def children(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in listed.read_text().split()] if listed.exists() else []


def wait_for(happened: Any, process: subprocess.Popen[Any] | None = None) -> None:
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline and (process is None or process.poll() is None)
        time.sleep(0.005)
