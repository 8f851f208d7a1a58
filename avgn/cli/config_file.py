"""Reads files of options within limits, since they may come from strangers, and follows no file that they name."""

from __future__ import annotations

import json
from typing import Any

from avgn.runtime.documents import read_yaml, shown
from avgn.runtime.errors import InputError

WAY_OUT = "give a YAML file of options"


def config_action() -> type[Any]:
    """Make the action of `--config` for jsonargparse, when it is asked for, since that library is slow to
    import."""
    from jsonargparse import ActionConfigFile

    class ConfigFile(ActionConfigFile):  # type: ignore[misc, unused-ignore]
        """Hand a checked file on as text, since the library would follow names of further files in it."""

        def __call__(self, parser: Any, cfg: Any, values: Any, option_string: str | None = None) -> None:
            found = read_options(values, [action.dest for action in parser._actions])
            super().__call__(parser, cfg, json.dumps(found), option_string)

    return ConfigFile


def read_options(path: str, known: list[str]) -> dict[str, Any]:
    """Return the options of a YAML file by name. Raises InputError for anything but known names with values."""
    found = read_yaml(path, "configuration", WAY_OUT)
    if not isinstance(found, dict):
        raise InputError(f"configuration {path} holds {shown(found)}, not names with values: {WAY_OUT}")
    groups = {name.partition(".")[0] for name in known if "." in name}
    for name, value in found.items():
        if not isinstance(name, str) or name == "config" or name.partition(".")[0] not in {*groups, *known}:
            raise InputError(f"configuration {path}: option {shown(name)} is not known: see avgn train --help")
        if name in groups and not isinstance(value, dict):
            raise InputError(f"configuration {path}: {name} must be names with values, got {shown(value)}")
    try:
        text = json.dumps(found, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(f"configuration {path} holds a value that no option takes ({error}): {WAY_OUT}") from None
    if "\\u0000" in text:
        raise InputError(f"configuration {path} holds a NUL byte, which no option takes: {WAY_OUT}")
    return found
