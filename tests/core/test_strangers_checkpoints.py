"""What is said about checkpoints that are none, hold code, or were never trained."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from avgn.checkpoint import read_facts, save_model
from avgn.config import preset
from avgn.convert import convert_released
from avgn.export.bundle import export_bundle
from avgn.model import build_model
from avgn.runtime.bundle import Bundle, untrained_warning
from avgn.runtime.errors import InputError
from avgn.runtime.texts import plain
from tests.commands import ROOT, forked, refused
from tests.export.kept import kept_graphs

__all__ = ["kept_graphs"]

WAY_OUT = "what it finds means nothing; train it with avgn train, or use the name world"
SMALL = {"width_visual": 4, "width_audio": 4, "dim": 16, "heads": 4, "depth": 1}


class Runs:
    """Calls something when it is unpickled."""

    def __reduce__(self) -> Any:
        return (print, ("\x1b[31mhello\x1b[0m",))


def test_errors_of_convert_hold_no_escape_codes(tmp_path: Path) -> None:
    files = {"code.pth": {"model": Runs()}, "\x1b[31mred.pth": {"model": Runs()}}
    for name, content in files.items():
        torch.save(content, tmp_path / name)
        said = refused("convert", tmp_path / name, tmp_path / "out")
        assert "it may run code" in said and said.isprintable(), said
        with pytest.raises(InputError) as caught:
            convert_released(tmp_path / "code.pth", tmp_path / "out")
        assert "\x1b" not in str(caught.value) and "it may run code" in str(caught.value)
    for number, data in enumerate((b"", b"\x1b[31m", pickle.dumps(3), b"PK\x03\x04", b"\x80\x04.")):
        (tmp_path / f"{number}.pth").write_bytes(data)
        assert refused("convert", tmp_path / f"{number}.pth", tmp_path / "out").isprintable()
    assert not (tmp_path / "out").exists()


def test_messages_are_plain() -> None:
    for text, expected in (
        ("\x1b[1mdo those\x1b[0m steps", "do those steps"),
        ("\x1b]0;title\x07a\x1b[2J\x9b31mb", "ab"),
        ("cut \x1b[", "cut"),
        ("a\r\nb\tc\x00d\x08", "a b c d"),
        ("吉他 می\u200cخواهم \U0001f468\u200d\U0001f469", "吉他 می\u200cخواهم \U0001f468\u200d\U0001f469"),
        ("fl\udcf6te", "fl\udcf6te"),
    ):
        assert plain(text) == expected


@pytest.mark.usefixtures("kept_graphs")
@pytest.mark.parametrize(
    ("training", "expected"),
    [
        ({}, "was never trained"),
        ({"steps": 0}, "was never trained"),
        ({"steps": 7}, "was trained for 7 steps only"),
        ({"steps": 100}, None),
        ({"converted": "released.pth"}, None),
        # trained somehow: nothing is claimed
        ({"recipe": "of another tool"}, None),
    ],
    ids=["drawn", "none", "few", "trained", "converted", "unknown"],
)
def test_an_untrained_bundle_warns(tmp_path: Path, training: dict[str, Any], expected: str | None) -> None:
    torch.manual_seed(0)
    model = build_model(preset("avgn-tiny", classes=("a", "b"), **SMALL)).eval()
    save_model(model, tmp_path / "c", training=training)
    said: list[str] = []
    bundle = export_bundle(tmp_path / "c", tmp_path / "b", report=said.append)
    expected_lines = [] if expected is None else [f"{tmp_path / 'c'} {expected}: {WAY_OUT}"]
    assert [line for line in said if "trained" in line] == expected_lines
    warning = untrained_warning(Bundle.load(bundle.path).info, "it")
    assert warning == (None if expected is None else f"it {expected}: {WAY_OUT}")
    if training == {}:
        done = forked("localize", tmp_path / "b", tmp_path / "none.mp4")
        assert done.returncode == 2 and f"bundle {tmp_path / 'b'} was never trained" in done.stderr
        # bundles that say nothing of their training are believed
        facts = json.loads((tmp_path / "b" / "bundle.json").read_text())
        del facts["provenance"]["training"]
        (tmp_path / "b" / "bundle.json").write_text(json.dumps(facts))
        assert untrained_warning(Bundle.load(tmp_path / "b").info, "it") is None
        assert "never trained" not in forked("localize", tmp_path / "b", tmp_path / "none.mp4").stderr


def test_the_shipped_checkpoint_is_a_trained_one() -> None:
    """README exports it: the bundle would say that what it finds means nothing."""
    record = json.loads((ROOT / "benchmarks" / "results" / "recipe.json").read_text())
    assert read_facts(ROOT / "recipes" / "checkpoint")["training"]["steps"] == record["training"]["steps"]
