"""Weights on disk: a folder with `model.safetensors` and `config.json`, never a pickle."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from avgn.config import Config
from avgn.model import LocalizerModel, build_model
from avgn.runtime.bundle_schema import Thresholds
from avgn.runtime.documents import read_json, shown
from avgn.runtime.errors import InputError
from avgn.runtime.files import write_whole
from avgn.runtime.texts import plain
from avgn.weights import BadWeightsError, read_safetensors

FORMAT = "avgn-checkpoint"
VERSION = 1
WEIGHTS = "model.safetensors"
FACTS = "config.json"


def save_model(model: LocalizerModel, folder: str | os.PathLike[str], training: dict[str, Any] | None = None) -> Path:
    """Write the weights, the configuration, the thresholds and (optionally) facts of the training; returns the folder.

    Each file appears whole or not at all.
    """
    folder = Path(folder)
    thresholds = model.thresholds
    facts = {
        "format": FORMAT,
        "version": VERSION,
        "config": model.config.to_dict(),
        "thresholds": None
        if thresholds is None
        else {"audio": list(thresholds.audio), "visual": list(thresholds.visual)},
        "training": training or {},
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"checkpoint {folder} can't be written ({error.strerror}): choose another folder") from None
    # safetensors' own writer makes files that nobody else may read, whatever the umask
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    write_whole(folder / WEIGHTS, save(state), "checkpoint")
    write_whole(folder / FACTS, json.dumps(facts, indent=2) + "\n", "checkpoint")
    return folder


def read_facts(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the checked content of a checkpoint's config.json. Raises InputError for anything else."""
    path = Path(folder) / FACTS
    if not path.exists():
        raise InputError(f"checkpoint {folder} holds no {FACTS}: give the folder that `avgn train` wrote")
    facts = read_json(path, "checkpoint", "restore the file")
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise InputError(f'{path} is not a checkpoint of avgn: "format" must be "{FORMAT}"')
    if facts.get("version") != VERSION:
        raise InputError(f"{path} has version {shown(facts.get('version'))}, this avgn reads {VERSION}: update avgn")
    if not isinstance(facts.setdefault("training", {}), dict):
        raise InputError(f"{path} holds no usable facts of its training: restore the file")
    return facts


def load_model(folder: str | os.PathLike[str]) -> LocalizerModel:
    """Read a checkpoint folder; the model comes in evaluation mode with its thresholds.

    Raises InputError for a folder that is no checkpoint or whose weights don't fit its configuration.
    """
    folder = Path(folder)
    facts = read_facts(folder)
    try:
        config = Config.from_dict(facts["config"])
        # without memory: the sizes are claims until the weights prove them
        with torch.device("meta"):
            sizes = build_model(config)
        thresholds = _thresholds(facts.get("thresholds"))
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise InputError(
            f"{folder / FACTS} holds no usable configuration ({plain(str(error))[:200]}): restore the file"
        ) from None
    try:
        state = read_safetensors(folder / WEIGHTS)
        sizes.load_state_dict(state, assign=True)
        model = build_model(config)
        model.thresholds = thresholds
        model.load_state_dict(state)
    except FileNotFoundError:
        raise InputError(f"checkpoint {folder} holds no {WEIGHTS}: give the folder that `avgn train` wrote") from None
    except (BadWeightsError, RuntimeError) as error:
        reason = plain(str(error).strip().splitlines()[-1])[:300]
        raise InputError(f"{folder / WEIGHTS} doesn't fit its configuration ({reason}): restore the file") from None
    return model.eval()


def _thresholds(raw: Any) -> Thresholds | None:
    if raw is None:
        return None
    found = {name: tuple(raw[name]) for name in ("audio", "visual")}
    if not all(type(value) in (int, float) for values in found.values() for value in values):
        raise ValueError("thresholds must be numbers")
    return Thresholds(**found)
