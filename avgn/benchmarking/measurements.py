"""Makes the measurements: all rows take turns, round after round, each time in a new process."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from avgn.benchmarking.peak import installed_libraries
from avgn.benchmarking.plan import TORCH, BenchmarkOptions, Row, System
from avgn.benchmarking.process import Job, one_sentence, run_job
from avgn.runtime.errors import FailureError, InputError

VIDEO_SEED = 1

Progress = Callable[[int, int], None]


class Measurements:
    """Holds what was measured so far, by row, system (a row without its batch and threads), bundle or thread count.

    `failures` and `stage_failures` hold why a row was given up; it is not measured again.
    """

    def __init__(self, options: BenchmarkOptions, rows: list[Row], progress: Progress | None) -> None:
        self.rows = rows
        self.rounds: dict[Row, list[dict[str, Any]]] = {row: [] for row in rows}
        self.failures: dict[Row, str] = {row: row.failure for row in rows if row.failure is not None}
        self.peaks: dict[int, list[dict[str, Any]]] = {}
        self.peak_failures: dict[str, str] = {}
        self.accuracy: dict[System, dict[str, Any]] = {}
        self.operations: dict[str, dict[str, Any]] = {}
        self.stages: dict[Row, list[dict[str, Any]]] = {}
        self.stage_failures: dict[Row, str] = {}
        self._options = options
        # torch takes seconds to load, so it is imported only where it is used
        with_torch = any(row.backend in TORCH and row.failure is None for row in rows)
        self._libraries = [name for name in installed_libraries() if with_torch or name != "torch"]
        self._progress = progress
        self._done = 0
        runnable = [row for row in rows if row.failure is None]
        per_round = len(runnable) + len(self._libraries) * len(self._thread_counts()) + len(self.pipelines())
        once = len({row.system for row in runnable}) + len({row.bundle for row in rows})
        self._total = options.rounds * per_round + once

    def measure_rounds(self) -> None:
        """Measure everything that is a time: peaks, rows and pipelines. Every other round runs backwards, so that
        drifts cancel."""
        with tempfile.TemporaryDirectory() as folder:
            video = self._render(Path(folder) / "scene.mp4")
            for at in range(self._options.rounds):
                for threads in self._thread_counts():
                    for library in self._libraries:
                        self._measure_peak(library, threads)
                for row in self.rows if at % 2 == 0 else reversed(self.rows):
                    if row not in self.failures:
                        self._measure_row(row)
                for row in self.pipelines() if video is not None else ():
                    if row not in self.stage_failures:
                        self._measure_pipeline(row, video)

    def measure_once(self, checkpoints: Mapping[str, str | None], manifest: str | os.PathLike[str] | None) -> None:
        """Measure what doesn't depend on how busy the machine is: operations, accuracy."""
        for name in checkpoints:
            self.operations[name] = self._try({"kind": "operations", "bundle": name})
        systems = {row.system: row for row in self.rows if row not in self.failures}
        for system, row in systems.items():
            facts = {"checkpoint": checkpoints[row.bundle], "manifest": None if manifest is None else str(manifest)}
            self.accuracy[system] = self._try(row.job("accuracy") | facts)

    def _measure_row(self, row: Row) -> None:
        found = self._try(row.job("row", seconds=self._options.seconds, repeats=self._options.repeats))
        if "failure" in found:
            before = len(self.rounds[row])
            self.failures[row] = (f"in round {before + 1}: " if before else "") + found["failure"]
        else:
            self.rounds[row].append(found)

    def _measure_peak(self, library: str, threads: int) -> None:
        if library in self.peak_failures:
            return
        found = self._try({"kind": "peak", "library": library, "threads": threads})
        if "failure" in found:
            self.peak_failures[library] = found["failure"]
        else:
            self.peaks.setdefault(threads, []).extend(found["peaks"])

    def _measure_pipeline(self, row: Row, video: Path | None) -> None:
        found = self._try(row.job("stages", video=str(video)))
        if "failure" in found:
            self.stage_failures[row] = found["failure"]
        else:
            self.stages.setdefault(row, []).append(found)

    def pipelines(self) -> list[Row]:
        """Choose one row of every system that reads a bundle: the one with the most threads."""
        if not self._options.video_seconds:
            return []
        rows = [row for row in self.rows if row.variant is not None and row.failure is None]
        last = {row.system: row for row in sorted(rows, key=lambda row: row.threads or 0)}
        return list(last.values())

    def _render(self, video: Path) -> Path | None:
        if not self._options.video_seconds:
            return None
        try:
            from avgn.scenes import SceneConfig
            from avgn.scenes.video import write_scene_video

            config = SceneConfig(split="test", sources=(2, 2), silent=(1, 1), off_screen=0.0)
            write_scene_video(video, seed=VIDEO_SEED, seconds=self._options.video_seconds, config=config)
        except (ImportError, InputError) as error:
            self.stage_failures = dict.fromkeys(self.pipelines(), one_sentence(error))
            return None
        return video

    def _thread_counts(self) -> list[int]:
        return sorted({row.threads for row in self.rows if row.threads is not None})

    def _try(self, job: Job) -> dict[str, Any]:
        try:
            return run_job(job, timeout=self._options.timeout)
        except FailureError as error:
            return {"failure": str(error)}
        finally:
            self._done += 1
            if self._progress is not None:
                self._progress(self._done, self._total)
