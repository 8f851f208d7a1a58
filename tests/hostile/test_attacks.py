"""Every attack is refused with one sentence and status 2, and takes neither time nor memory nor files of others."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.hostile.attacks import ATTACKS, Attack
from tests.hostile.measure import MOST_MB, MOST_SECONDS, Helper


@pytest.fixture(scope="session")
def helper() -> Iterator[Helper]:
    with Helper() as found:
        yield found


@pytest.mark.parametrize("attack", ATTACKS, ids=str)
def test_is_refused_at_no_cost(attack: Attack, helper: Helper) -> None:
    cost = helper.run(attack.name)
    assert cost.status == 2, cost
    lines = cost.said.splitlines()
    assert len(lines) == 1 and lines[0].startswith("avgn: ") and lines[0].isprintable(), cost.said
    assert attack.said in cost.said and len(cost.said) < 1000, cost.said
    assert cost.cpu <= MOST_SECONDS and cost.megabytes <= MOST_MB, cost
    assert not cost.left and not cost.read, cost
