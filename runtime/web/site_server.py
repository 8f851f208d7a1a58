"""Serves a page that runs by itself on this machine alone, to try it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from avgn.runtime.errors import InputError
from avgn.runtime.web.site import POLICY

HOST = "127.0.0.1"
# what threads need, and the page's own rules
ISOLATED = {
    "content-security-policy": POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-embedder-policy": "require-corp",
}


class _Files(SimpleHTTPRequestHandler):
    """GET and HEAD for the files of a folder; folders are not listed."""

    protocol_version = "HTTP/1.1"
    extensions_map = {
        **SimpleHTTPRequestHandler.extensions_map,
        ".js": "text/javascript; charset=utf-8",
        ".wasm": "application/wasm",
        ".webmanifest": "application/manifest+json",
        ".onnx": "application/octet-stream",
    }

    def __init__(self, *args: Any, headers: dict[str, str], **named: Any) -> None:
        self._headers = headers
        super().__init__(*args, **named)

    def end_headers(self) -> None:
        for name, value in {"cache-control": "no-cache", "x-content-type-options": "nosniff", **self._headers}.items():
            self.send_header(name, value)
        super().end_headers()

    def list_directory(self, path: Any) -> None:
        self.send_error(404, "there is no such page")

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: a page that is tried needs no log."""


def open_server(site: Path, port: int, *, isolated: bool = True) -> ThreadingHTTPServer:
    """Return a server of a site that listens; without `isolated` it sends no headers of its own, as plain hosts do.

    Raises InputError for a port that can't be had.
    """
    handler = partial(_Files, directory=str(site), headers=ISOLATED if isolated else {})
    try:
        server = ThreadingHTTPServer((HOST, port), handler)
    except (OSError, OverflowError) as error:
        raise InputError(f"port {port} can't be listened on ({error}): choose another --port, or 0 for any") from None
    server.daemon_threads = True
    return server


def serve_site(site: Path, port: int, report: Callable[[str], None]) -> None:
    """Serve a site until interrupted; `report` gets its address."""
    with open_server(site, port) as server:
        report(f"http://{HOST}:{server.server_address[1]}/")
        server.serve_forever()
