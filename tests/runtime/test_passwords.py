"""Users' names and passwords in addresses are in no line that is printed, whatever characters they have."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest

from avgn.runtime.sources.address import short_reason, without_secrets
from avgn.runtime.texts import PlainFormatter, plain, printable, without_passwords
from tests.commands import forked, refused


def test_no_password_is_printed() -> None:
    assert without_secrets("http://host/a@b.mp4?key=word") == "http://host/a@b.mp4"
    assert without_secrets("http://user:p@word@host:80/x") == "http://host:80/x"
    assert without_secrets("http://user:word@cam.local/x@2x.mp4") == "http://cam.local/x@2x.mp4"
    assert without_secrets("http://user:word@cam:80/x@y") == "http://cam:80/x@y"
    for message in (
        "ftp:/user:word@host/x does not exist",
        "got rtsp://u:w@word@host/x",
        "see http://user:wo/word@host",
    ):
        assert "word" not in without_passwords(message) and "host" in without_passwords(message)
    for message in (
        "no file C:/a:b@c at 12:30:00",
        "http://host/x?mail=a@b",
        "udp://@:5000",
        "see http://192.168.1.2:80/x:y@z",
        "see http://[::1]:80/x@z and http://localhost:80/x@z",
        "rtsp://host:554 failed: [rtsp @ 0x55] write / ? # : @ as %2F",
        "rtsp://host:554 is lost, write to me@host",
    ):
        assert without_passwords(message) == message
    for words in (
        ("tiny", "ftp://user:secretword@host/x.mp4"),
        ("tiny", "file://user:secretword@host/x.mp4"),
        ("tiny", "a.mp4", "--audio", "http://user:secretword@host/x.mp4"),
        ("tiny", "rtsp://user:secretword@host/x", "--camera-fps", "5"),
        ("tiny", "rtsp://user:secretword@host/x", "a.mp4"),
    ):
        assert "secretword" not in refused("localize", *words)


UNCLEAR = ["12/34", "1?2", "1#2"]
STRANGE = [*UNCLEAR, "p@ss/w", "a@b@c", "@@", "a b", "p'w", 'p"w', "p%2Fw", "a:b@c", "12:/3"]


@pytest.mark.parametrize("password", [*STRANGE, "x://y", "12", ""])
@pytest.mark.parametrize("user", ["hiddenme", ""])
def test_a_strange_password_is_in_no_line(user: str, password: str) -> None:
    address = f"rtsp://{user}:{password}@host.de:554/x"
    # they may be a port, and a path with an @
    name = "...@host.de:554/x" if password in UNCLEAR else "host.de:554/x"
    assert without_secrets(f"{address}?token=1") == f"rtsp://{name}"
    lines = {
        f"{address}: lost (timed out)": f"rtsp://{name}: lost (timed out)",
        f"see {address}, not rtsp://other:80/y": f"see rtsp://{name}, not rtsp://other:80/y",
        f"got {address!r}: leave it out": f"got {f'rtsp://{name}'!r}: leave it out",
        f"{Path(address)} does not exist": f"rtsp:/{name} does not exist",
    }
    quoted = repr(address)[0]
    for line, expected in lines.items():
        expected = expected.replace("'", quoted)
        assert without_passwords(line) == plain(line) == expected
        assert printable(f"one\n{line}\n") == f"one\n{expected}\n"


@pytest.mark.parametrize("password", ["hidden12", "12/hidden34", "hid@den/34"])
def test_a_run_prints_no_password(password: str, tmp_path: Path) -> None:
    done = forked("localize", "tiny", f"rtsp://hiddenme:{password}@127.0.0.1:9/x", "--seconds", 0.5)
    assert done.returncode == 1 and "gave nothing in 0.5 s" in done.stderr
    assert ": connecting" in done.stderr and "rtsp://127.0.0.1:9/x" in done.stderr
    assert not re.search("hid|den", done.stdout + done.stderr)


def test_a_traceback_in_the_log_has_no_password() -> None:
    formatter = PlainFormatter()
    try:
        raise OSError("rtsp://hiddenme:12/34@host/x can't be opened")
    except OSError as error:
        info = (OSError, error, error.__traceback__)
        record = logging.LogRecord("avgn", logging.ERROR, "", 1, "it failed", None, info)
    said = formatter.format(record)
    assert (
        "it failed" in said and "rtsp://...@host/x can't be opened" in said and "hiddenme" not in said.splitlines()[-1]
    )


def test_a_reason_is_cut_behind_its_passwords() -> None:
    reason = short_reason(OSError(f"rtsp://me:{'hidden' * 20}@host/x can't be opened"))
    assert reason == "rtsp://host/x can't be opened"
