"""A PulseAudio server of the tests' own with a null sink: what is played to it is heard by its monitor."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SINK = "avgn_test"


def missing() -> str | None:
    """Why the server can't run here, or None."""
    for program, package in (("pulseaudio", "pulseaudio"), ("pactl", "pulseaudio-utils")):
        if shutil.which(program) is None:
            return f"{program} is not installed (Debian: {package})"
    return None


@contextmanager
def server(folder: Path) -> Iterator[dict[str, str]]:
    """Run the server; yields the environment in which programs find it."""
    socket = folder / "pulse.sock"
    home = folder / "home"
    home.mkdir(exist_ok=True)
    (home / ".asoundrc").write_text("pcm.!default { type pulse }\nctl.!default { type pulse }\n")
    environment = os.environ | {
        "HOME": str(home),
        "XDG_RUNTIME_DIR": str(home),
        "PULSE_SERVER": f"unix:{socket}",
        "PULSE_SINK": SINK,
        "PULSE_SOURCE": f"{SINK}.monitor",
    }
    command = ["pulseaudio", "-n", "--daemonize=no", "--exit-idle-time=-1", "--disallow-exit", "--use-pid-file=no"]
    command += ["-L", f"module-native-protocol-unix socket={socket} auth-anonymous=1"]
    command += ["-L", f"module-null-sink sink_name={SINK} rate=48000 channels=2"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(300):
            done = subprocess.run(["pactl", "info"], env=environment, capture_output=True, timeout=60)
            if done.returncode == 0:
                break
            time.sleep(0.1)
        else:
            raise RuntimeError("pulseaudio did not start")
        yield environment
    finally:
        process.terminate()
        process.wait(60)
