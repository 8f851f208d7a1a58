"""Measures the page of `avgn deploy web` in this machine's chromium: speed, start, memory, size.

python -m benchmarks.browser --output benchmarks/results/browser.json [--seconds 10]

Of each bundle with one thread and with two: the first three seconds of the demo's scene go to the page's worker as
pixels and samples, all 25 frames of each second, as fast as the worker takes them. `first_result_seconds` counts from
the moment that the worker is told to load the files, which lie on this machine; memory is that of the page with its
workers, and holds what is sent to it. `live` is the page as a visitor has it, with the scene's first picture and a
dog's barks as camera and microphone, in real time; `longest_task_ms` is the longest time above 50 ms that its main
thread was busy, 0 where there was none.
"""

from __future__ import annotations

import argparse
import gzip
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from avgn.demo import collage
from avgn.machine import measured_on
from avgn.runtime.web.site import write_site
from avgn.scenes.synth import RATE
from tests.web import beside, browser, node

BUNDLES = ("tiny", "world")
THREADS = (1, 2)
# seconds of the scene at its 25 frames a second, which share windows of sound as live ones do
FRAMES = 75
MEMORY = "--enable-blink-features=ForceEagerMeasureMemory"
OBSERVE = (
    "window.longest = 0; new PerformanceObserver((list) => { for (const one of list.getEntries()) "
    "longest = Math.max(longest, one.duration); }).observe({ type: 'longtask' })"
)


def measure_worker(site: Path, threads: int) -> dict[str, Any]:
    """Return how fast the worker of a site goes through the scene, that lies beside it."""
    frames, times, sound = beside.scene(1, FRAMES)
    beside.write_scene(site, frames, sound)
    with beside.hosted(site, isolated=True) as url, browser.chromium(flags=[MEMORY]) as page:
        page.goto(url + beside.EMPTY)
        results, facts = beside.in_browser(page, frames, times, threads=threads, raw=False, memory=True)
    for name in (beside.SCENE, beside.EMPTY):
        (site / name).unlink()
    halves = {name: [one["ms"][name] for one in results[1:]] for name in ("resize", "image", "decide")}
    sent_mb = sum(frame.nbytes for frame in frames) / 1e6
    return {
        "frames_per_second": round((len(frames) - 1) / (facts["all_seconds"] - facts["first_seconds"]), 2),
        "ready_seconds": round(facts["ready_seconds"], 2),
        "first_result_seconds": round(facts["first_seconds"], 2),
        "memory_mb": round(facts["memory_bytes"] / 1e6, 1),
        "sent_frames_mb": round(sent_mb, 1),
        **{f"{name}_ms": {"p50": round(float(np.median(values)), 2)} for name, values in halves.items()},
    }


def measure_live(site: Path, seconds: float, folder: Path) -> dict[str, Any]:
    camera = browser.write_camera(folder / "photographs.y4m", next(collage.draw_frames()))
    microphone = browser.write_microphone(folder / "dog.wav", collage.read_recording("dog.flac"), RATE)
    with beside.hosted(site, isolated=False) as url, browser.chromium(camera, microphone) as page:
        page.goto(url)
        page.wait_for_selector("#start:enabled", timeout=120_000)
        page.click("#start")
        page.wait_for_timeout(3000)
        page.evaluate(OBSERVE)
        page.evaluate("results.length = 0")
        page.wait_for_timeout(1000 * seconds)
        found = page.evaluate("results.map(({ latency, dropped }) => ({ latency, dropped }))")
        longest = page.evaluate("longest")
    latencies = [1000 * one["latency"] for one in found if one["latency"] is not None]
    return {
        "results_per_second": round(len(found) / seconds, 2),
        "latency_ms": {
            "p50": round(float(np.median(latencies)), 1),
            "p95": round(float(np.quantile(latencies, 0.95)), 1),
        },
        "longest_task_ms": round(longest, 1),
    }


def sizes(site: Path) -> dict[str, Any]:
    """Return kilobytes that a first visit loads: of code as hosts compress it, of the runtime and of the bundle."""
    # what runs on a GPU is loaded where there is one
    files = [path for path in site.rglob("*") if path.is_file() and not path.name.startswith("ort-webgpu")]
    inside = {path: path.relative_to(site).as_posix() for path in files}
    code = [path for path, name in inside.items() if not name.startswith("bundle/") and path.suffix != ".wasm"]
    wasm = next(path for path in files if path.suffix == ".wasm")
    return {
        "code_gzip_kb": round(sum(len(gzip.compress(path.read_bytes())) for path in code) / 1e3, 1),
        "wasm_kb": round(wasm.stat().st_size / 1e3, 1),
        "wasm_gzip_kb": round(len(gzip.compress(wasm.read_bytes())) / 1e3, 1),
        "bundle_kb": round(sum(path.stat().st_size for path, name in inside.items() if "bundle/" in name) / 1e3, 1),
    }


def measure(seconds: float) -> dict[str, Any]:
    if reason := node.missing() or browser.missing():
        raise SystemExit(f"can't be measured here: {reason}")
    found: dict[str, Any] = {"machine": measured_on(), "bundles": {}}
    with tempfile.TemporaryDirectory() as folder:
        for name in BUNDLES:
            site = write_site(name, Path(folder) / name, runtime=node.dist())
            rows = {str(threads): measure_worker(site, threads) for threads in THREADS}
            live = measure_live(site, seconds, Path(folder))
            found["bundles"][name] = {"threads": rows, "live": live, "size": sizes(site)}
            print(name, json.dumps(found["bundles"][name]), flush=True)
    return found


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=10.0, help="of the live part")
    args = parser.parse_args(argv)
    found = measure(args.seconds)
    args.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
