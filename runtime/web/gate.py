"""Who may come in: the host that a connection names, the page it comes from, the token; and what every answer says."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import logging
import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING

from avgn.runtime.web.pace import Pace
from avgn.runtime.web.seldom import Seldom

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection

HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
        "connect-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(self), microphone=(self), geolocation=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cache-control": "no-cache",
}
# thirty days
TLS_HEADERS = {"strict-transport-security": "max-age=2592000"}
# a name, an IPv4 address or an IPv6 address in brackets, and a port (RFC 3986, 3.2.2, without what no browser sends)
HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]{2,45})\]|([0-9A-Za-z._-]{1,253}))(?::[0-9]{1,5})?")
# seconds that a wrong token waits at most for those before it
LONGEST_WAIT = 20.0

log = logging.getLogger("avgn.runtime")


class Heading:
    """The headers of every answer, also of those that libraries give."""

    def __init__(self, *, tls: bool) -> None:
        self.headers = HEADERS | (TLS_HEADERS if tls else {})
        self.encoded = [(name.encode(), value.encode()) for name, value in self.headers.items()]

    def put_into(self, answer: bytes) -> bytes:
        """Return an answer's first bytes, with the headers it lacks after its status line."""
        status, end, rest = answer.partition(b"\r\n")
        known = rest.partition(b"\r\n\r\n")[0].lower()
        lines = [b"%s: %s\r\n" % pair for pair in self.encoded if pair[0] + b":" not in known]
        return b"".join([status, end, *lines, rest])

    def answer(self, status: int, text: str) -> bytes:
        """Return a whole answer, after which the connection ends."""
        body = text.encode()
        head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: text/plain; charset=utf-8\r\n"
        head += f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        return self.put_into(head.encode() + body)


class ConnectionGate:
    """Checks every connection: the Host that it names, the page that it comes from, and the token."""

    def __init__(
        self, *, host: str = "", local: bool, origins: Sequence[str], token: str | None, delay: float = 0.5
    ) -> None:
        """`host`: where the server listens; `local`: only this machine reaches it; `origins`: other pages that may
        connect; `delay`: seconds between two answers to wrong tokens of an address.
        """
        self.local = local
        self.origins = tuple(origins)
        self._host = host.lower()
        self._token = None if token is None else token.encode()
        self._pace = Pace(delay, 0, LONGEST_WAIT)
        self._seldom = Seldom()

    def refusal(self, connection: HTTPConnection) -> tuple[int, str] | None:
        """(status, what is wrong) of a connection that may not come in, or None."""
        host = connection.headers.get("host", "")
        found = HOST.fullmatch(host)
        if host and found is None:
            return 400, "host"
        # a name that leads here by DNS rebinding is not ours
        if self.local and (found is None or not self._is_ours(found[1] or found[2])):
            return 403, "host"
        origin = connection.headers.get("origin")
        if origin is None or origin in self.origins:
            return None
        scheme = {"ws": "http", "wss": "https"}.get(connection.scope["scheme"], connection.scope["scheme"])
        return None if origin.lower() == f"{scheme}://{host}".lower() else (403, "origin")

    def _is_ours(self, name: str) -> bool:
        """Return whether a name can only mean this machine; an address can't be made to lead elsewhere."""
        if name.lower() in ("localhost", self._host):
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return address.is_loopback or (
            isinstance(address, ipaddress.IPv6Address)
            and address.ipv4_mapped is not None
            and address.ipv4_mapped.is_loopback
        )

    def fits(self, given: object) -> bool:
        """Return whether this is the token, where there is one; takes as long for every wrong one."""
        if self._token is None:
            return True
        # lone surrogates can be written in JSON
        return isinstance(given, str) and hmac.compare_digest(given.encode("utf-8", "replace"), self._token)

    async def regret(self, address: str, where: str) -> None:
        """Let whoever gave a wrong token wait for the answer, and say so now and then."""
        if times := self._seldom.count(f"{address} {where}"):
            log.warning("%d missing or wrong token%s from %s at %s", times, "s" * (times > 1), address or "?", where)
        await asyncio.sleep(self._pace.wait(address))
