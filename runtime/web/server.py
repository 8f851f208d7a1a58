"""`avgn serve`: the application behind a listening socket, with or without TLS."""

from __future__ import annotations

import ipaddress
import os
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Any

from avgn.runtime.errors import InputError, MissingExtraError
from avgn.runtime.localizer import Localizer, check_localizer
from avgn.runtime.web.lessons import Teacher
from avgn.runtime.web.limits import Limits
from avgn.runtime.web.shared import SharedEngine
from avgn.runtime.web.token import check_token


def serve(
    localizer: Localizer,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    token: str | None = None,
    tls_cert: str | None = None,
    tls_key: str | None = None,
    origins: Sequence[str] = (),
    limits: Limits | None = None,
    teacher: Teacher | None = None,
    report: Callable[[str], None] = lambda message: None,
    control: Callable[[Any], None] = lambda server: None,
) -> None:
    """Serve the page until interrupted. `control` is given uvicorn's server, whose `should_exit` ends it.

    `host`, `port`: where it listens (port 0: any free one); `token`: what visitors have to know, None for everybody;
    `tls_cert`, `tls_key`: PEM files for https; `origins`: of pages elsewhere that may use it, as https://example.org;
    `limits`: what each visitor may send; `report`: is given sentences for people, the page's address first.
    `teacher`: lets visitors teach the bundle for all of them (`avgn.teach.classroom.Classroom`).

    Raises InputError before anything listens: for a host other than this machine without a token, a token that can be
    guessed, a bad certificate, a port that is taken.
    """
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(error.name or "starlette", "serve") from None
    from avgn.runtime.web.gate import ConnectionGate
    from avgn.runtime.web.running import run

    check_localizer(localizer)
    limits = limits or Limits()
    local = is_loopback(host)
    check_token(host, local, token)
    tls = check_tls(tls_cert, tls_key)
    check_origins(origins)
    listening = listen(host, port)
    try:
        with SharedEngine(localizer.engine) as shared:
            scheme = "https" if tls else "http"
            shown = host if local or host not in ("0.0.0.0", "::", "") else socket.gethostname()
            shown = f"[{shown}]" if ":" in shown else shown
            report(f"{scheme}://{shown}:{listening.getsockname()[1]}/")
            if not local and not tls:
                report(
                    "browsers give no camera or microphone over plain http except on localhost: "
                    "add --tls-cert and --tls-key, or forward the port with ssh -L"
                )
            gate = ConnectionGate(host=host, local=local, origins=origins, token=token, delay=limits.token_delay)
            run(
                shared,
                listening,
                gate=gate,
                limits=limits,
                certificate=tls_cert,
                key=tls_key,
                control=control,
                teacher=teacher,
            )
    finally:
        listening.close()


def check_origins(origins: Sequence[str]) -> None:
    """Raise InputError for what is no page's origin."""
    for origin in origins:
        if not origin.startswith(("http://", "https://")) or origin.count("/") != 2:
            raise InputError(f"--allow-origin must be like https://example.org, got {origin!r}")


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_tls(certificate: str | None, key: str | None) -> bool:
    """Return whether to serve https; raises InputError for half of a pair, or for files that hold no such pair."""
    if certificate is None and key is None:
        return False
    if certificate is None or key is None:
        raise InputError("--tls-cert and --tls-key go together: give both")
    for option, path in (("--tls-cert", certificate), ("--tls-key", key)):
        if not os.path.isfile(path):
            raise InputError(f"{option} {path} is not a file: give a PEM file")
    try:
        # an encrypted key would ask for its password on the terminal
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password=lambda: b"")
    except (ssl.SSLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or str(error)
        raise InputError(f"--tls-cert {certificate} and --tls-key {key} are no pair in PEM ({reason})") from None
    return True


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; raises InputError where there can be none."""
    if not 0 <= port <= 65535:
        raise InputError(f"--port must be from 0 to 65535, got {port}")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        found = socket.socket(family, kind, protocol)
    except OSError as error:
        raise InputError(f"--host {host} is not an address of this machine ({error.strerror}): try 127.0.0.1") from None
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
        found.listen(128)
    except OSError as error:
        found.close()
        raise InputError(
            f"port {port} of {host} can't be opened ({error.strerror}): choose another --port, 0 for any"
        ) from None
    found.setblocking(False)
    return found
