"""Workers on a Ray cluster: a pool of actors behind Ray Data, one engine each."""

from __future__ import annotations

import json
import logging
import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

import avgn
from avgn.runtime.collections.job import Entry, Job, Outcome
from avgn.runtime.collections.runner import Runner
from avgn.runtime.errors import FailureError, InputError, MissingExtraError

# whole ones would leave two CPUs nothing for Ray's own tasks
CPUS_PER_ACTOR = 0.5
LEAST_CPUS = 2
KNOCK_SECONDS = 10.0


def import_ray() -> ModuleType:
    """Ray with Ray Data; raises MissingExtraError when they are not installed."""
    # neither reports of use nor notes on stderr
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
        import ray.data
    except ImportError:
        raise MissingExtraError("ray", "cluster") from None
    module: ModuleType = ray
    return module


class Actor:
    """A worker: takes chunks and gives outcomes, both as JSON."""

    def __init__(self, job: Job) -> None:
        self._runner = Runner(job)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """batch {"chunk": [JSON]} -> {"outcomes": [JSON]}."""
        chunks = [[Entry(**entry) for entry in json.loads(chunk)] for chunk in batch["chunk"]]
        return {"outcomes": [json.dumps([asdict(outcome) for outcome in self._runner(chunk)]) for chunk in chunks]}


def run_on_ray(
    job: Job, chunks: Iterable[list[Entry]], workers: int, address: str | None = None
) -> Iterator[list[Outcome]]:
    """Localize with `workers` actors; files must lie at the same paths on every node.

    `address`: a running cluster, default RAY_ADDRESS, else one is started here and ended afterwards. Raises InputError
    when the cluster doesn't answer, FailureError when a worker fails.
    """
    ray = import_ray()
    rows = [{"chunk": json.dumps([asdict(entry) for entry in chunk])} for chunk in chunks]
    with _cluster(ray, workers, address):
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        data = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            Actor,
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=workers),
            num_cpus=CPUS_PER_ACTOR,
            fn_constructor_args=(job,),
        )
        try:
            for row in data.iter_rows():
                yield [Outcome(**outcome) for outcome in json.loads(row["outcomes"])]
        except ray.exceptions.RayError as error:
            raise FailureError(f"a worker of the Ray cluster failed ({_cause(error)}): mend it and run again") from None


@contextmanager
def _cluster(ray: ModuleType, workers: int, address: str | None) -> Iterator[None]:
    if ray.is_initialized():
        yield
        return
    address = address or os.environ.get("RAY_ADDRESS")
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        _knock(address)
        if address is None:
            # its workers are to import the package that runs here
            places = [str(Path(avgn.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
            environment = {"env_vars": {"PYTHONPATH": os.pathsep.join(filter(None, places))}}
            cpus = max(LEAST_CPUS, workers)
            ray.init(address="local", num_cpus=cpus, include_dashboard=False, runtime_env=environment, **quiet)
        else:
            ray.init(address=address, **quiet)
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(
            f"no Ray cluster answers at {address or 'this machine'} ({reason}): check --address and RAY_ADDRESS"
        ) from None
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        yield
    finally:
        ray.shutdown()


def _knock(address: str | None) -> None:
    """Raise OSError when nobody listens at host:port; Ray itself would go on trying for many minutes."""
    host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK_SECONDS).close()


def _cause(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:200] if lines else type(error).__name__
