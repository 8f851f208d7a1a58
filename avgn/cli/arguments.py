"""Accepts arguments in the order in which people write them: options among files, and files named with a dash."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence


def arrange(parser: argparse.ArgumentParser, argv: Sequence[str]) -> list[str]:
    """Return the same arguments with all options first, then `--`, then the files.

    A name that begins with a dash is a file where there is one and no option is called so; behind `--` everything is a
    file but known options. Arguments that hold an unknown option stay as they are, for the parser to complain about.
    """
    options: list[str] = []
    files: list[str] = []
    rest = list(argv)
    after_dashes = False
    while rest:
        token = rest.pop(0)
        if token == "--" and not after_dashes:
            after_dashes = True
            continue
        action = _option(parser, token)
        if action is None or (after_dashes and os.path.lexists(token)):
            if token.startswith("-") and token != "-" and not after_dashes and not os.path.lexists(token):
                return list(argv)
            files.append(token)
        elif "=" in token or action.nargs == 0:
            options.append(token)
        elif action.nargs is None and rest and not (rest[0].startswith("--") and _option(parser, rest[0])):
            # joined, for a value may begin with a dash
            options.append(f"{action.option_strings[-1]}={rest.pop(0)}")
        elif action.nargs in ("+", "*"):
            options.append(token)
            while rest and rest[0] != "--" and _option(parser, rest[0]) is None:
                options.append(rest.pop(0))
        else:
            options.append(token)
    return [*options, "--", *files] if files else options


def _option(parser: argparse.ArgumentParser, token: str) -> argparse.Action | None:
    """Return the option that a token names, also by an unambiguous beginning."""
    if not token.startswith("-") or token in ("-", "--"):
        return None
    name = token.partition("=")[0]
    known = parser._option_string_actions
    if name in known:
        return known[name]
    if not name.startswith("--"):
        return None
    found = {id(action): action for option, action in known.items() if option.startswith(name)}
    return next(iter(found.values())) if len(found) == 1 else None
