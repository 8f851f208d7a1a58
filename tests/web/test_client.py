"""The runtime in TypeScript: its types, its own tests, what is built of it, and the numbers that hold both sides."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from tests.web import golden, node

# of the code that is shipped, in bytes
LARGEST = 150_000
# other machines round the last bits of a sum otherwise
RELATIVE, ABSOLUTE = 1e-5, 1e-6


def leaves(value: Any) -> tuple[list[float], Any]:
    """Return the numbers of a JSON value, and the value with a mark in place of each."""
    if isinstance(value, dict):
        value = list(value.items())
    if isinstance(value, list | tuple):
        found = [leaves(each) for each in value]
        return [number for numbers, _ in found for number in numbers], [rest for _, rest in found]
    if isinstance(value, float | int) and not isinstance(value, bool):
        return [float(value)], "number"
    return [], value


def test_the_golden_numbers_are_those_of_this_runtime() -> None:
    """`python -m tests.web.golden` writes them again; the client's own tests hold its code to them."""
    kept, found = json.loads(golden.FILE.read_text(encoding="utf-8")), golden.golden()
    assert kept.keys() == found.keys()
    for name in kept:
        numbers, rest = leaves(kept[name])
        others, other_rest = leaves(found[name])
        assert rest == other_rest, name
        np.testing.assert_allclose(others, numbers, rtol=RELATIVE, atol=ABSOLUTE, err_msg=name)


def test_types_tests_and_build(packages: Path, tmp_path: Path) -> None:
    node.run(tmp_path, "node_modules/.bin/tsc", "--noEmit")
    node.run(tmp_path, "node_modules/.bin/vitest", "run", "--reporter=dot")
    node.run(tmp_path, "node", "build.mjs", str(tmp_path / "built"))
    shipped = node.CLIENT / "built"
    names = sorted(path.name for path in shipped.iterdir())
    assert names == sorted(path.name for path in (tmp_path / "built").iterdir())
    for name in names:
        text = (shipped / name).read_text()
        assert text == (tmp_path / "built" / name).read_text(), f"{name} is not what src gives: npm run build"
        assert len(text) < LARGEST


def test_the_runtime_is_the_package_that_the_lock_file_names() -> None:
    facts = json.loads((node.CLIENT / "runtime.json").read_text())
    lock = json.loads((node.CLIENT / "package-lock.json").read_text())
    locked = lock["packages"][f"node_modules/{facts['package']}"]
    assert locked["version"] == facts["version"] and locked["integrity"].startswith("sha512-")
    wanted = json.loads((node.CLIENT / "package.json").read_text())
    assert wanted["dependencies"] == {facts["package"]: facts["version"]}
    # every version is pinned, and every package by its content; where it comes from is the user's registry
    assert not any(version.startswith(("^", "~")) for version in wanted["devDependencies"].values())
    entries = [entry for name, entry in lock["packages"].items() if name]
    assert all(entry.get("inBundle") or entry["integrity"].startswith("sha512-") for entry in entries)
    sources = {entry["resolved"].split("/")[2] for entry in entries if "resolved" in entry}
    assert sources <= {"registry.npmjs.org"}
