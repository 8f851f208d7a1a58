"""Compares the page of `avgn deploy web` with the Python runtime, frame by frame of the demo's scene.

python -m benchmarks.parity --output benchmarks/results/parity.json [--step 16] [NAME=BUNDLE ...]

Without bundles those that are shipped. Every frame has a row: what each side says, and the largest difference of a
map's value (as a share of it where it is above 1: log-odds of silence reach -5000, which float32 holds in steps of
0.0005), of a probability and of a number of the result's sources. `world` is shipped in 8 bits, in which engines
round in ways of their own; the same model in float32 shows what the page itself adds.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from avgn.machine import measured_on
from avgn.runtime.web.site import write_site
from tests.web import beside, browser, node

SHIPPED = ("tiny=tiny", "world=world")


def measure(bundle: str, step: int) -> list[dict[str, Any]]:
    """Return a row for each frame that is compared."""
    with tempfile.TemporaryDirectory() as folder:
        site = write_site(bundle, Path(folder) / "site", runtime=node.dist())
        return [row(pair) for pair in beside.pairs_of(bundle, site, step)]


def row(pair: beside.Pair) -> dict[str, Any]:
    def said(line: dict[str, Any]) -> dict[str, Any]:
        return {
            "state": line["state"],
            "on_screen": [label for label, seen in beside.said(line) if seen],
            "off_screen": [label for label, seen in beside.said(line) if not seen],
        }

    return {
        "time": round(pair.python.time, 3),
        "python": said(pair.line),
        "browser": said(pair.browser),
        "same": pair.same,
        "maps_apart": float(f"{pair.maps_apart:.3g}"),
        "probabilities_apart": float(f"{pair.probabilities_apart:.3g}"),
        "numbers_apart": float(f"{pair.numbers_apart:.3g}") if pair.same else None,
    }


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--step", type=int, default=beside.STEP, help="of the scene's frames one in so many")
    parser.add_argument("bundles", nargs="*", metavar="NAME=BUNDLE", default=SHIPPED)
    args = parser.parse_args(argv)
    if reason := node.missing() or browser.missing():
        raise SystemExit(f"can't be measured here: {reason}")
    found: dict[str, Any] = {"machine": measured_on(), "bundles": {}}
    for each in args.bundles:
        name, _, bundle = each.partition("=")
        frames = measure(bundle or name, args.step)
        found["bundles"][name] = frames
        same, apart = sum(one["same"] for one in frames), max(one["maps_apart"] for one in frames)
        print(f"{name}: {same} of {len(frames)} frames the same, maps within {apart:.1e}", flush=True)
    args.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
