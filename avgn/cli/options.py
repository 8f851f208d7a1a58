"""Shares between the sub-commands their parser, and options with a syntax of their own."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from avgn.cli.arguments import arrange
from avgn.runtime.errors import FailureError, InputError
from avgn.runtime.texts import printable

if TYPE_CHECKING:
    from avgn.runtime.engines import Engine
    from avgn.runtime.localizer import Localizer


def make_parser(name: str, description: str) -> Any:
    import jsonargparse

    class Parser(jsonargparse.ArgumentParser):
        def error(self, message: str, ex: Exception | None = None) -> NoReturn:
            help_line = f": see avgn {name} --help"
            # an error inside of a configuration file comes here twice
            text = _in_words(self, " ".join(message.split()).removesuffix(help_line))
            raise InputError(f"{text}{help_line}")

        def parse_args(self, args: Sequence[str] | None = None, *rest: Any, **named: Any) -> Any:
            return super().parse_args(None if args is None else arrange(self, args), *rest, **named)

    class Formatter(jsonargparse.DefaultHelpFormatter, argparse.RawDescriptionHelpFormatter):
        """Leaves tables in a help text as they are."""

    return Parser(prog=f"avgn {name}", description=description, formatter_class=Formatter)


KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a text"}


def _in_words(parser: argparse.ArgumentParser, message: str) -> str:
    """Return what the parser says of an option's value in a user's words, any other message as it is."""
    key = re.match(r'Parser key "([^"]+)": ', message)
    if key is None:
        return message
    names = [action.option_strings[-1] for action in parser._actions if action.dest == key[1] and action.option_strings]
    name = names[0] if names else key[1]
    kinds = [KINDS[kind] for kind in re.findall(r"Expected an? <class '(\w+)'>", message) if kind in KINDS]
    given = re.search(r"(?:Given value|Got value): (.*)$", message)
    if given is None or not kinds:
        return f"{name}: {message[key.end() :]}"
    return f"{name} must be {' or '.join(kinds)}, got {given[1]!r}"


def add_backend_option(parser: Any) -> None:
    """Add --backend, for every command that runs a bundle."""
    from avgn.runtime.engines import ENGINES

    *names, last = ENGINES
    parser.add_argument(
        "--backend",
        type=str,
        default="auto",
        help=f"what runs the graphs: auto (the first that this machine can run), {', '.join(names)} or {last}",
    )


def add_engine_options(parser: Any) -> None:
    """Add --backend, --precision and --threads: together what `load_localizer` reads."""
    from avgn.runtime.contract import PRECISIONS

    *precisions, last = PRECISIONS
    add_backend_option(parser)
    parser.add_argument(
        "--precision",
        type=str | None,
        default=None,
        help=f"a variant of the bundle: {', '.join(precisions)} or {last}; else the most exact one that the backend "
        "runs",
    )
    parser.add_argument(
        "--threads",
        type=int | None,
        default=None,
        help="CPU threads of the engine; else the physical cores that this process may use",
    )


def load_localizer(args: Any) -> Localizer:
    """Load the bundle of a command's arguments into the engine that its options choose."""
    from avgn.runtime.localizer import Localizer

    return Localizer.load(args.bundle, args.backend, args.get("precision"), threads=args.get("threads"))


def is_checkpoint(model: str) -> bool:
    """Return whether a folder holds a checkpoint rather than a bundle."""
    from avgn.runtime.bundle import BUNDLE_FILE

    folder = Path(model)
    return (folder / "config.json").is_file() and not (folder / BUNDLE_FILE).is_file()


def load_engine(model: str, backend: str = "auto", device: str = "cpu") -> Engine:
    """Load the engine of a checkpoint folder (PyTorch, on `device`) or of a bundle (by `backend`)."""
    from avgn.runtime.localizer import Localizer

    if is_checkpoint(model):
        from avgn.checkpoint import load_model
        from avgn.engine import TorchEngine

        return TorchEngine(load_model(model), device)
    if device != "cpu":
        raise InputError(
            f"--device {device} is for a checkpoint, but {model} is a bundle: choose its engine with --backend"
        )
    return Localizer.load(model, backend).engine


class Report:
    """Writes a command's JSON, and what it says to people: to standard error if the JSON goes to standard output.

    The file is this run's from the start; a command that ends without writing it leaves none.
    """

    def __init__(self, path: str | None, *inputs: Path) -> None:
        """`inputs`: files that must not be replaced. Raises InputError now for a file that can't be written later."""
        from avgn.runtime.outputs import open_output, takes_stdout

        self._file = None if path is None else open_output(path, *inputs)
        self._is_on_stdout = takes_stdout(path)

    def write(self, value: Any) -> None:
        """Write the file, which appears whole or not at all."""
        from avgn.runtime.outputs import write_error

        if self._file is None:
            return
        try:
            self._file.write((json.dumps(value, indent=1) + "\n").encode())
            self._file.commit()
        except BrokenPipeError:
            raise
        except OSError as error:
            self._file.abort()
            raise write_error(self._file.name, error) from None

    def say(self, text: object) -> None:
        """Print for people."""
        print(printable(str(text)), file=sys.stderr if self._is_on_stdout else sys.stdout)


@contextmanager
def parameters_as_options(parser: Any) -> Iterator[None]:
    """Name the parameters in errors of the library (`resume`) as the options of a command (--resume)."""
    options = {option for action in parser._actions for option in action.option_strings}

    def option(found: re.Match[str]) -> str:
        names = (f"--{found[1].replace('_', '-')}", f"--{found[1]}")
        # dashes are read for underscores
        return names[0] if options.intersection(names) else found[0]

    try:
        yield
    except (InputError, FailureError) as error:
        text = re.sub(r"`([a-z][a-z_.]*)`", option, str(error))
        if text == str(error):
            raise
        raise (InputError if isinstance(error, InputError) else FailureError)(text) from None


def split_names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def parse_range(option: str, text: str) -> tuple[int, int]:
    low, _, high = text.partition("-")
    try:
        return int(low), int(high or low)
    except ValueError:
        raise InputError(f"{option} must be N or MIN-MAX, got {text!r}: for example 0-3") from None


def parse_size(option: str, text: str) -> tuple[int, int]:
    width, _, height = text.lower().partition("x")
    try:
        return int(width), int(height)
    except ValueError:
        raise InputError(f"{option} must be WIDTHxHEIGHT, got {text!r}: for example 640x480") from None


def parse_integers(option: str, text: str, count: int) -> list[int]:
    try:
        values = [int(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) != count:
        example = "1,4,16" if count == 3 else "224,224"
        raise InputError(f"{option} must be {count} whole numbers, got {text!r}: for example {example}")
    return values


def split_integers(option: str, text: str) -> tuple[int, ...]:
    """Read any number of whole numbers."""
    try:
        return tuple(int(part) for part in split_names(text))
    except ValueError:
        raise InputError(
            f"{option} must be whole numbers with commas between them, got {text!r}: as in 1,2,4"
        ) from None


def to_underscores(argv: Sequence[str]) -> list[str]:
    """Rewrite the dashes of options as underscores, which the configuration's own names have."""
    return [
        "--" + part[2:].split("=")[0].replace("-", "_") + part[2 + len(part[2:].split("=")[0]) :]
        if part.startswith("--")
        else part
        for part in argv
    ]
