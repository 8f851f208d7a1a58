"""The sound that a frame is paired with: a clip whose pictures and sound tell the time, through files and networks."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from avgn.runtime import Localizer, open_media
from avgn.runtime.live_pipeline import LivePipeline
from avgn.runtime.localizer import run_media
from avgn.runtime.sources.url import UrlSource
from avgn.runtime.stream import Mode, StreamLocalizer
from tests.patience import tried_again, until
from tests.runtime.pairing import FPS, RecordingEngine, write_flash_and_beep

SENDER = Path(__file__).with_name("sender.py")
FRAME = 1 / FPS


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_flash_and_beep(tmp_path_factory.mktemp("clip") / "flash.mp4")


@pytest.fixture()
def engine() -> RecordingEngine:
    return RecordingEngine(Localizer.load("tiny", threads=1).engine.info)


@pytest.mark.parametrize("mode", ["live", "file"])
def test_a_file(clip: Path, engine: RecordingEngine, mode: Mode) -> None:
    results = list(run_media(StreamLocalizer(engine, mode=mode, batch=4), open_media(clip)))
    lags, hop = engine.lags(), engine.info.hop_samples / engine.info.sample_rate
    assert len(results) == 8 * FPS and len(lags) > 6 * FPS
    # live: the last window that ends at or before the frame; file: the one whose centre is nearest
    low, high = (0.0, hop) if mode == "live" else (-hop / 2, hop / 2)
    lags = lags if mode == "live" else (lags + engine.info.window_seconds / 2 + 0.4) % 0.8 - 0.4
    assert low - 0.015 <= lags.min() and lags.max() <= high + 0.015, (lags.min(), lags.max())


@tried_again
def test_a_network_stream(clip: Path, engine: RecordingEngine) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as found:
        found.bind(("127.0.0.1", 0))
        port = int(found.getsockname()[1])
    target = f"udp://127.0.0.1:{port}?pkt_size=1316"
    engine.pairs.clear()
    with LivePipeline(UrlSource(f"udp://127.0.0.1:{port}"), engine):
        sender = subprocess.Popen([sys.executable, str(SENDER), str(clip), target, "mpegts"], stderr=subprocess.DEVNULL)
        try:
            until(lambda: len(engine.pairs) >= 5 * FPS, going_on=lambda: sender.poll() is None)
        finally:
            sender.kill()
            sender.wait()
    # the first second: windows are still filling
    engine.pairs = engine.pairs[FPS:]
    lags, hop = engine.lags(), engine.info.hop_samples / engine.info.sample_rate
    assert len(lags) > 2 * FPS
    # a busy machine lets a frame or two go without the newest sound
    low, high = np.quantile(lags, (0.05, 0.95))
    assert low >= -FRAME and high <= hop + FRAME, np.quantile(lags, (0, 0.1, 0.5, 0.9, 1))
