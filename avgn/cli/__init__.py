"""Runs the command line: each sub-command builds its own parser and imports what it needs when it is called."""

from __future__ import annotations

import errno
import importlib
import io
import logging
import os
import sys
from collections.abc import Sequence
from contextlib import suppress

from avgn.runtime.errors import FailureError, InputError, MissingExtraError
from avgn.runtime.interrupts import exit_status, listen
from avgn.runtime.memory import is_short, shortage
from avgn.runtime.outputs.place import STDOUT
from avgn.runtime.outputs.reasons import FULL, shown, write_error
from avgn.runtime.outputs.whole import abandon
from avgn.runtime.texts import PlainFormatter, plain

HELP = """usage: avgn COMMAND [OPTIONS]

Which things sound in a video, and where each is in the picture.

commands:
  synthesize OUT            render procedural scenes or videos with their whole truth
  import KIND ROOT          read a public data set, or folders of videos, into a manifest
  inspect MANIFEST          count what is in a manifest and draw some of its items with their truth
  shard MANIFEST OUT        pack scenes into WebDataset shards for training
  models                    the systems that can be trained
  train MANIFEST            train a localizer, written as a checkpoint folder
  evaluate MODEL MANIFEST   score a checkpoint or a bundle under named protocols
  teach BUNDLE NEW          teach a bundle your own classes from a handful of clips, or let it forget some
  classes [BUNDLE]          a bundle's classes, and the names that can become classes
  calibrate BUNDLE ITEMS    set the thresholds by which a bundle's halves decide together
  reproduce TABLE           train and score a table of the paper beside the published figures
  export CHECKPOINT BUNDLE  freeze a checkpoint into verified graphs
  verify BUNDLE             compare a bundle's variants with their model again
  trust BUNDLE              let machine code of a bundle run here that was built elsewhere
  benchmark [BUNDLE...]     speed, memory, size and accuracy of bundles in every engine of this machine
  deploy KIND BUNDLE OUT    lay a bundle out for triton-server, or as a web page that needs no server
  convert RELEASED OUT      read a checkpoint in the published AVGN format
  localize [BUNDLE] VIDEO   find the sounding objects of a video file, a network stream or a manifest's items
  probe FILE                list a media file's tracks, and what would be read of them
  figure KIND               the paper's figures: heat maps side by side, embeddings of the sources
  serve [BUNDLE]            a web page that localizes camera and microphone of whoever opens it
  devices                   list cameras and microphones
  demo                      localize the sources of a short video made for it
  doctor                    what works here, tried on a small video, and what does not and why

avgn COMMAND --help describes a command. BUNDLE may be one of the names inside the package: world (65 real things; what
is used where [BUNDLE] is left out) or tiny (drawn scenes, for tests).
"""

MODULE_EXTRAS = {
    "torch": "train",
    "torchvision": "train",
    "lightning": "train",
    "yaml": "train",
    "safetensors": "train",
    "sklearn": "train",
    "scipy": "train",
    "tensorboard": "train",
    "filelock": "train",
    "onnx": "export",
    "onnxscript": "export",
    "onnxruntime": "cpu",
    "openvino": "openvino",
    "cv2": "runtime",
    "av": "runtime",
    "PIL": "runtime",
    "matplotlib": "figures",
    "ray": "cluster",
    "pyarrow": "cluster",
    "starlette": "serve",
    "uvicorn": "serve",
    "prometheus_client": "serve",
}


# "module:function" of every sub-command
COMMANDS = {
    "synthesize": "avgn.cli.training:synthesize",
    "import": "avgn.cli.data:import_data",
    "inspect": "avgn.cli.data:inspect_data",
    "shard": "avgn.cli.training:shard",
    "models": "avgn.cli.models:models",
    "train": "avgn.cli.training:train",
    "evaluate": "avgn.cli.evaluation:evaluate",
    "teach": "avgn.cli.teach:teach",
    "classes": "avgn.cli.teach:classes",
    "calibrate": "avgn.cli.evaluation:calibrate",
    "reproduce": "avgn.cli.reproduce:reproduce",
    "export": "avgn.cli.export:export",
    "verify": "avgn.cli.export:verify",
    "trust": "avgn.cli.export:trust",
    "benchmark": "avgn.cli.benchmark:benchmark",
    "deploy": "avgn.cli.export:deploy",
    "convert": "avgn.cli.training:convert",
    "localize": "avgn.cli.live:localize",
    "probe": "avgn.cli.probe:probe",
    "figure": "avgn.cli.figures:figure",
    "serve": "avgn.cli.live:serve_page",
    "devices": "avgn.cli.live:devices",
    "demo": "avgn.cli.first_steps:demo",
    "doctor": "avgn.cli.first_steps:doctor",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, 1 (failure), 2 (bad input) or 130, 143, 129 (interrupted)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    _fill_closed_descriptors()
    _accept_any_name()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(PlainFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    if not arguments or arguments[0] in ("-h", "--help"):
        return _say(HELP)
    if arguments[0] in ("-V", "--version"):
        from avgn import __version__

        return _say(f"avgn {__version__}\n")
    name = arguments[0]
    if name not in COMMANDS:
        return _fail(f"unknown command {name!r}: use one of {', '.join(COMMANDS)}", 2)
    listen()
    try:
        module_name, _, function = COMMANDS[name].partition(":")
        getattr(importlib.import_module(module_name), function)(arguments[1:])
        _flush()
    except InputError as error:
        return _fail(str(error), 2)
    except FailureError as error:
        return _fail(str(error), 1)
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if module not in MODULE_EXTRAS:
            raise
        return _fail(str(MissingExtraError(module, MODULE_EXTRAS[module])), 2)
    except KeyboardInterrupt:
        return _fail("interrupted", exit_status())
    except BrokenPipeError as error:
        return _end_without_reader(error)
    except (MemoryError, OSError, RuntimeError, ImportError) as error:
        if isinstance(error, MemoryError) or is_short(error):
            return _fail(shortage(), 1)
        if not isinstance(error, OSError):
            raise
        if (full := _full_disk(error)) is not None:
            return _fail(str(full), 2)
        if error.errno not in (errno.ENAMETOOLONG, errno.ELOOP) or error.filename is None:
            raise
        return _fail(
            f"{shown(str(error.filename))} is no path of a file ({str(error.strerror).lower()}): give another one", 2
        )
    finally:
        abandon()
    return 0


def _say(text: str) -> int:
    try:
        print(text, end="")
        _flush()
    except BrokenPipeError as error:
        return _end_without_reader(error)
    except OSError as error:
        if (full := _full_disk(error)) is None:
            raise
        return _fail(str(full), 2)
    return 0


def _flush() -> None:
    """Write now what standard output still holds: at the end of the process nobody would tell that it can't be."""
    if sys.stdout is not None:
        sys.stdout.flush()


def _full_disk(error: OSError) -> InputError | None:
    """Return the sentence about a disk that is full; None for an error of another kind."""
    if error.errno not in FULL:
        return None
    if error.filename is not None:
        return write_error(str(error.filename), error)
    try:
        # the error doesn't say whose it is: if standard output takes more, it is another's
        os.write(1, b"\n")
    except OSError:
        _forget_stdout()
        return write_error(STDOUT, error, "standard output")
    return None


def _end_without_reader(error: BrokenPipeError) -> int:
    """End quietly: whoever read our output has gone, and all other outputs are complete."""
    if error.filename not in (None, STDOUT):
        _fail(f"the reader of {error.filename} has gone: ended there", 0)
    _forget_stdout()
    return 0


def _forget_stdout() -> None:
    """Let what standard output still holds not fail once more."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fill_closed_descriptors() -> None:
    """Let no file of ours become what libraries take for standard output or standard error.

    Shells close them with 2>&-, and some daemons do. What is to be written to a closed standard output still fails.
    """
    for descriptor, mode in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            # the lowest number that is free
            os.open(os.devnull, mode)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115


def _accept_any_name() -> None:
    """Let file names of any bytes and in any script be printed as far as the terminal can show them."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _fail(message: str, status: int) -> int:
    # a terminal that was closed takes no more
    with suppress(OSError):
        print(f"avgn: {plain(message)}", file=sys.stderr)
    return status
