"""Runs two live streams with random faults every few seconds: nothing may crash, grow or leave a thread behind.

python -m benchmarks.soak --minutes 30 --output benchmarks/results/soak.json

One stream comes over UDP from a process that is killed, restarted and drowned in garbage; the other is made here and is
unplugged, falls silent, jumps in time, changes its size and gives samples that are no numbers.
"""

from __future__ import annotations

import argparse
import json
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from avgn.machine import measured_on, resident_mb
from avgn.runtime import Localizer, Result
from avgn.runtime.live_pipeline import LivePipeline
from avgn.runtime.media import AudioBlock, VideoFrame
from avgn.runtime.multi import MultiStream
from avgn.runtime.sources import LiveEvent, StateChange
from avgn.runtime.sources.url import UrlSource
from avgn.scenes import SceneConfig, synthesize

SENDER = Path(__file__).resolve().parents[1] / "tests" / "runtime" / "sender.py"
WARM_UP_SECONDS = 60.0
MOST_GROWTH_MB = 20.0
LONGEST_PAUSE_SECONDS = 15.0
FAULT_SECONDS = (2.0, 6.0)
RATE = 48_000


class FaultySource:
    """Makes frames at 25 a second and noise, with a fault of a random kind every few seconds."""

    name = "faulty"

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.rng = np.random.default_rng(seed)
        self.faults: Counter[str] = Counter()
        self._closed = threading.Event()

    def close(self) -> None:
        self._closed.set()

    def events(self) -> Iterator[LiveEvent]:
        size, offset, fault, until = (480, 640), 0.0, "", 0.0
        begin = time.monotonic()
        yield StateChange(state="live")
        index = 0
        while not self._closed.wait(max(0.0, begin + index / 25 - time.monotonic())):
            now = index / 25
            index += 1
            if now >= until:
                fault = "" if fault else self.random.choice(("unplug", "silence", "size", "back", "forth", "nan"))
                until = now + self.random.uniform(*FAULT_SECONDS) / (2 if fault else 1)
                if fault:
                    self.faults[fault] += 1
                if fault == "size":
                    size = self.random.choice(((480, 640), (240, 320), (720, 1280), (1, 1), (33, 1000)))
                offset += {"back": -3.0, "forth": 30.0}.get(fault, 0.0)
                if fault == "unplug":
                    yield StateChange(state="lost", reason="unplugged")
                elif not fault:
                    yield StateChange(state="live")
            if fault == "unplug":
                continue
            sound = 0.2 * self.rng.standard_normal((RATE // 25, 2)).astype(np.float32)
            if fault == "silence":
                sound[:] = 0.0
            elif fault == "nan":
                sound[:: self.random.choice((1, 7))] = np.nan
            yield AudioBlock(samples=sound, rate=RATE, time=now + offset)
            rgb = self.rng.integers(0, 256, (*size, 3), dtype=np.uint8)
            yield VideoFrame(rgb=rgb, time=now + offset, captured=time.monotonic())
        yield StateChange(state="ended")


class Saboteur(threading.Thread):
    """Keeps a sender going, kills it, and throws garbage at its target."""

    def __init__(self, video: Path, port: int, seed: int) -> None:
        super().__init__(name="saboteur", daemon=True)
        self.video, self.port = video, port
        self.random = random.Random(seed)
        self.faults: Counter[str] = Counter()
        self.ended = threading.Event()
        self.sender = self._start()

    def run(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
            while not self.ended.wait(self.random.uniform(*FAULT_SECONDS)):
                kind = self.random.choice(("kill", "garbage", "garbage"))
                self.faults[kind] += 1
                if kind == "kill":
                    self.sender.kill()
                    self.sender.wait()
                    self.ended.wait(self.random.uniform(0.2, 4.0))
                    self.sender = self._start()
                else:
                    for _ in range(20):
                        # half of it begins as a packet of the stream does
                        body = self.random.randbytes(188 * 7)
                        out.sendto(b"G" + body[1:] if self.random.random() < 0.5 else body, ("127.0.0.1", self.port))
        self.sender.kill()
        self.sender.wait()

    def _start(self) -> subprocess.Popen[bytes]:
        target = f"udp://127.0.0.1:{self.port}?pkt_size=1316"
        return subprocess.Popen(
            [sys.executable, str(SENDER), str(self.video), target, "mpegts"], stderr=subprocess.DEVNULL
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        config = SceneConfig(split="test", sources=(1, 2), size=(320, 240))
        synthesize(Path(folder), scenes=1, config=config, seed=1, video_seconds=6.0, jobs=1)
        record = soak(next(Path(folder).rglob("*.mp4")), 60 * args.minutes, args.seed)
    print(json.dumps(record, indent=1))
    if args.output:
        args.output.write_text(json.dumps(record, indent=1) + "\n")
    if record["failures"]:
        raise SystemExit("; ".join(record["failures"]))


class Watch:
    """Looks at running streams once a second: what memory they take, and how long each gave no result."""

    def __init__(self, pipelines: Sequence[LivePipeline]) -> None:
        self.pipelines = pipelines
        # (seconds, megabytes)
        self.memory: list[tuple[float, float]] = []
        self.longest_pauses = [0.0] * len(pipelines)

    def run(self, seconds: float) -> None:
        begin = time.monotonic()
        counts, last = [0] * len(self.pipelines), [begin] * len(self.pipelines)
        while time.monotonic() < begin + seconds:
            time.sleep(1.0)
            now = time.monotonic()
            self.memory.append((now - begin, resident_mb()))
            for at, pipeline in enumerate(self.pipelines):
                if pipeline.stats.results != counts[at]:
                    counts[at], last[at] = pipeline.stats.results, now
                self.longest_pauses[at] = max(self.longest_pauses[at], now - last[at])

    def memory_after_warm_up(self, seconds: float) -> dict[str, float]:
        """Return megabytes at the end of warming up and of the run, and by how much they grew."""
        warm = [value for at, value in self.memory if at >= min(WARM_UP_SECONDS, seconds / 3)]
        # the least of the first and of the last tenth: pictures of several sizes come and go
        tenth = max(1, len(warm) // 10)
        growth = min(warm[-tenth:]) - min(warm[:tenth])
        return {"first": round(warm[0], 1), "last": round(warm[-1], 1), "growth": round(growth, 1)}


def soak(video: Path, seconds: float, seed: int) -> dict[str, Any]:
    localizer = Localizer.load("tiny", threads=1)
    threads = threading.active_count()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as found:
        found.bind(("127.0.0.1", 0))
        port = int(found.getsockname()[1])
    saboteur, faulty = Saboteur(video, port, seed), FaultySource(seed)
    bad: list[str] = []

    def check(result: Result, rgb: Any) -> None:
        if not np.isfinite(result.maps).all() or not np.isfinite(result.audio_prob).all():
            bad.append(f"a result at {result.time} is not finite")

    with MultiStream(localizer.engine) as multi:
        pipelines = [LivePipeline(source, multi, [check]) for source in (UrlSource(f"udp://127.0.0.1:{port}"), faulty)]
        for pipeline in pipelines:
            pipeline.start()
        saboteur.start()
        watch = Watch(pipelines)
        watch.run(seconds)
        error = multi.error
        stopping = time.monotonic()
        for pipeline in pipelines:
            pipeline.stop()
        stopped = time.monotonic() - stopping
    saboteur.ended.set()
    saboteur.join(10)
    memory = watch.memory_after_warm_up(seconds)
    return {
        "machine": measured_on(),
        "minutes": round(seconds / 60, 1),
        "faults": {"udp": dict(saboteur.faults), "made": dict(faulty.faults)},
        "results": [pipeline.stats.results for pipeline in pipelines],
        "losses": [pipeline.stats.losses for pipeline in pipelines],
        "dropped": [pipeline.stats.dropped for pipeline in pipelines],
        "longest_pause_seconds": [round(value, 1) for value in watch.longest_pauses],
        "memory_after_warm_up_mb": memory,
        "stop_seconds": round(stopped, 3),
        "failures": bad[:3] + find_failures(error, memory["growth"], max(watch.longest_pauses), threads),
    }


def find_failures(error: BaseException | None, growth: float, longest_pause: float, threads: int) -> list[str]:
    """Say what must not happen in a soak but did; `threads` is how many there were before it."""
    deadline = time.monotonic() + 5
    while threading.active_count() > threads and time.monotonic() < deadline:
        time.sleep(0.1)
    failures = []
    if error is not None:
        failures.append(f"the engine's threads ended: {error}")
    if growth >= MOST_GROWTH_MB:
        failures.append(f"memory grew by {growth:.1f} MB")
    if threading.active_count() > threads:
        failures.append(f"threads are left: {[thread.name for thread in threading.enumerate()]}")
    if longest_pause > LONGEST_PAUSE_SECONDS:
        failures.append(f"a stream was silent for {longest_pause:.0f} s")
    return failures


if __name__ == "__main__":
    main()
