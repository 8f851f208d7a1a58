"""Forks for commands: a process that has imported the libraries once becomes each command in a fork of its own.

What `python -m avgn` costs is mostly the import of torch and its kin. A fork has its own exit status, standard streams,
working directory and end, but not its own hash seed: who compares two processes starts them afresh.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import json
import os
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIBRARIES = (
    *("av", "cv2", "jsonargparse", "lightning.pytorch", "onnx", "onnxruntime", "openvino", "scipy.signal"),
    *("sklearn.metrics", "torch", "torchvision", "yaml", "avgn.cli.live", "avgn.cli.training", "avgn.convert"),
    *("avgn.evaluation", "avgn.export.bundle", "avgn.reproduce", "avgn.runtime.file_run", "avgn.training.fit"),
)
LARGEST = 1 << 17


class Forks:
    """The process that forks, from the tests' side; started for the first command, it ends with the tests."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._lock = threading.Lock()
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-m", "tests.forks", str(theirs.fileno())]
            self._process = subprocess.Popen(
                command, cwd=ROOT, env=dict(environment), pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL
            )
        atexit.register(self.close)

    def close(self) -> None:
        self._ours.close()
        self._process.wait(30)

    def run(
        self, arguments: Sequence[str], cwd: str | os.PathLike[str], timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, as subprocess.run does. Raises subprocess.TimeoutExpired."""
        with self._lock:
            readers = [Reader(), Reader()]
            request = json.dumps({"arguments": list(arguments), "cwd": os.fspath(cwd)})
            socket.send_fds(self._ours, [request.encode()], [reader.write_end for reader in readers])
            for reader in readers:
                reader.start()
            process = int(self._ours.recv(LARGEST))
            self._ours.settimeout(timeout)
            try:
                status = int(self._ours.recv(LARGEST))
            except TimeoutError:
                os.kill(process, 9)
                self._ours.settimeout(None)
                self._ours.recv(LARGEST)
                raise subprocess.TimeoutExpired(list(arguments), timeout) from None
            finally:
                self._ours.settimeout(None)
            output, errors = (reader.text() for reader in readers)
        return subprocess.CompletedProcess(list(arguments), status, output, errors)


class Reader(threading.Thread):
    """Reads a pipe to its end."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._read_end, self.write_end = os.pipe()
        self._found = ""

    def start(self) -> None:
        os.close(self.write_end)
        super().start()

    def run(self) -> None:
        with os.fdopen(self._read_end, encoding="utf-8") as pipe:
            self._found = pipe.read()

    def text(self) -> str:
        self.join()
        return self._found


def serve(requests: socket.socket) -> list[str] | None:
    """Fork for each request; returns the command in a fork, None where there are no more requests."""
    while True:
        data, streams, _, _ = socket.recv_fds(requests, LARGEST, 2)
        if not data:
            return None
        request = json.loads(data)
        process = os.fork()
        if not process:
            requests.close()
            for at, stream in enumerate(streams, 1):
                os.dup2(stream, at)
                os.close(stream)
            os.chdir(request["cwd"])
            arguments: list[str] = request["arguments"]
            return arguments
        for stream in streams:
            os.close(stream)
        requests.send(str(process).encode())
        _, status = os.waitpid(process, 0)
        requests.send(str(os.waitstatus_to_exitcode(status)).encode())


def become(arguments: list[str]) -> None:
    """Be the command, to its end: without the libraries' own, which wait for threads that no fork has."""
    from avgn.cli import main as command

    # those of the process that forks know whether its own streams can seek
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)
    sys.argv = [str(ROOT / "avgn" / "__main__.py"), *arguments]
    status = 1
    try:
        status = command(arguments)
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def main() -> None:
    with socket.socket(fileno=int(sys.argv[1])) as requests:
        for name in LIBRARIES:
            # the matrix's environments have what the runtime needs alone
            with contextlib.suppress(ModuleNotFoundError):
                importlib.import_module(name)
        arguments = serve(requests)
    if arguments is not None:
        become(arguments)
    # the libraries' threads may keep an interpreter from its end
    os._exit(0)


if __name__ == "__main__":
    main()
