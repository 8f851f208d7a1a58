"""The list of mutants that change nothing speaks of lines that are there, and the tool plants what it says."""

from __future__ import annotations

import json

import pytest

from tests import mutation


def test_every_line_of_the_list_is_still_in_its_module() -> None:
    for entry in json.loads(mutation.EQUIVALENT.read_text()):
        assert entry["module"] in mutation.TESTS and len(entry["reason"]) > 20
        lines = {line.strip() for line in mutation.path_of(entry["module"]).read_text().splitlines()}
        # a decorator that was removed leaves the line after it
        assert (entry["before"] or entry["after"]) in lines, f"{entry['before']!r} has changed: judge it anew"
        assert entry["before"] != entry["after"]


def test_modules_and_their_tests_are_there() -> None:
    for module, arguments in mutation.TESTS.items():
        assert mutation.path_of(module).is_file()
        files = [argument for argument in arguments if argument.startswith("tests/")]
        assert files and all((mutation.ROOT / file).is_file() for file in files)


def test_faults_are_planted_one_at_a_time_and_not_where_nothing_runs() -> None:
    pytest.importorskip("cosmic_ray", reason="mutation testing needs the extra mutate")
    source = (
        "from __future__ import annotations\n"
        "LIMIT = 3\n"
        "def small(value: int | None, *, most: float = 2.0) -> bool | None:\n"
        "    assert value != 7\n"
        "    return value is not None and value < LIMIT + most\n"
    )
    found = list(mutation.mutants(source))
    assert all(mutant.source != source and mutant.before != mutant.after for mutant in found)
    changed = {(mutant.line, mutant.operator) for mutant in found}
    assert changed == {
        (2, "NumberReplacer"),
        (3, "NumberReplacer"),
        (5, "ReplaceAndWithOr"),
        (5, "ReplaceBinaryOperator_Add_Sub"),
        (5, "ReplaceComparisonOperator_IsNot_Is"),
        (5, "ReplaceComparisonOperator_Lt_Gt"),
        (5, "ReplaceComparisonOperator_Lt_LtE"),
    }
