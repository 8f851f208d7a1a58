"""Names from strangers on their way to terminals, tables and other programs' files; caches that strangers may write."""

from __future__ import annotations

import csv
import json
import logging
import os
import stat
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avgn.evaluation.video_truth import read_mask_video
from avgn.export.triton_server import model_config
from avgn.runtime.bundle import Bundle
from avgn.runtime.collections.output import JsonLinesOutput
from avgn.runtime.decision import Heard
from avgn.runtime.engines.trust import is_trusted, trust
from avgn.runtime.errors import InputError
from avgn.runtime.files import cache_folder
from avgn.runtime.manifest import ITEMS_VARIABLE, read_manifest
from avgn.runtime.outputs import find_place
from avgn.runtime.result import Result
from avgn.runtime.sinks.events import EventsWriter, cell
from avgn.runtime.texts import PlainFormatter, is_name, printable
from tests.hostile.attacks import HEADER, ITEM, manifest, masks


def heard(label: str) -> Result:
    """A frame in which one class sounds off screen."""
    one = np.zeros(1, np.float32)
    source = Heard(label=label, index=0, audio_prob=1.0, visual_prob=0.0, on_screen=False)
    return Result(
        time=0.0,
        frame=0,
        state="off-screen",
        sources=(source,),
        audio_prob=one,
        visual_prob=one,
        maps=np.zeros((1, 2, 2), np.float32),
        loudness_db=-20.0,
        window=0,
        ms={},
    )


SHOWN = [
    "guitar",
    "fl\u00fbte \u00e0 bec",
    "\u5409\u4ed6",
    "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
    "a\u00a0b",
    "a_b, c-d (e)",
]
SHOWN += ["\U0001f468\u200d\U0001f469"]
UNSEEN = [
    "",
    " ",
    "\t",
    "a\nb",
    "a\rb",
    "a\x1b[31m",
    "a\x9b1m",
    "a\0",
    "\u202ea",
    "a\u2066",
    "a\u2028b",
    "\ufeffa",
    "a\x7f",
]
UNSEEN += ["a\u200e", "a\U000e0041", "\u200d", "\u3164", "\u2800 \u115f"]


@pytest.mark.parametrize("name", [*SHOWN, *UNSEEN], ids=ascii)
def test_which_names_can_be_shown(name: str) -> None:
    assert is_name(name) == (name in SHOWN)


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\tx", "\rx", "\uff1dx"])
def test_a_class_is_no_formula(text: str, tmp_path: Path) -> None:
    assert cell(text) == "'" + text and cell("a" + text) == "a" + text
    path = tmp_path / "events.csv"
    writer = EventsWriter(path)
    writer(heard(text))
    writer.close()
    rows = list(csv.reader(path.open(newline="")))
    assert rows[1][0] == "'" + text and len(rows) == 2


@settings(max_examples=50, deadline=None)
@given(name=st.text(min_size=1, max_size=12))
def test_a_tensors_name_stays_one_string_of_the_servers_configuration(name: str) -> None:
    text_format = pytest.importorskip("google.protobuf.text_format")
    struct = pytest.importorskip("google.protobuf.struct_pb2")
    bundle = Bundle.load("tiny")
    variant = bundle.info.variants[0]
    spec = replace(variant.outputs["audio"][0], name=name.encode("utf-8", "replace").decode())
    changed = replace(variant, outputs={**variant.outputs, "audio": (spec,)})
    line = next(row for row in model_config(bundle, changed, "audio", "m", 4).splitlines() if row.startswith("output"))
    quoted = line.partition("name: ")[2].partition(" data_type")[0]
    assert text_format.Parse(f"string_value: {quoted}", struct.Value()).string_value == spec.name


def test_log_lines_hold_no_commands_to_the_terminal() -> None:
    record = logging.LogRecord("avgn", logging.WARNING, "", 0, "%s is odd", ("\x1b[2J\x07a\nb\u202e",), None)
    assert PlainFormatter().format(record) == "a b is odd"
    assert printable("  a\x1b[31m  b\n  c\u202e\td") == "  a  b\n  c  d"


def test_a_cache_that_others_may_write_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AVGN_CACHE", str(tmp_path / "cache"))
    variant = replace(Bundle.load("tiny").info.variants[0], engine="aoti")
    assert not is_trusted(variant) and trust([variant]) == 1 and is_trusted(variant)
    (tmp_path / "cache" / "trusted").chmod(0o777)
    with pytest.raises(InputError, match=r"can be written by everybody: chmod o-w it"):
        is_trusted(variant)
    (tmp_path / "cache" / "trusted").chmod(0o755)
    if os.geteuid() == 0:
        os.chown(tmp_path / "cache", 12345, 12345)
        with pytest.raises(InputError, match=r"belongs to another user.* let AVGN_CACHE name a folder of your own"):
            cache_folder()
        os.chown(tmp_path / "cache", 0, 0)
    assert is_trusted(variant)


def test_a_journal_with_a_second_name_is_not_written(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("no newline")
    os.link(precious, tmp_path / "r.jsonl.partial")
    (tmp_path / "r.run.json").write_text("{}")
    output = JsonLinesOutput(find_place(tmp_path / "r.jsonl"))
    with pytest.raises(InputError, match="second name of another file"):
        output.open({}, set())
    assert precious.read_text() == "no newline" and stat.S_ISREG(precious.stat().st_mode)


def test_the_limit_of_a_manifests_items_can_be_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest(*({**ITEM, "id": str(number)} for number in range(30)))(tmp_path)
    monkeypatch.setenv(ITEMS_VARIABLE, "20")
    with pytest.raises(InputError, match=f"more than 20 lines: split it, or let {ITEMS_VARIABLE} name another limit"):
        read_manifest(tmp_path / "m.jsonl")
    monkeypatch.setenv(ITEMS_VARIABLE, "30")
    assert len(read_manifest(tmp_path / "m.jsonl").items) == 30
    monkeypatch.setenv(ITEMS_VARIABLE, "many")
    with pytest.raises(InputError, match="must be a whole number"):
        read_manifest(tmp_path / "m.jsonl")
    assert json.loads((tmp_path / "m.jsonl").read_text().splitlines()[0]) == HEADER


def test_a_mask_video_that_claims_too_much(tmp_path: Path) -> None:
    masks(tmp_path / "m.npz")
    assert (tmp_path / "m.npz").stat().st_size < 1_000_000
    with pytest.raises(InputError, match=r"its index has \d+ bytes, at most"):
        read_mask_video(tmp_path / "m.npz")
