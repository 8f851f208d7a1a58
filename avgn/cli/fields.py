"""Options out of the fields of settings: each field's own docstring is its help."""

from __future__ import annotations

import ast
import inspect
import textwrap
from dataclasses import MISSING, fields
from typing import Any, get_type_hints


def field_docs(kind: type[Any]) -> dict[str, str]:
    """Return the docstring that stands below each field of a dataclass, in one line."""
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(body, ast.ClassDef)
    found = {}
    for entry, doc in zip(body.body, body.body[1:], strict=False):
        if not isinstance(entry, ast.AnnAssign) or not isinstance(entry.target, ast.Name):
            continue
        if isinstance(doc, ast.Expr) and isinstance(doc.value, ast.Constant) and isinstance(doc.value.value, str):
            found[entry.target.id] = " ".join(doc.value.value.split())
    return found


def add_fields(group: Any, kind: type[Any], *, leave_out: tuple[str, ...] = ()) -> None:
    """Add an option for each field of a dataclass, with its type and default."""
    hints, docs = get_type_hints(kind), field_docs(kind)
    for entry in fields(kind):
        if entry.name in leave_out:
            continue
        default = entry.default if entry.default_factory is MISSING else entry.default_factory()
        group.add_argument(f"--{entry.name}", type=hints[entry.name], default=default, help=_help(docs[entry.name]))


def add_overrides(group: Any, kind: type[Any], prefix: str, *, leave_out: tuple[str, ...] = ()) -> None:
    """Add an option `--PREFIX.NAME` for each field of a dataclass, which is None where it isn't given."""
    hints, docs = get_type_hints(kind), field_docs(kind)
    for entry in fields(kind):
        if entry.name not in leave_out:
            option = f"--{prefix}.{entry.name}"
            group.add_argument(option, type=hints[entry.name] | None, default=None, help=_help(docs[entry.name]))


def _help(text: str) -> str:
    return text.replace("%", "%%")
