"""Measures what an honest visitor of `avgn serve` gets, and the server's memory, under four attackers of each kind.

python -m benchmarks.hostile --output benchmarks/results/hostile.json [--seconds 60] [--kinds pings,scans]

A server in a process of its own, with a token that those attackers know who need it to do their worst; the honest
visitor sends 30 pictures of 320x240 a second and sound at 48 kHz. A kind's numbers: results in percent of the pictures
sent, the time from sending to result for 95 %, the server's memory (VmRSS) before, at its peak and after the rest
(with the seconds until it was back within NEAR_MB of it), and how many processors it kept busy, which a busy machine
changes least.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import secrets
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from avgn.machine import measured_on, resident_mb
from tests.hostile.web_attacks import KINDS, PICTURE, SOUND, jpeg, message

ATTACKERS = 4
FPS = 30
SOUND_RATE = 48_000
WARM_UP_SECONDS = 3.0
# MB above the memory before an attack that count as being back
NEAR_MB = 10.0


@dataclass
class Server:
    """Holds a running `avgn serve`; `log` is what it wrote on both outputs."""

    process: subprocess.Popen[bytes]
    port: int
    token: str
    log: Path

    def memory(self) -> float:
        """Return the resident memory (VmRSS) in MB."""
        return resident_mb(self.process.pid)

    def cpu(self) -> float:
        """Return seconds of processor time so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def get(self, path: str, timeout: float = 5.0) -> tuple[float, bytes]:
        """Send a request without a token; return (seconds, content)."""
        begin = time.monotonic()
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=timeout) as answer:
            content = answer.read()
        return time.monotonic() - begin, content


@contextlib.contextmanager
def serving(*options: str, bundle: str = "tiny") -> Iterator[Server]:
    """Run a server in a process of its own, on a free port."""
    token = secrets.token_urlsafe(24)
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        command = [sys.executable, "-m", "avgn", "serve", bundle, "--port", "0", *options]
        with log.open("wb") as stream:
            process = subprocess.Popen(command, stdout=stream, stderr=stream, env=os.environ | {"AVGN_TOKEN": token})
        try:
            yield Server(process, _port(process, log), token, log)
        finally:
            process.terminate()
            process.wait(20)


def _port(process: subprocess.Popen[bytes], log: Path) -> int:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        for line in log.read_text(errors="replace").splitlines():
            if line.startswith("http://127.0.0.1:"):
                port = int(line.rstrip("/").rsplit(":", 1)[1])
                with contextlib.suppress(OSError), urllib.request.urlopen(f"{line}healthz", timeout=5):
                    return port
        time.sleep(0.05)
    raise RuntimeError(f"the server did not start: {log.read_text(errors='replace')[-500:]}")


@dataclass
class Honest:
    """Plays a well-behaved visitor, in a thread of its own."""

    server: Server
    fps: int = FPS
    sent: dict[float, float] = field(default_factory=dict)
    latency: dict[float, float] = field(default_factory=dict)
    # (moment, code) of every connection that the server ended
    ended: list[tuple[float, int | None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._visit, daemon=True)

    def __enter__(self) -> Honest:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._leaving.set()
        self._thread.join(10)

    def between(self, begin: float, end: float) -> tuple[int, list[float]]:
        """Return (pictures sent, latencies of those that got a result) between two moments."""
        sent = [at for at, moment in self.sent.items() if begin <= moment < end]
        return len(sent), [self.latency[at] for at in sent if at in self.latency]

    def _visit(self) -> None:
        while not self._leaving.is_set():
            try:
                with connect(f"ws://127.0.0.1:{self.server.port}/stream", open_timeout=10) as socket:
                    socket.send(json.dumps({"type": "hello", "version": 1, "token": self.server.token}))
                    socket.recv(timeout=10)
                    reader = threading.Thread(target=self._read, args=(socket,), daemon=True)
                    reader.start()
                    self._send(socket)
            except ConnectionClosed as error:
                self.ended.append((time.monotonic(), None if error.rcvd is None else error.rcvd.code))
            except (OSError, TimeoutError):
                self.ended.append((time.monotonic(), None))
            self._leaving.wait(0.2)

    def _send(self, socket: Any) -> None:
        picture = jpeg(320, 240)
        noise = np.random.default_rng(0).integers(-3000, 3000, SOUND_RATE // self.fps, np.int16).tobytes()
        begin, index = time.monotonic(), 0
        while not self._leaving.is_set():
            at = begin + index / self.fps
            time.sleep(max(0.0, at - time.monotonic()))
            socket.send(message(SOUND, at - 1 / self.fps, noise, SOUND_RATE))
            self.sent[at] = time.monotonic()
            socket.send(message(PICTURE, at, picture))
            index += 1

    def _read(self, socket: Any) -> None:
        with contextlib.suppress(ConnectionClosed):
            for text in socket:
                at = json.loads(text)["time"]
                self.latency[at] = time.monotonic() - self.sent[at]


def attackers(kind: str, server: Server, seconds: float, count: int = ATTACKERS) -> subprocess.Popen[bytes]:
    """Start attackers of a kind in a process of their own."""
    command = [
        sys.executable,
        "-m",
        "tests.hostile.web_attacks",
        kind,
        str(server.port),
        server.token,
        str(seconds),
        str(count),
    ]
    return subprocess.Popen(command, cwd=Path(__file__).parents[1])


def measure(kind: str | None, seconds: float, rest: float, options: Sequence[str] = ()) -> dict[str, Any]:
    """Measure one kind of attack (None: nobody attacks) on a server of its own."""
    with serving(*options) as server, Honest(server) as honest:
        time.sleep(WARM_UP_SECONDS)
        before = peak = server.memory()
        begin, cpu = time.monotonic(), server.cpu()
        slowest = 0.0
        crowd = None if kind is None else attackers(kind, server, seconds)
        try:
            while time.monotonic() < begin + seconds:
                time.sleep(0.25)
                peak = max(peak, server.memory())
                with contextlib.suppress(OSError):
                    slowest = max(slowest, server.get("/healthz")[0])
                    continue
                slowest = float("inf")
        finally:
            if crowd is not None:
                crowd.kill()
                crowd.wait()
        end, cpu = time.monotonic(), server.cpu() - cpu
        back = _seconds_until_back(server, before + NEAR_MB, rest)
        after = server.memory()
        log = server.log.read_text(errors="replace")
    sent, latencies = honest.between(begin, end - 0.5)
    return {
        "kind": kind or "nobody",
        "sent": sent,
        "results_percent": round(100 * len(latencies) / max(1, sent), 1),
        "p95_ms": round(1e3 * float(np.quantile(latencies, 0.95)), 1) if latencies else None,
        "processors": round(cpu / (end - begin), 2),
        "healthz_ms": round(1e3 * slowest, 1) if np.isfinite(slowest) else None,
        "ended": [code for _, code in honest.ended],
        "memory_mb": {"before": round(before, 1), "peak": round(peak, 1), "after": round(after, 1)},
        "memory_back_seconds": back,
        "tracebacks": log.count("Traceback"),
        "log_lines": log.count("\n"),
    }


def _seconds_until_back(server: Server, limit: float, rest: float) -> float | None:
    """Wait until the server's memory is below `limit` MB; return the seconds, None if it isn't after `rest` seconds."""
    begin = time.monotonic()
    while (passed := time.monotonic() - begin) < rest:
        if server.memory() <= limit:
            return round(passed, 1)
        time.sleep(0.25)
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each attack")
    parser.add_argument("--rest", type=float, default=60.0, help="most seconds after it that memory has to come back")
    parser.add_argument("--kinds", default=",".join(("nobody", *KINDS)))
    args = parser.parse_args()
    rows = []
    for kind in args.kinds.split(","):
        rows.append(measure(None if kind == "nobody" else kind, args.seconds, args.rest))
        print(json.dumps(rows[-1]), flush=True)
    record = {
        "machine": measured_on(),
        "attackers": ATTACKERS,
        "seconds": args.seconds,
        "rest": args.rest,
        "kinds": rows,
    }
    args.output.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
