"""Several runs on one output, runs that were killed, and folders that appear whole or not at all."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from avgn.runtime.errors import InputError
from avgn.runtime.outputs import (
    TextOutput,
    held_folder,
    new_folder,
    open_output,
)
from avgn.runtime.outputs import whole as whole_module
from tests.patience import PATIENCE, until
from tests.runtime.outputs import put, python


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
        run.communicate("\n", timeout=PATIENCE)
    assert sorted(run.returncode for run in runs) == [0, 2, 2, 2]
    lines = set((tmp_path / "o.txt").read_text().splitlines())
    assert len(lines) == 1 and len(lines.pop()) == 50 and len(list(tmp_path.iterdir())) == 1


def test_what_a_killed_run_left_blocks_nobody_and_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    process = python(RACE.replace("range(2000)", "iter(int, 1)"), tmp_path / "o.txt", "a", stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write("\n\n")
    process.stdin.flush()
    until(lambda: any(path.stat().st_size for path in tmp_path.glob("*.partial")))
    process.kill()
    process.communicate(timeout=PATIENCE)
    put(tmp_path / "o.txt", "new\n")
    (left,) = tmp_path.glob("*.partial")
    assert f"{left} was left by a run that was cut off" in caplog.text and left.read_text().startswith("a" * 50 + "\n")
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
