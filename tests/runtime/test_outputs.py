"""Where outputs go: what is there is never destroyed, and what is written appears whole or not at all."""

from __future__ import annotations

import errno
import os
import pty
import re
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
    check_distinct,
    check_output,
    find_place,
    held_folder,
    new_folder,
    open_output,
    takes_stdout,
    write_error,
    write_whole,
)
from avgn.runtime.outputs import whole as whole_module

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make devices")


def python(code: str, *arguments: object, **how: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    how.setdefault("stdout", subprocess.PIPE)
    return subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True, **how)  # type: ignore[call-overload,no-any-return]


def put(path: Path, *lines: str) -> None:
    file = TextOutput(path)
    for line in lines:
        file.write(line)
    file.close()


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
    reader.join(20)
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
    time.sleep(1.5)
    process.send_signal(signal.SIGINT)
    errors = process.communicate(timeout=20)[1]
    assert process.returncode != 0 and "KeyboardInterrupt" in errors and "waits for somebody who reads it" in errors
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
    assert process.communicate(timeout=20)[0] == "first\nsecond\nthird\nfourth True\n"
    with (tmp_path / "out").open("w") as file:
        inode = os.fstat(file.fileno()).st_ino
        process = python(code, name, stdout=file)
        process.communicate(timeout=20)
    assert (tmp_path / "out").read_text() == "first\nsecond\nthird\nfourth True\n"
    assert (tmp_path / "out").stat().st_ino == inode and process.returncode == 0


def test_a_closed_standard_output_is_said(tmp_path: Path) -> None:
    code = f"{sys.executable} -c \"from avgn.runtime.outputs import write_whole; write_whole('-', 'x')\" >&-"
    done = subprocess.run(code, shell=True, env=ENVIRONMENT, capture_output=True, text=True, timeout=20)
    assert done.returncode == 1 and "InputError: file - can't be written (it is not open for writing)" in done.stderr


def test_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    target = tmp_path / "there" / "t.txt"
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("there/t.txt")
    # a link that leads to nothing yet
    put(tmp_path / "one", "first\n")
    assert target.read_text() == "first\n"
    target.chmod(0o640)
    inode = target.stat().st_ino
    file = TextOutput(tmp_path / "one")
    file.write("second\n")
    # whole or not at all: beside the target, which is there until the end
    assert target.read_text() == "first\n" and len(list((tmp_path / "there").iterdir())) == 2
    file.close()
    assert target.read_text() == "second\n" and target.stat().st_ino != inode
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert (tmp_path / "one").is_symlink() and (tmp_path / "two").is_symlink()
    assert {path.name for path in tmp_path.iterdir()} == {"one", "two", "there"}


def test_links_that_can_not_be_followed(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "to-folder").symlink_to("folder")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    (tmp_path / "astray").symlink_to("nowhere/t.txt")
    for name, reason in (
        ("to-folder", "is a folder"),
        ("loop", "links lead to each other"),
        ("a", "links lead to each other"),
        ("astray", "links into, .*nowhere, does not exist"),
    ):
        with pytest.raises(InputError, match=reason):
            put(tmp_path / name, "x\n")
        with pytest.raises(InputError, match=reason):
            write_whole(tmp_path / name, "x\n")
    assert len(list(tmp_path.iterdir())) == 6


def test_an_input_is_never_an_output(tmp_path: Path) -> None:
    given = tmp_path / "in.mp4"
    given.write_bytes(b"x")
    (tmp_path / "link").symlink_to("in.mp4")
    os.link(given, tmp_path / "hard")
    (tmp_path / "to-link").symlink_to("link")
    for name in ("in.mp4", "link", "hard", "to-link", "../" + tmp_path.name + "/in.mp4"):
        with pytest.raises(InputError, match="is also an input: choose another name"):
            TextOutput(tmp_path / name, given)
        with pytest.raises(InputError, match="is also an input"):
            # the input is named by the link
            TextOutput(given, tmp_path / name)
    with given.open("r+b") as file, pytest.raises(InputError, match="is also an input"):
        TextOutput(f"/dev/fd/{file.fileno()}", given)
    assert given.read_bytes() == b"x" and len(list(tmp_path.iterdir())) == 4


def test_the_other_name_of_a_file_keeps_its_content(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("old")
    os.link(tmp_path / "mine", tmp_path / "theirs")
    put(tmp_path / "mine", "new\n")
    assert (tmp_path / "mine").read_text() == "new\n" and (tmp_path / "theirs").read_text() == "old"


def test_a_protected_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    path.write_text("keep")
    path.chmod(0o444)
    (tmp_path / "link").symlink_to("t.txt")
    for name in ("t.txt", "link"):
        with pytest.raises(InputError, match="can't be replaced \\(is write-protected\\)"):
            put(tmp_path / name, "new\n")
    assert path.read_text() == "keep"


def test_a_new_file_has_the_permissions_of_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        put(tmp_path / "t.txt", "x\n")
        write_whole(tmp_path / "w.txt", "x\n")
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o640}


def test_a_link_in_the_way_is_not_written_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    victim = tmp_path / "victim"
    victim.write_text("keep")
    # what used to be the name, and one that was guessed
    (tmp_path / "o.txt.partial").symlink_to("victim")
    put(tmp_path / "o.txt", "new\n")
    guessed = tmp_path / "guessed.partial"
    guessed.symlink_to("victim")
    monkeypatch.setattr(whole_module, "new_name", lambda target: guessed)
    with pytest.raises(InputError, match="can't be written"):
        put(tmp_path / "p.txt", "new\n")
    assert victim.read_text() == "keep" and (tmp_path / "o.txt").read_text() == "new\n" and guessed.is_symlink()


def test_one_run_at_a_time(tmp_path: Path) -> None:
    first = TextOutput(tmp_path / "o.txt")
    (tmp_path / "link").symlink_to("o.txt")
    for name in ("o.txt", "link"):
        with pytest.raises(InputError, match="is being written by another run: wait for it or choose another path"):
            TextOutput(tmp_path / name)
    put(tmp_path / "other.txt", "x\n")
    first.write("first\n")
    first.close()
    put(tmp_path / "o.txt", "second\n")
    assert (tmp_path / "o.txt").read_text() == "second\n" and not list(tmp_path.glob("*.partial"))


RACE = """
import sys
from avgn.runtime.errors import InputError
from avgn.runtime.outputs import TextOutput
print("ready", flush=True)
sys.stdin.readline()
try:
    file = TextOutput(sys.argv[1])
except InputError as error:
    print(error)
    sys.exit(2)
print("open", flush=True)
sys.stdin.readline()
for _ in range(2000):
    file.write(sys.argv[2] * 50 + "\\n")
file.close()
"""


def test_of_several_runs_that_begin_at_once_one_writes(tmp_path: Path) -> None:
    runs = [python(RACE, tmp_path / "o.txt", name, stdin=subprocess.PIPE) for name in "abcd"]
    for run in runs:
        assert run.stdout is not None and run.stdout.readline() == "ready\n"
    for run in runs:
        assert run.stdin is not None
        run.stdin.write("\n")
        run.stdin.flush()
    said = [run.stdout.readline() for run in runs if run.stdout is not None]
    assert said.count("open\n") == 1 and sum("is being written by another run" in line for line in said) == 3
    for run in runs:
        run.communicate("\n", timeout=20)
    assert sorted(run.returncode for run in runs) == [0, 2, 2, 2]
    lines = set((tmp_path / "o.txt").read_text().splitlines())
    assert len(lines) == 1 and len(lines.pop()) == 50 and len(list(tmp_path.iterdir())) == 1


def test_what_a_killed_run_left_blocks_nobody_and_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    process = python(RACE.replace("range(2000)", "iter(int, 1)"), tmp_path / "o.txt", "a", stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write("\n\n")
    process.stdin.flush()
    deadline = time.monotonic() + 20
    while not any(path.stat().st_size for path in tmp_path.glob("*.partial")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.communicate(timeout=20)
    put(tmp_path / "o.txt", "new\n")
    (left,) = tmp_path.glob("*.partial")
    assert f"{left} is what a run that was cut off wrote" in caplog.text and left.read_text().startswith(
        "a" * 50 + "\n"
    )
    assert (tmp_path / "o.txt").read_text() == "new\n"


def test_names_are_not_to_be_guessed_and_always_fit(tmp_path: Path) -> None:
    names = [b"x" * 255, "ä".encode() * 127, b"\xff\xfe.txt", b"a b", b"-", b"%d.txt", b"a:b", b"new\nline", b"*?["]
    for name in names:
        path = Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), name)))
        files = [TextOutput(path)]
        with pytest.raises(InputError, match="another run"):
            TextOutput(path)
        seen = {file._file.partial.name for file in files}  # type: ignore[union-attr]
        files[0].write("x\n")
        files[0].close()
        files = [TextOutput(path)]
        assert files[0]._file.partial.name not in seen  # type: ignore[union-attr]
        files[0].abort()
    assert sorted(os.listdir(os.fsencode(tmp_path))) == sorted(names)


def test_reasons_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for name, said in (
        ("x" * 256, "its name is too long, 255 bytes are the most): choose a shorter name"),
        ("file/o.txt", "a part of its path is a file, not a folder): choose another path"),
        ("no/o.txt", "its folder does not exist, so make it"),
        ("new/", "is the name of a folder"),
        ("", "is a folder"),
        ("nul\0", "is no path"),
    ):
        for act in (lambda path: put(path, "x\n"), lambda path: write_whole(path, "x"), check_output):
            with pytest.raises(InputError, match=re.escape(said)):
                act(f"{tmp_path}/{name}")
    with pytest.raises(InputError, match="'' is no path"):
        find_place("")
    texts = {number: str(write_error("o", OSError(number, os.strerror(number)))) for number in errno.errorcode}
    for number, reason, way_out in (
        (errno.ENOSPC, "no space left on the disk", "free some space"),
        (errno.EDQUOT, "disk quota", "remove files of yours"),
        (errno.EROFS, "file system is read-only", "another one"),
        (errno.EACCES, "permission denied", "change the permissions"),
        (errno.EFBIG, "largest file", "ulimit -f"),
        (errno.EIO, "failed", "check it"),
    ):
        assert reason in texts[number]
        assert way_out in texts[number].partition("): ")[2]
    assert all("free some space" not in text for number, text in texts.items() if number != errno.ENOSPC)


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_what_belongs_to_somebody_else_stays(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    for folder in tmp_path.parents:
        if folder.name.startswith(("pytest-", "popen-")):
            folder.chmod(0o755)
    (tmp_path / "theirs").write_text("keep")
    (tmp_path / "closed").mkdir(mode=0o755)
    code = """
import os, sys
from avgn.runtime.outputs import TextOutput, write_whole
from avgn.runtime.errors import InputError
os.setuid(65534)
for name in ("theirs", "closed/o"):
    for act in (TextOutput, lambda path: write_whole(path, "x")):
        try:
            act(sys.argv[1] + "/" + name)
        except InputError as error:
            print(error)
"""
    said = python(code, tmp_path).communicate(timeout=20)
    assert said[0].count("can't be replaced (belongs to somebody else)") == 2, said
    assert said[0].count("(permission denied): change the permissions of its folder") == 2
    assert (tmp_path / "theirs").read_text() == "keep"


@pytest.mark.parametrize("act", ["lines", "whole", "folder"])
def test_a_full_disk_leaves_nothing(tmp_path: Path, act: str) -> None:
    code = """
import resource, sys
from avgn.runtime.errors import InputError
from avgn.runtime.outputs import TextOutput, new_folder, write_whole
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
text = "x" * 99 + "\\n"
try:
    if sys.argv[2] == "lines":
        file = TextOutput(sys.argv[1])
        for _ in range(2000):
            file.write(text)
        file.close()
    elif sys.argv[2] == "whole":
        write_whole(sys.argv[1], text * 2000)
    else:
        with new_folder(sys.argv[1]) as folder:
            (folder / "a").write_text("fits")
            (folder / "b").write_text(text * 2000)
except InputError as error:
    print(error)
"""
    process = python(code, tmp_path / "o", act)
    assert "can't be written (it grew beyond the largest file allowed)" in process.communicate(timeout=20)[0]
    assert list(tmp_path.iterdir()) == []


def test_outputs_need_places_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("o.txt")
    os.mkfifo(tmp_path / "fifo")
    read, write = os.pipe()
    for names in (
        ("-", "-"),
        ("-", "/dev/stdout"),
        (tmp_path / "o.txt", tmp_path / "link"),
        (tmp_path / "fifo", tmp_path / "fifo"),
        (f"/dev/fd/{write}", f"/proc/self/fd/{write}"),
    ):
        with pytest.raises(InputError, match="two outputs are to be written to"):
            check_distinct(names)
    check_distinct(("/dev/null", "/dev/null", None, "-", tmp_path / "o.txt"))
    assert takes_stdout(None, "-") and not takes_stdout(None, tmp_path / "o.txt", f"/dev/fd/{write}")
    os.close(read)
    os.close(write)


def test_a_new_folder_is_whole_or_not_there(tmp_path: Path) -> None:
    (tmp_path / ".b.partial").mkdir()
    (tmp_path / "b.partial").mkdir()
    (tmp_path / "b.partial" / "mine").write_text("keep")
    with pytest.raises(KeyboardInterrupt), new_folder(tmp_path / "b") as folder:
        (folder / "x").write_text("x")
        with pytest.raises(InputError, match="another run"), new_folder(tmp_path / "b"):
            pass
        raise KeyboardInterrupt
    assert {path.name for path in tmp_path.iterdir()} == {".b.partial", "b.partial"}
    with new_folder(tmp_path / "deep" / "b") as folder:
        (folder / "x").write_text("x")
    assert (tmp_path / "deep" / "b" / "x").read_text() == "x" and (tmp_path / "b.partial" / "mine").exists()
    with pytest.raises(InputError, match="exists and is not an empty folder"), new_folder(tmp_path / "deep" / "b"):
        pass


def test_an_empty_folder_is_filled_from_inside(tmp_path: Path) -> None:
    # a mounted one can't be replaced, and what lies beside it may be on another file system
    (tmp_path / "b").mkdir()
    (tmp_path / "link").symlink_to("b")
    inode = (tmp_path / "b").stat().st_ino
    for name in ("b", "link"):
        with new_folder(tmp_path / name) as folder:
            assert folder.parent == tmp_path / "b"
            (folder / "x").mkdir()
        assert [path.name for path in (tmp_path / "b").iterdir()] == ["x"]
        (tmp_path / "b" / "x").rmdir()
    assert (tmp_path / "b").stat().st_ino == inode and (tmp_path / "link").is_symlink()


def test_a_folder_that_is_replaced_is_there_until_the_end(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "old").write_text("old")
    (tmp_path / "link").symlink_to("b")
    with pytest.raises(ValueError), new_folder(tmp_path / "link", overwrite=True):
        raise ValueError
    assert (tmp_path / "b" / "old").exists()
    with new_folder(tmp_path / "link", overwrite=True) as folder:
        (folder / "new").write_text("new")
        assert (tmp_path / "b" / "old").exists()
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["new"] and (tmp_path / "link").is_symlink()
    assert {path.name for path in tmp_path.iterdir()} == {"b", "link"}


def test_a_folder_is_one_runs(tmp_path: Path) -> None:
    with held_folder(tmp_path / "run") as folder:
        with pytest.raises(InputError, match="is being written by another run"), held_folder(tmp_path / "run"):
            pass
        (folder / "x").write_text("x")
    with held_folder(tmp_path / "run"):
        pass
    with held_folder(tmp_path / "empty"):
        pass
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"), held_folder(tmp_path / "file"):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {"run", "file"}


def test_a_process_that_ends_leaves_nothing_begun(tmp_path: Path) -> None:
    file = open_output(tmp_path / "o")
    file.write(b"x")
    whole_module.abandon()
    assert list(tmp_path.iterdir()) == []
