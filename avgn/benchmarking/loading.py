"""Loads what a job runs: a variant of a bundle in an engine, or the core model of a checkpoint in PyTorch."""

from __future__ import annotations

from typing import Any

from avgn.runtime.bundle import Bundle
from avgn.runtime.engines import ENGINES, check_unverified, load_engine
from avgn.runtime.engines.base import Engine

COMPILED = ("encode_audio", "hand_over", "encode_image", "localize")


def load(job: dict[str, Any]) -> Engine:
    """Load the engine of a job ("backend" and "checkpoint", or "bundle" and "variant"; "threads"), library
    included."""
    if job["backend"].startswith("torch"):
        return _load_torch(job["checkpoint"], job["threads"], compile_it=job["backend"] == "torch-compile")
    bundle = Bundle.load(job["bundle"])
    variant = bundle.info.variants[job["variant"]]
    options = {} if ENGINES[job["backend"]].gpu else {"threads": job["threads"]}
    engine = load_engine(bundle, variant, job["backend"], **options)
    if variant.verified is None and variant.engine != "onnxruntime":
        check_unverified(bundle, variant, engine)
    return engine


def _load_torch(checkpoint: str, threads: int, *, compile_it: bool) -> Engine:
    import torch

    torch.set_num_threads(threads)
    from avgn.checkpoint import load_model
    from avgn.engine import TorchEngine

    engine = TorchEngine(load_model(checkpoint))
    for name in COMPILED if compile_it else ():
        setattr(engine.model, name, torch.compile(getattr(engine.model, name), dynamic=False))
    return engine
