"""Turns a checkpoint in the published format into this package's own."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from avgn.checkpoint import save_model
from avgn.config import preset
from avgn.model import build_model
from avgn.released import translate
from avgn.runtime.errors import InputError
from avgn.runtime.limits import MOST_CLASSES
from avgn.runtime.manifest import check_names
from avgn.runtime.regular import no_file
from avgn.runtime.texts import plain, read_text
from avgn.weights import BadWeightsError, read_torch, state_of

# bytes of a list of classes, or of a published training list
LARGEST_LIST = 16 << 20
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
    if not 0 < count <= MOST_CLASSES:
        raise InputError(f"{source} has {count} class tokens: 1 to {MOST_CLASSES} can be used")
    names = tuple(classes) if classes is not None else tuple(f"class_{index:02d}" for index in range(count))
    if len(names) != count:
        raise InputError(
            f"{source} has {count} classes, {len(names)} names were given: give one name a class, in order"
        )
    check_names("--classes", "class", names)
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
        raise InputError(f"{path} {no_file(path)}: give a published checkpoint, as the .pth file that was downloaded")
    try:
        return state_of(read_torch(path), WRAPPERS)
    except BadWeightsError as error:
        if error.holds_code:
            raise InputError(
                f"{path} holds more than weights and is not loaded, for it may run code ({error}): save its state dict "
                "alone"
            ) from None
        raise InputError(f"{path} can't be read ({error}): give a published checkpoint") from None


def read_classes(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """One class a line, in the order of the tokens. Raises InputError for a file that can't be read."""
    lines = read_text(path, "class list", "give a text file, one class a line", most=LARGEST_LIST).split("\n")
    return tuple(line.strip() for line in lines if line.strip())


def classes_of_list(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Return the sorted classes of a published training list (lines of `video-id,class`), the order of its tokens."""
    names = {line.rsplit(",", 1)[1].strip() for line in read_classes(path) if "," in line}
    if not names:
        raise InputError(f"training list {path} holds no line `id,class`: give the list the checkpoint was trained on")
    return tuple(sorted(names))
