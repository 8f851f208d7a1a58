"""Tokens: where they come from, whether they are worth their name, and keeping them out of the process list."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

from avgn.runtime.errors import InputError

ENVIRONMENT = "AVGN_TOKEN"
SHORTEST = 16
LARGEST_FILE = 4096
# what is left of a token when a character that repeats or follows the one before it counts as nothing
FEWEST_STEPS = 8
FEWEST_DIFFERENT = 6
COMMON = ("password", "qwertyuiop", "asdfghjkl", "zxcvbnm", "letmein", "changeme", "welcome", "secret")
ADVICE = "python3 -c 'import secrets; print(secrets.token_urlsafe(24))' > token"


def choose_token(given: str | None, file: str | None) -> str | None:
    """Return the token of --token or --token-file, else that of the environment, from which it is taken out."""
    from_environment = os.environ.pop(ENVIRONMENT, None)
    if given is not None:
        if file is not None:
            raise InputError("--token and --token-file are two places for one token: give one of them")
        hide_argument(given)
        return given
    return from_environment or None if file is None else read_token(file)


def read_token(file: str) -> str:
    """Return the first line of a file; raises InputError where there is none."""
    try:
        with Path(file).open("rb") as stream:
            raw = stream.read(LARGEST_FILE)
    except OSError as error:
        raise InputError(f"--token-file {file} can't be read ({error.strerror}): {ADVICE}") from None
    line = raw.decode("utf-8", "replace").split("\n", 1)[0].strip()
    if not line:
        raise InputError(f"--token-file {file} holds no token in its first line: {ADVICE}")
    return line


def check_token(host: str, local: bool, token: str | None) -> None:
    """Raise InputError, which never says the token, for a host that others reach without one worth its name."""
    if token is None and not local:
        raise InputError(
            f"--host {host} is reached by other machines and needs --token-file (or --token): {ADVICE} (and browsers "
            "give no camera over plain http except on localhost: use --tls-cert and --tls-key)"
        )
    if token is None:
        return
    if len(token) < SHORTEST or not token.isascii() or not token.isprintable():
        raise InputError(
            f"the token must have at least {SHORTEST} printable ASCII characters, not {len(token)}: {ADVICE}"
        )
    if is_guessable(token):
        raise InputError(f"the token is too easy to guess: let a machine choose it, {ADVICE}")


def is_guessable(token: str) -> bool:
    """Return whether a token is a pattern: few different characters, repetitions, sequences, words that everybody
    tries."""
    if any(token == (token[:period] * len(token))[: len(token)] for period in range(1, len(token) // 2 + 1)):
        return True
    rest = token.lower()
    for word in COMMON:
        rest = rest.replace(word, "").replace(word[::-1], "")
    steps = sum(abs(ord(after) - ord(before)) > 1 for before, after in zip(rest, rest[1:], strict=False))
    return len(set(rest)) < FEWEST_DIFFERENT or steps < FEWEST_STEPS


def hide_argument(secret: str) -> None:
    """Overwrite an argument of this process with stars, so that the process list does not show it (Linux only)."""
    if not sys.platform.startswith("linux") or not secret:
        return
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        # arg_start and arg_end, counted from 1 with pid and name before them
        start, end = int(fields[48 - 3]), int(fields[49 - 3])
        shown = ctypes.string_at(start, end - start) if 0 < start < end else b""
    except (OSError, ValueError, IndexError):
        return
    wanted, at = os.fsencode(secret), 0
    while (at := shown.find(wanted, at)) >= 0:
        ctypes.memset(start + at, ord("*"), len(wanted))
        at += len(wanted)
