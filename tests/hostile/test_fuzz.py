"""Changed inputs of every kind are refused or read, and nothing else comes of them; longer runs are `make soak`'s."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.hostile.fuzz import change, fuzz
from tests.hostile.targets import TARGETS, seeds

# a second or two each
FIXED = settings(deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None)
EDITS = st.lists(st.tuples(st.integers(0, 1 << 30), st.integers(0, 4), st.binary(max_size=12)), max_size=4)
EXAMPLES = {"wire": 150, "bundle": 100, "graph": 60, "manifest": 150, "media": 60}


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_but_a_refusal_leaves_a_reader(name: str) -> None:
    @settings(FIXED, max_examples=EXAMPLES[name])
    @given(data=st.data())
    def run(data: st.DataObject) -> None:
        whole = data.draw(st.sampled_from(seeds()[name]))
        TARGETS[name](change(whole, data.draw(EDITS)))

    run()


@pytest.mark.soak
@pytest.mark.parametrize("name", TARGETS)
def test_coverage_leads_no_input_anywhere_else(name: str) -> None:
    pytest.importorskip("atheris", reason="atheris is not installed: pip install atheris")
    assert fuzz(name, seconds=60) == 0
