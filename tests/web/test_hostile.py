"""A server in a process of its own, every kind of attack at once, and a visitor who notices little of it."""

from __future__ import annotations

import json
import sys
import time

import pytest

from benchmarks.hostile import Honest, attackers, serving
from tests.hostile.web_attacks import KINDS
from tests.patience import PATIENCE, until

if not sys.platform.startswith("linux"):
    pytest.skip("memory is read from /proc, which only Linux has", allow_module_level=True)

SECONDS = 6.0
# beside what is allowed for four attackers of a kind: here are all kinds at once
MEMORY = 100.0


def test_every_attack_at_once() -> None:
    # places for all who send pictures, so that the visitor's own is not at stake
    with serving("--max-sessions", "24") as server, Honest(server, fps=15) as honest:
        until(lambda: len(honest.latency) >= 15)
        before = peak = server.memory()
        crowd = attackers(",".join(KINDS), server, SECONDS, count=1)
        answered = 0
        try:
            while crowd.poll() is None:
                peak = max(peak, server.memory())
                answered += json.loads(server.get("/healthz", timeout=PATIENCE)[1])["status"] == "ok"
                server.get("/", timeout=PATIENCE)
                time.sleep(0.1)
            assert crowd.wait(PATIENCE) == 0
        finally:
            crowd.kill()
            crowd.wait()
        count = len(honest.latency)
        until(lambda: len(honest.latency) >= count + 15)
        log = server.log.read_text(errors="replace")
    assert answered >= 2 and honest.ended == []
    assert peak <= before + MEMORY, (before, peak)
    # one line about the address, and now and then one about what came
    assert "Traceback" not in log and "Corrupt JPEG" not in log, log[-3000:]
    assert log.count("\n") < 40, log[-3000:]
