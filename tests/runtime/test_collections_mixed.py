"""Collections with damaged items, videos and other people's outputs: what is listed, refused and left alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from avgn.runtime import InputError, write_manifest
from avgn.runtime.collections import localize_collection
from avgn.runtime.manifest import Item, Part
from tests.commands import forked, refused
from tests.runtime.clips import Scene, still_clip
from tests.runtime.collection import (
    SHOWN,
    needs_pyarrow,
    needs_ray,
    read_rows,
    write_item,
)
from tests.runtime.ffmpeg import ffmpeg
from tests.runtime.graphs import CLASSES


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
    done = forked(*options)
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
    assert "1 of 8 items localized" in forked(*options).stdout
    assert [row["id"] for row in read_rows(tmp_path / "o.jsonl")] == ["good", "audio", "videos/clip"]
    assert len(read_rows(tmp_path / "o.failures.jsonl")) == 5


def refused_last(*arguments: object) -> str:
    done = forked(*arguments)
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
        forked("localize", bundle_path, "--manifest", tmp_path / "m.jsonl", "--json", out, "--audio-track", track)
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
        ((*run, "--threshold", "red=0.9"), "--threshold is for a video"),
        ((*run, "--start", 1), "--start is for a video"),
        ((*run, "--every", 1), "--every is for a video"),
        ((*run, "--no-live"), "--no-live is for a video"),
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
