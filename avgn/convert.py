"""Turns a checkpoint in the published format into this package's own."""

from __future__ import annotations

import os
import pickle
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from avgn.checkpoint import save_model
from avgn.config import preset
from avgn.model import build_model
from avgn.released import translate
from avgn.runtime.errors import InputError
from avgn.runtime.texts import plain, read_text

WRAPPERS = ("model", "state_dict")


def convert_released(
    source: str | os.PathLike[str], output: str | os.PathLike[str], classes: Sequence[str] | None = None
) -> Path:
    """Read a published checkpoint and write `output`/model.safetensors and config.json; returns the folder.

    classes: their names in the order of the model's tokens; without them placeholders. The widths and the number of
    classes come from the weights. Raises InputError for a file that holds code, is no such checkpoint, or whose number
    of classes isn't that of `classes`.
    """
    output = Path(output)
    if output.exists() and any(output.iterdir()):
        raise InputError(f"output folder {output} is not empty: choose another one")
    state = translate(_read(Path(source)))
    tokens = state.get("tokens")
    if tokens is None or tokens.dim() != 2:
        raise InputError(f"{source} holds no class tokens (av_token): it is not a published AVGN checkpoint")
    count = tokens.shape[0]
    names = tuple(classes) if classes is not None else tuple(f"class_{index:02d}" for index in range(count))
    if len(names) != count:
        raise InputError(
            f"{source} has {count} classes, {len(names)} names were given: give one name a class, in order"
        )
    if len(set(names)) != count:
        raise InputError("the class names are not unique: give one name a class, in the order of the training list")
    model = build_model(preset("avgn-release", classes=names))
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        reason = plain(str(error))[:300]
        raise InputError(f"{source} doesn't fit the published model ({reason}): give an AVGN checkpoint") from None
    return save_model(model.eval(), output, training={"converted": Path(source).name})


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise InputError(f"{path} does not exist: give a published checkpoint")
    try:
        with warnings.catch_warnings():
            # PyTorch warns of its own unpickler: what can't be read is said below
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path} holds more than weights and is not loaded, for it may run code "
            f"({plain(str(error).splitlines()[0])[:150]}): save its state dict alone"
        ) from None
    except Exception as error:
        # the unpickler raises what it likes on damaged files
        raise InputError(f"{path} can't be read ({error.__class__.__name__}): give a published checkpoint") from None
    for name in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            content = content[name]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise InputError(f"{path} holds no state dict: give a published checkpoint")
    return content


def read_classes(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """One class a line, in the order of the tokens. Raises InputError for a file that can't be read."""
    lines = read_text(path, "class list", "give a text file, one class a line").split("\n")
    return tuple(line.strip() for line in lines if line.strip())


def classes_of_list(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """The sorted classes of a published training list (lines of `video-id,class`), the order of its tokens."""
    names = {line.rsplit(",", 1)[1].strip() for line in read_classes(path) if "," in line}
    if not names:
        raise InputError(f"training list {path} holds no line `id,class`: give the list the checkpoint was trained on")
    return tuple(sorted(names))
