"""The shape of the whole: no module imports itself round a circle, and none reaches for another's private parts."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1]
# folder -> what it is imported as; the links inside avgn/ would name a module twice
ROOMS = {"avgn": "avgn", "runtime": "avgn.runtime", "kernels": "avgn.kernels", "export": "avgn.export"}
# what libraries document under such names
DOCUMENTED = ("os._exit", "parts._replace", "torch._inductor")
# libraries' undocumented parts, and how many of them may be used
LIBRARIES = ("torch.", "_BatchNorm", "parser.", "pool.", "library.")
MOST_PRIVATE = 10


@lru_cache(maxsize=1)
def modules() -> dict[str, ast.Module]:
    """Every module of the four rooms by the name that it is imported by."""
    found = {}
    for folder, name in ROOMS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            inside = path.relative_to(ROOT / folder)
            if folder == "avgn" and inside.parts[0] in ROOMS:
                continue
            parts = (name, *inside.with_suffix("").parts)
            found[".".join(parts).removesuffix(".__init__")] = ast.parse(path.read_text(encoding="utf-8"))
    return found


def imports(tree: ast.Module) -> set[str]:
    """The modules of ours that a module names anywhere, also inside functions and for type checkers."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{each.name}" for each in node.names}
            found |= (inner & modules().keys()) or {node.module}
        elif isinstance(node, ast.Import):
            found |= {each.name for each in node.names}
    return found & modules().keys()


def test_no_circle_of_imports() -> None:
    """A file can be read before those that use it."""
    graph = {name: imports(tree) - {name} for name, tree in modules().items()}
    assert len(graph) > 200
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        raise AssertionError(f"a circle of imports: {' <- '.join(error.args[1])}") from None


def private_uses(tree: ast.Module) -> Iterator[str]:
    """Attributes and names that begin with one underscore and are not the module's own."""
    own = {
        node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            own |= {node.attr} if ast.unparse(node.value) in ("self", "cls") else set()
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            own.add(node.id)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            yield from (each.name for each in node.names if _is_private(each.name))
        elif isinstance(node, ast.Attribute) and _is_private(node.attr) and node.attr not in own:
            use = ast.unparse(node)
            if use not in DOCUMENTED and not use.startswith(("self._", "cls._", "super()._")) and use.count("._") == 1:
                yield use


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def test_modules_leave_each_others_private_parts_alone() -> None:
    """What is left is libraries' own, where nothing public says the same."""
    used = {name: set(private_uses(tree)) for name, tree in modules().items()}
    ours = {name: uses for name, uses in used.items() if any(not use.startswith(LIBRARIES) for use in uses)}
    assert not ours, ours
    assert sum(map(len, used.values())) <= MOST_PRIVATE, {name: uses for name, uses in used.items() if uses}


def defined(tree: ast.Module) -> Iterator[str]:
    """The functions, classes and constants of a module."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))


def test_nothing_is_defined_that_nothing_names() -> None:
    """What only its own definition mentions is left over."""
    folders = (*ROOMS, "benchmarks", "docs", "examples", "recipes", "tests")
    paths = {path.resolve() for folder in folders for path in (ROOT / folder).rglob("*.py")}
    named = Counter(word for path in paths for word in re.findall(r"\w+", path.read_text(encoding="utf-8")))
    left = {name: {each for each in defined(tree) if named[each] == 1} for name, tree in modules().items()}
    assert not any(left.values()), {name: names for name, names in left.items() if names}
