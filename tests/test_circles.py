"""No module imports another that imports it, also inside functions: a file can be read before those that use it."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ROOMS = {"avgn": "avgn", "runtime": "avgn.runtime", "kernels": "avgn.kernels", "export": "avgn.export"}
# imports that are known to close a circle
KNOWN = {("avgn.runtime.multi", "avgn.runtime.stream_handle")}


def modules() -> dict[str, Path]:
    found = {}
    for folder, package in ROOMS.items():
        for path in (ROOT / folder).rglob("*.py"):
            inner = path.relative_to(ROOT / folder)
            # the rooms are linked into the package
            if folder != "avgn" or inner.parts[0] not in ROOMS:
                found[".".join((package, *inner.with_suffix("").parts)).removesuffix(".__init__")] = path
    return found


def imports(path: Path, known: dict[str, Path]) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {name if name in known else node.module for name in inner}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found & set(known)


def test_no_modules_import_each_other() -> None:
    known = modules()
    graph = {
        name: {other for other in imports(path, known) if other != name and (name, other) not in KNOWN}
        for name, path in known.items()
    }
    assert len(graph) > 200
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        raise AssertionError(f"a circle of imports: {' <- '.join(error.args[1])}") from None
