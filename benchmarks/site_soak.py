"""Lets the page of `avgn deploy web` run for minutes and looks whether it grows, slows down or falls behind.

python -m benchmarks.site_soak --minutes 10 --output benchmarks/results/site-soak.json [--bundle tiny]

A photograph is the camera and its recording the microphone, as a visitor has them. Every few seconds: the memory of the
page with its workers, how many results came, and how long after its picture each did. Sound that drifted away from the
pictures would be waited for, longer and longer. The run fails where the last third holds 20 MB more than the first
one after warming up, where it gives fewer than 0.7 of its results, or where results came half a second later.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from avgn.machine import measured_on
from avgn.runtime.web.site import write_site
from benchmarks.browser import MEMORY
from tests.web import beside, browser, node
from tests.web.dog import WINDOW, write_devices

WARM_UP_SECONDS = 20.0
MOST_MB, LEAST_RESULTS, MOST_SECONDS = 20.0, 0.7, 0.5
LOOK = """
async () => {
  const found = results.splice(0);
  const late = found.map(({ latency }) => latency).filter((one) => one !== null).sort((one, other) => one - other);
  return {
    results: found.length,
    dropped: found.reduce((sum, one) => sum + one.dropped, 0),
    latency_seconds: late.length ? late[late.length >> 1] : null,
    memory_mb: (await performance.measureUserAgentSpecificMemory()).bytes / 1e6,
  };
}
"""


def measure(bundle: str, minutes: float, seconds: float) -> list[dict[str, Any]]:
    """Return what was found every `seconds`, with the seconds since the stream began."""
    with tempfile.TemporaryDirectory() as folder:
        camera, microphone, _ = write_devices(Path(folder))
        site = write_site(bundle, Path(folder) / "site", runtime=node.dist())
        with (
            beside.hosted(site, isolated=True) as url,
            browser.chromium(camera, microphone, flags=[MEMORY], viewport=WINDOW) as page,
        ):
            page.goto(url)
            page.wait_for_selector("#start:enabled", timeout=120_000)
            page.click("#start")
            page.wait_for_timeout(1000 * WARM_UP_SECONDS)
            page.evaluate("results.length = 0")
            begin = last = time.monotonic()
            rows = []
            while last - begin < 60 * minutes:
                page.wait_for_timeout(1000 * seconds)
                found, now = page.evaluate(LOOK), time.monotonic()
                rate = found["results"] / (now - last)
                last = now
                row = {"seconds": round(now - begin, 1), "results_per_second": round(rate, 2), **found}
                print(json.dumps(row), flush=True)
                rows.append(row)
    return rows


def judge(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Compare the last third with the first one."""
    third = max(1, len(rows) // 3)

    def change(name: str) -> tuple[float, float]:
        first, last = ([row[name] or 0.0 for row in part] for part in (rows[:third], rows[-third:]))
        return float(np.median(first)), float(np.median(last))

    memory, rate, late = change("memory_mb"), change("results_per_second"), change("latency_seconds")
    return {
        "memory_growth_mb": round(memory[1] - memory[0], 2),
        "results_kept": round(rate[1] / max(rate[0], 1e-9), 3),
        "latency_growth_seconds": round(late[1] - late[0], 4),
        "held": memory[1] - memory[0] <= MOST_MB
        and rate[1] >= LEAST_RESULTS * rate[0] > 0
        and late[1] - late[0] <= MOST_SECONDS,
    }


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seconds", type=float, default=10.0, help="between two looks")
    parser.add_argument("--bundle", default="world")
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args(argv)
    if reason := node.missing() or browser.missing():
        raise SystemExit(f"can't be measured here: {reason}")
    rows = measure(args.bundle, args.minutes, args.seconds)
    verdict = judge(rows)
    print(json.dumps(verdict), flush=True)
    found = {"machine": measured_on(), "bundle": args.bundle, "minutes": args.minutes, **verdict, "rows": rows}
    args.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if not verdict["held"]:
        raise SystemExit("the page grew, slowed down or fell behind")


if __name__ == "__main__":
    main()
