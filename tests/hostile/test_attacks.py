"""Every attack is refused with one sentence and status 2, and takes neither time nor memory nor files of others."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from avgn.cli import main
from tests.hostile.attacks import ATTACKS, Attack
from tests.hostile.measure import MOST_MB, MOST_SECONDS, measure


@pytest.mark.parametrize("attack", [attack for attack in ATTACKS if not attack.heavy], ids=str)
def test_is_refused(
    attack: Attack, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = [str(part) for part in attack.make(tmp_path)]
    secret = tmp_path / "secret.ts"
    read_at = secret.stat().st_atime if secret.exists() else None
    begin = time.process_time()
    status = main(arguments)
    cpu = time.process_time() - begin
    said = capsys.readouterr().err.strip()
    check(attack, status, said)
    # the first command of all imports its libraries
    assert cpu < 4 * MOST_SECONDS
    assert not (tmp_path / "out").exists() and not (tmp_path / "ran").exists()
    assert read_at is None or secret.stat().st_atime == read_at


@pytest.mark.parametrize("attack", [attack for attack in ATTACKS if attack.heavy], ids=str)
def test_is_refused_at_no_cost(attack: Attack) -> None:
    cost, idle = measure(attack)
    check(attack, cost.status, cost.said)
    assert cost.cpu - idle.cpu <= MOST_SECONDS and cost.megabytes - idle.megabytes <= MOST_MB


def check(attack: Attack, status: int, said: str) -> None:
    """One sentence, in words that a terminal only shows."""
    assert status == 2, said
    lines = said.splitlines()
    assert len(lines) == 1 and lines[0].startswith("avgn: ") and lines[0].isprintable(), said
    assert attack.said in said and len(said) < 1000, said
