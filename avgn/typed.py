"""Whether a value that was read from JSON or YAML is of a field's type, and what that type is called."""

from __future__ import annotations

from dataclasses import is_dataclass
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin


def fits(value: Any, hint: Any) -> bool:
    """Return whether a value is of a field's type; what becomes a dataclass is checked by itself."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(fits(value, each) for each in inner)
    if hint is Any or is_dataclass(hint):
        return True
    if origin is Literal:
        return isinstance(value, str) and value in inner
    if origin is dict:
        return isinstance(value, dict) and all(fits(k, inner[0]) and fits(v, inner[1]) for k, v in value.items())
    if origin is tuple:
        # of one length, or of any
        count = len(value) if isinstance(value, list | tuple) else -1
        kinds = [inner[0]] * count if inner[-1] is Ellipsis else list(inner)
        return count == len(kinds) and all(fits(each, kind) for each, kind in zip(value, kinds, strict=True))
    if isinstance(value, bool) or value is None:
        return hint is bool or (hint is type(None) and value is None)
    return isinstance(value, int | float if hint is float else hint)


def said(hint: Any) -> str:
    """Return a field's type for people."""
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        return " or ".join(said(each) for each in get_args(hint))
    if origin is Literal:
        return "one of " + ", ".join(get_args(hint))
    kinds = {str: "text", int: "a whole number", float: "a number", bool: "true or false", type(None): "nothing"}
    return kinds.get(hint, "a list" if origin is tuple else "a mapping of names to values")
