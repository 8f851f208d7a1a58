"""From a manifest to result rows: the function behind `avgn localize --manifest`."""

from __future__ import annotations

import hashlib
import os
import time as clock
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from avgn.runtime.bundle import BUNDLE_FILE, SHIPPED, Bundle, file_sha256
from avgn.runtime.collections.job import Entry, Job, Outcome, cut, list_entries
from avgn.runtime.collections.local import run_here, run_in_processes
from avgn.runtime.collections.output import Output, open_collection_output
from avgn.runtime.collections.ray_cluster import run_on_ray
from avgn.runtime.errors import InputError
from avgn.runtime.manifest import Manifest, read_manifest

CLUSTERS = ("ray",)
FORMAT = "avgn-localized"


@dataclass(frozen=True, kw_only=True)
class CollectionSummary:
    """What a run did: `items` listed, `before` of them found in the output, `localized` now in `seconds`.

    `left_out` holds the items without a result, which `failures` lists with their reasons.
    """

    output: Path
    items: int
    before: int
    localized: int
    seconds: float
    left_out: tuple[Outcome, ...]
    failures: Path

    def lines(self) -> list[str]:
        """Return what people want to know."""
        rate = self.localized / self.seconds if self.seconds else 0.0
        found = f"{self.localized} of {self.items} items localized in {self.seconds:.1f} s ({rate:.1f} items/s)"
        return [found + (f", {self.before} were there already" if self.before else ""), str(self.output)]

    def warning(self) -> str | None:
        """Return the sentence about items without a result, or None."""
        if not self.left_out:
            return None
        first = self.left_out[0]
        count = f"{len(self.left_out)} of {self.items} items were left out"
        return f"{count}, the first {first.id!r} ({first.reason}): {self.failures} lists them"


def localize_collection(
    bundle: str | os.PathLike[str],
    manifest: str | os.PathLike[str],
    *,
    json_path: str | os.PathLike[str] | None = None,
    parquet: str | os.PathLike[str] | None = None,
    maps: str | os.PathLike[str] | None = None,
    workers: int = 1,
    cluster: str | None = None,
    address: str | None = None,
    backend: str = "auto",
    precision: str | None = None,
    threads: int | None = None,
    batch: int = 16,
    audio_track: str | int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> CollectionSummary:
    """Localize every item of a manifest, and write one row an item in the manifest's order.

    `json_path` or `parquet` (a folder): the output; `maps`: a folder for the maps [K, h, w] of stills, float16, one
    .npz each. `workers`: processes on this machine, or actors with `cluster` "ray" (at `address`); more than one, and
    actors, compute with one thread each unless `threads` says otherwise. What can't be read is left out with its
    reason. A run that was broken off goes on where it was when it is started again. `audio_track`: which sound track of
    videos with several, by number from 1 or by language. `progress(done, total)` is called after each chunk.
    Raises InputError for anything given that can't be used, FailureError when a worker fails.
    """
    _check(workers, batch, cluster, address)
    listed = read_manifest(manifest, check_files=False)
    loaded = Bundle.load(bundle)
    output = open_collection_output(json_path, parquet)
    many = workers > 1 or cluster is not None
    job = Job(
        # the shipped one may lie elsewhere on another machine
        bundle=str(bundle) if bundle in SHIPPED else os.path.abspath(loaded.path),
        backend=backend,
        precision=precision,
        threads=1 if many and threads is None else threads,
        batch=batch,
        maps=None if maps is None else os.path.abspath(maps),
        audio_track=audio_track,
    )
    if job.maps is not None:
        _make_folder(Path(job.maps))
    execute = partial(_execute, job, workers=workers, cluster=cluster, address=address)
    return _fill(output, listed, _facts(listed, loaded, job), execute, progress)


def _fill(
    output: Output,
    listed: Manifest,
    facts: dict[str, Any],
    execute: Callable[[list[Entry]], Iterable[list[Outcome]]],
    progress: Callable[[int, int], None] | None,
) -> CollectionSummary:
    """Write the rows that `execute` gives for those items that the output doesn't hold yet, and close it."""
    entries, left_out = list_entries(listed)
    ids = [item.id for item in listed.items]
    begin = clock.perf_counter()
    localized = 0
    try:
        done = output.open(facts, set(ids))
        for outcomes in execute([entry for entry in entries if entry.id not in done]):
            output.add(outcomes)
            localized += sum(outcome.row is not None for outcome in outcomes)
            left_out += [outcome for outcome in outcomes if outcome.row is None]
            if progress:
                progress(len(done) + localized + len(left_out), len(ids))
        output.finish(ids, left_out)
    finally:
        output.close()
    return CollectionSummary(
        output=output.path,
        items=len(ids),
        before=len(done),
        localized=localized,
        seconds=clock.perf_counter() - begin,
        left_out=tuple(left_out),
        failures=output.failures,
    )


def _check(workers: int, batch: int, cluster: str | None, address: str | None) -> None:
    for name, value in (("workers", workers), ("batch", batch)):
        if value < 1:
            raise InputError(f"{name} must be at least 1, got {value}")
    if cluster is not None and cluster not in CLUSTERS:
        raise InputError(f"cluster {cluster!r} is not known: choose one of {', '.join(CLUSTERS)}")
    if address is not None and cluster is None:
        raise InputError(f"address {address} is a cluster's: say --cluster ray, too")


def _execute(
    job: Job, entries: list[Entry], workers: int, cluster: str | None, address: str | None
) -> Iterable[list[Outcome]]:
    if not entries:
        return ()
    chunks: Iterator[list[Entry]] = cut(entries, job.batch)
    if cluster is not None:
        return run_on_ray(job, chunks, workers, address)
    return run_here(job, chunks) if workers == 1 else run_in_processes(job, chunks, workers)


def _facts(manifest: Manifest, bundle: Bundle, job: Job) -> dict[str, Any]:
    """Return what decides a row; two runs that agree in it may share an output."""
    model = {"name": str(bundle.info.model["name"]), "sha256": file_sha256(bundle.path / BUNDLE_FILE)}
    return {
        "format": FORMAT,
        "manifest": {"name": manifest.path.name, "sha256": hashlib.sha256(manifest.path.read_bytes()).hexdigest()},
        "bundle": model,
        "precision": job.precision,
        "maps": job.maps,
    } | ({} if job.audio_track is None else {"audio_track": job.audio_track})


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"maps {folder} can't be written ({error.strerror}): choose another folder") from None
