"""Where PyAV's releases differ, the release at hand is asked: both sides of every difference."""

from __future__ import annotations

import enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import pytest

from avgn.runtime.av_features import disposition, open_input
from tests.runtime.clips import Scene, still_clip


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return still_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", Scene(seen={}, heard=(1,)), seconds=0.5)


@pytest.mark.parametrize("takes", [True, False])
def test_names_that_are_no_text_stop_nothing(takes: bool, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = av.open
    asked: list[dict[str, Any]] = []

    def open_old(address: str, *, metadata_errors: str = "strict", **options: Any) -> Any:
        asked.append({"metadata_errors": metadata_errors})
        return opened(address, **options)

    def open_new(address: str, *, options: dict[str, str] | None = None) -> Any:
        asked.append({})
        return opened(address, options=options)

    monkeypatch.setattr(av, "open", open_old if takes else open_new)
    with open_input(str(clip), options={"protocol_whitelist": "file"}) as container:
        assert container.streams.video
    assert asked == [{"metadata_errors": "replace"} if takes else {}]


def test_other_errors_of_type_are_not_swallowed(clip: Path) -> None:
    with pytest.raises(TypeError, match="bogus"):
        open_input(str(clip), bogus=1)


def test_dispositions_are_bits_whatever_holds_them(clip: Path) -> None:
    class Flags(enum.Flag):
        default = 1
        attached_pic = 1024

    assert disposition(SimpleNamespace(disposition=Flags.default | Flags.attached_pic)) == 1025
    assert disposition(SimpleNamespace(disposition=1024)) == 1024
    with open_input(str(clip)) as container:
        assert disposition(container.streams.video[0]) & 1
