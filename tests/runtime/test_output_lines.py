"""Outputs that are no files, FIFOs, devices, terminals and standard output, are written to as they are."""

from __future__ import annotations

import os
import pty
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from avgn.runtime.errors import InputError
from avgn.runtime.outputs import (
    TextOutput,
    find_place,
    write_whole,
)
from tests.patience import PATIENCE, bounded
from tests.runtime.outputs import ENVIRONMENT, put, python

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make devices")


def test_a_fifo_gets_every_line_at_once_and_stays_one(tmp_path: Path) -> None:
    fifo = tmp_path / "lines"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    file = TextOutput(fifo)
    for line in (b"one\n", b"two\n"):
        file.write(line.decode())
        assert os.read(reader, 100) == line
    file.close()
    os.close(reader)
    assert stat.S_ISFIFO(fifo.stat().st_mode) and list(tmp_path.iterdir()) == [fifo]


def test_long_lines_go_through_a_fifo(tmp_path: Path) -> None:
    fifo = tmp_path / "lines"
    os.mkfifo(fifo)
    text = "x" * 300_000 + "\n"
    found: list[str] = []
    reader = threading.Thread(target=lambda: found.append(fifo.read_text()))
    reader.start()
    assert write_whole(fifo, text) == fifo
    reader.join(PATIENCE)
    assert found == [text]


def test_a_reader_that_leaves(tmp_path: Path) -> None:
    fifo = tmp_path / "lines"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    file = TextOutput(fifo)
    os.close(reader)
    with pytest.raises(BrokenPipeError) as caught:
        file.write("one\n")
    assert caught.value.filename == str(fifo) and stat.S_ISFIFO(fifo.stat().st_mode)


def test_a_reader_that_does_not_read_is_not_waited_for_in_the_end(tmp_path: Path) -> None:
    fifo = tmp_path / "lines"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    file = TextOutput(fifo)
    file.hurry()
    begin = time.monotonic()
    with pytest.raises(BrokenPipeError):
        file.write("x" * 1_000_000)
    assert time.monotonic() - begin < 10
    os.close(reader)


def test_ctrl_c_ends_the_wait_for_a_reader(tmp_path: Path) -> None:
    fifo = tmp_path / "lines"
    os.mkfifo(fifo)
    process = python(
        "import sys; from avgn.runtime.outputs import TextOutput; print(1, flush=True)\nTextOutput(sys.argv[1])", fifo
    )
    assert process.stdout is not None and process.stdout.readline() == "1\n"
    assert process.stderr is not None
    with bounded(process):
        assert "waits for somebody who reads it" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    errors = process.communicate(timeout=PATIENCE)[1]
    assert process.returncode != 0 and "KeyboardInterrupt" in errors
    assert list(tmp_path.iterdir()) == [fifo]


def test_devices_stay(tmp_path: Path) -> None:
    for name in ("/dev/null", "/dev/zero"):
        before = os.stat(name)
        put(Path(name), "text\n")
        write_whole(name, "text\n")
        after = os.stat(name)
        assert (after.st_ino, after.st_rdev, after.st_mode) == (before.st_ino, before.st_rdev, before.st_mode)
    with pytest.raises(InputError, match="no space left on the disk"):
        put(Path("/dev/full"), "text\n")
    with pytest.raises(InputError, match="no space left on the disk"):
        write_whole("/dev/full", "text\n")


@needs_root
def test_a_copy_of_the_null_device_stays(tmp_path: Path) -> None:
    null = tmp_path / "null"
    try:
        os.mknod(null, stat.S_IFCHR | 0o666, os.makedev(1, 3))
        put(null, "text\n")
    except (PermissionError, InputError) as error:
        pytest.skip(f"no devices can be made or opened here ({error})")
    write_whole(null, "text")
    assert stat.S_ISCHR(null.stat().st_mode) and null.stat().st_rdev == os.makedev(1, 3)
    disk = tmp_path / "disk"
    os.mknod(disk, stat.S_IFBLK | 0o666, os.makedev(7, 250))
    with pytest.raises(InputError, match="is a disk"):
        find_place(disk)


def test_a_terminal_gets_lines() -> None:
    master, slave = pty.openpty()
    put(Path(os.ttyname(slave)), "one\n")
    assert os.read(master, 100) == b"one\r\n"
    os.close(master)
    os.close(slave)


def test_a_socket_is_refused(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
        with pytest.raises(InputError, match="is a socket"):
            find_place(tmp_path / "s")


def test_descriptors_of_this_process(tmp_path: Path) -> None:
    read, write = os.pipe()
    put(Path(f"/dev/fd/{write}"), "one\n")
    assert os.read(read, 100) == b"one\n"
    with pytest.raises(InputError, match="not open for writing"):
        put(Path(f"/dev/fd/{read}"), "one\n")
    os.close(read)
    os.close(write)
    with pytest.raises(InputError, match="not open for writing"):
        put(Path(f"/dev/fd/{write}"), "one\n")
    target = tmp_path / "t.txt"
    with target.open("w") as file:
        file.write("before\n")
        file.flush()
        (tmp_path / "link").symlink_to(f"/proc/self/fd/{file.fileno()}")
        put(tmp_path / "link", "one\n")
        file.write("after\n")
    assert target.read_text() == "before\none\nafter\n" and (tmp_path / "link").is_symlink()


@pytest.mark.parametrize("name", ["-", "/dev/stdout", "/proc/self/fd/1", "/dev/fd/1"])
def test_standard_output(name: str, tmp_path: Path) -> None:
    code = """
import sys
from avgn.runtime.outputs import TextOutput, takes_stdout, write_whole
print("first")
file = TextOutput(sys.argv[1])
file.write("second\\n")
file.close()
write_whole(sys.argv[1], "third\\n")
print("fourth", takes_stdout(sys.argv[1]))
"""
    process = python(code, name)
    assert process.communicate(timeout=PATIENCE)[0] == "first\nsecond\nthird\nfourth True\n"
    with (tmp_path / "out").open("w") as file:
        inode = os.fstat(file.fileno()).st_ino
        process = python(code, name, stdout=file)
        process.communicate(timeout=PATIENCE)
    assert (tmp_path / "out").read_text() == "first\nsecond\nthird\nfourth True\n"
    assert (tmp_path / "out").stat().st_ino == inode and process.returncode == 0


def test_a_closed_standard_output_is_said(tmp_path: Path) -> None:
    code = f"{sys.executable} -c \"from avgn.runtime.outputs import write_whole; write_whole('-', 'x')\" >&-"
    done = subprocess.run(code, shell=True, env=ENVIRONMENT, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 1 and "InputError: file - can't be written (it is not open for writing)" in done.stderr
