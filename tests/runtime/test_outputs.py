"""Files and links that outputs go to: what is there is never destroyed, and each reason against it is told apart."""

from __future__ import annotations

import errno
import os
import re
import stat
from pathlib import Path

import pytest

from avgn.runtime.errors import InputError
from avgn.runtime.outputs import (
    TextOutput,
    check_distinct,
    check_output,
    find_place,
    takes_stdout,
    write_error,
    write_whole,
)
from avgn.runtime.outputs import whole as whole_module
from tests.runtime.outputs import put, python


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
    said = python(code, tmp_path).communicate(timeout=60)
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
    assert "can't be written (it grew beyond the largest file allowed)" in process.communicate(timeout=60)[0]
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
