"""`avgn serve`: the application behind a listening socket, with or without TLS."""

from __future__ import annotations

import ipaddress
import os
import secrets
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Any

from avgn.runtime.bundle import Bundle
from avgn.runtime.errors import InputError, MissingExtraError
from avgn.runtime.localizer import Localizer
from avgn.runtime.multi import MultiStream
from avgn.runtime.web.limits import Limits

SHORTEST_TOKEN = 16
STOP_SECONDS = 3


def serve(
    bundle: str | os.PathLike[str] | Bundle | Localizer,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    token: str | None = None,
    tls_cert: str | None = None,
    tls_key: str | None = None,
    origins: Sequence[str] = (),
    limits: Limits | None = None,
    backend: str = "auto",
    precision: str | None = None,
    threads: int | None = None,
    report: Callable[[str], None] = lambda message: None,
    control: Callable[[Any], None] = lambda server: None,
) -> None:
    """Serve the page until interrupted. `control` is given uvicorn's server, whose `should_exit` ends it.

    Raises InputError before anything listens: for a host other than this machine without a token, a bad certificate, a
    port that is taken.
    """
    try:
        import starlette  # noqa: F401
        import uvicorn
    except ImportError as error:
        raise MissingExtraError(error.name or "starlette", "serve") from None
    from avgn.runtime.web.app import Gate, make_app

    limits = limits or Limits()
    local = is_loopback(host)
    check_token(host, local, token)
    tls = check_tls(tls_cert, tls_key)
    for origin in origins:
        if not origin.startswith(("http://", "https://")) or origin.count("/") != 2:
            raise InputError(f"--allow-origin must be like https://example.org, got {origin!r}")
    options = {} if threads is None else {"threads": threads}
    listening = listen(host, port)
    try:
        localizer = bundle if isinstance(bundle, Localizer) else Localizer.load(bundle, backend, precision, **options)
        with MultiStream(localizer.engine) as multi:
            app = make_app(multi, gate=Gate(local=local, origins=origins, token=token), limits=limits)
            config = uvicorn.Config(
                app,
                log_level="warning",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                ws_max_size=limits.message_bytes,
                ws_max_queue=8,
                # compressed messages could unpack to anything
                ws_per_message_deflate=False,
                timeout_graceful_shutdown=STOP_SECONDS,
                limit_concurrency=64 + 8 * limits.sessions,
                ssl_certfile=tls_cert if tls else None,
                ssl_keyfile=tls_key if tls else None,
            )
            server = uvicorn.Server(config)
            control(server)
            scheme = "https" if tls else "http"
            shown = host if local or host not in ("0.0.0.0", "::", "") else socket.gethostname()
            shown = f"[{shown}]" if ":" in shown else shown
            report(f"{scheme}://{shown}:{listening.getsockname()[1]}/")
            if not local and not tls:
                report(
                    "browsers give no camera or microphone over plain http except on localhost: "
                    "add --tls-cert and --tls-key, or forward the port with ssh -L"
                )
            server.run(sockets=[listening])
    finally:
        listening.close()


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_token(host: str, local: bool, token: str | None) -> None:
    """Raise InputError for a host that others reach without a token worth its name."""
    if token is None and not local:
        raise InputError(
            f"--host {host} is reached by other machines and needs --token; for example --token "
            f"{secrets.token_urlsafe(24)} (and browsers give no camera over plain http except on localhost: "
            "use --tls-cert and --tls-key)"
        )
    if token is not None and (len(token) < SHORTEST_TOKEN or not token.isascii() or not token.isprintable()):
        raise InputError(f"--token must have at least {SHORTEST_TOKEN} printable ASCII characters, got {len(token)}")


def check_tls(certificate: str | None, key: str | None) -> bool:
    """Whether to serve https; raises InputError for half a pair or files that are none."""
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
    """A listening socket; raises InputError where there can be none."""
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
