"""Reads http(s) for FFmpeg, which thereby connects to nobody by itself.

A server's answer may send elsewhere: by a redirect, or by a playlist that names other hosts or files of this machine.
Everything that such a stream needs is fetched here, so that one rule holds for all of it: the host that was asked for
and no other, unless `follow`; over https with a certificate that can be verified, unless `insecure`.
"""

from __future__ import annotations

import http.client
import http.cookiejar
import io
import socket
import ssl
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from avgn.runtime.errors import InputError
from avgn.runtime.sources.aes import Decrypted

WEB = ("http", "https")
# seconds until a server answers, and between two pieces of an answer
TIMEOUT = 10.0
# bytes that are read at once, and that are passed over where a server gives no parts
PIECE = 1 << 16
MOST_PASSED_OVER = 64 << 20
# why an answer has an end before its end
CLOSED = "the connection was closed"
# what FFmpeg asks of `seek` besides 0, 1 and 2
FORCE = 0x20000


class RefusedError(InputError):
    """An address led to what may not be read from it."""


@dataclass(frozen=True, kw_only=True)
class Trust:
    """What an address may lead to: other hosts if `follow`, servers without a certificate to verify if `insecure`."""

    follow: bool = False
    insecure: bool = False


def host_of(url: str) -> str:
    """Return the host of an address in small letters; empty where there is none."""
    try:
        return (urllib.parse.urlsplit(url).hostname or "").rstrip(".").lower()
    except ValueError:
        return ""


class Prompt(http.client.HTTPConnection):
    """A connection whose server has `timeout` seconds for the whole head of its answer, not for each byte of it."""

    def getresponse(self) -> http.client.HTTPResponse:
        late = threading.Event()

        def end() -> None:
            late.set()
            # the thread that reads wakes up
            with suppress(OSError, AttributeError):
                self.sock.shutdown(socket.SHUT_RDWR)

        timer = threading.Timer(self.timeout or TIMEOUT, end)
        timer.daemon = True
        timer.start()
        try:
            answer = super().getresponse()
        except (OSError, http.client.HTTPException):
            if late.is_set():
                raise TimeoutError("timed out") from None
            raise
        finally:
            timer.cancel()
        if late.is_set():
            answer.close()
            raise TimeoutError("timed out")
        return answer


class PromptTls(Prompt, http.client.HTTPSConnection):
    """The same over TLS."""


class PromptHandler(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(Prompt, req)


class PromptTlsHandler(urllib.request.HTTPSHandler):
    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__(context=context)
        self._tls = context

    def https_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(PromptTls, req, context=self._tls)


class SameHost(urllib.request.HTTPRedirectHandler):
    """Follows redirects to the same host, and with `Trust.follow` to any; never to another scheme than http(s)."""

    def __init__(self, trust: Trust) -> None:
        self._trust = trust

    def http_error_302(self, req: Any, fp: Any, code: int, msg: str, headers: Any) -> Any:
        target = headers.get("Location") or headers.get("URI")
        if target:
            check_address(urllib.parse.urljoin(req.full_url, target), host_of(req.full_url), self._trust)
        return super().http_error_302(req, fp, code, msg, headers)

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


def check_address(url: str, host: str, trust: Trust) -> None:
    """Raise RefusedError unless what a stream of `host` names may be fetched."""
    scheme = url.partition(":")[0].lower()
    if scheme not in WEB:
        raise RefusedError(f"the stream of {host} names {url[:80]!r}, which is no web address: it is not read")
    if host_of(url) != host and not trust.follow:
        raise RefusedError(
            f"the stream of {host} leads to another host, {host_of(url)[:80]!r}: pass --follow if you trust it"
        )


@dataclass
class Web:
    """A visitor of one host; cookies that it sets are sent back to it."""

    trust: Trust = field(default_factory=Trust)
    timeout: float = TIMEOUT
    cookies: http.cookiejar.CookieJar = field(default_factory=http.cookiejar.CookieJar)

    def get(self, url: str, headers: dict[str, str]) -> Any:
        """Return the answer to a GET; user and password of the address are sent where they are asked for.

        Raises RefusedError for what may not be fetched, OSError, ValueError or HTTPException when there is no answer.
        """
        parts = urllib.parse.urlsplit(url)
        plain = urllib.parse.urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment=""))
        handlers: list[urllib.request.BaseHandler] = [
            PromptHandler(),
            PromptTlsHandler(tls_context(insecure=self.trust.insecure)),
            urllib.request.HTTPCookieProcessor(self.cookies),
            SameHost(self.trust),
        ]
        if parts.username:
            passwords = urllib.request.HTTPPasswordMgrWithDefaultRealm()
            user, password = (urllib.parse.unquote(part or "") for part in (parts.username, parts.password))
            passwords.add_password(None, plain, user, password)
            handlers += [
                urllib.request.HTTPBasicAuthHandler(passwords),
                urllib.request.HTTPDigestAuthHandler(passwords),
            ]
        request = urllib.request.Request(quoted(plain), headers={"User-Agent": "avgn", "Accept": "*/*", **headers})
        try:
            return urllib.request.build_opener(*handlers).open(request, timeout=self.timeout)
        except urllib.error.URLError as error:
            if isinstance(error.reason, ssl.SSLCertVerificationError):
                raise RefusedError(
                    f"the certificate of {host_of(url)} can't be verified ({error.reason.verify_message}): pass "
                    "--insecure if you know that server"
                ) from None
            raise


class Opener:
    """What FFmpeg opens its inputs with: the address itself, and whatever that names.

    `refused`: what was not opened since it may not be; `failed`: whether something went wrong.
    """

    def __init__(self, url: str, trust: Trust, timeout: float = TIMEOUT) -> None:
        self._host = host_of(url)
        self._web = Web(trust, timeout)
        self.refused: RefusedError | None = None
        self.failed = False

    def __call__(self, url: str | bytes, flags: int, options: dict[str, str]) -> Any:
        if self.failed:
            return io.BytesIO()
        with self.watched():
            return FirstError(self._open(url, options), self)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Note that what is done here went wrong."""
        try:
            yield
        except Exception:
            self.failed = True
            raise

    def _open(self, url: str | bytes, options: dict[str, str]) -> Any:
        text = url.decode("utf-8", "surrogateescape") if isinstance(url, bytes) else url
        encrypted = text.startswith("crypto+")
        text = text.removeprefix("crypto+")
        try:
            check_address(text, self._host, self._web.trust)
            file = WebFile(self._web, text, int(options.get("offset", 0)), int(options.get("end_offset", 0)))
        except RefusedError as error:
            self.refused = error
            raise
        return Decrypted(file, options.get("key", ""), options.get("iv", "")) if encrypted else file


class FirstError:
    """A file of an Opener whose first error of all its files goes to PyAV; after it every file is at its end.

    PyAV raises an error when FFmpeg returns to it. Of more that come before, it would print the tracebacks.
    """

    def __init__(self, file: Any, opener: Opener) -> None:
        self._file, self._opener = file, opener

    def __getattr__(self, name: str) -> Any:
        # what else it can do: PyAV asks whether it has a method
        method = getattr(self._file, name)
        return partial(self._seek, method) if name == "seek" else method

    def read(self, size: int = -1) -> bytes:
        if self._opener.failed:
            return b""
        with self._opener.watched():
            try:
                data: bytes = self._file.read(size)
            except http.client.HTTPException:
                raise OSError(CLOSED) from None
            return data

    def _seek(self, seek: Callable[[int, int], int], offset: int, whence: int = 0) -> int:
        if self._opener.failed:
            return -1
        with self._opener.watched():
            return seek(offset, whence)


class WebFile:
    """What lies at an address, as a file: bytes `first` to `end` (0: all); seekable where the server gives parts."""

    def __init__(self, web: Web, url: str, first: int = 0, end: int = 0) -> None:
        self._web, self._url = web, url
        self._first, self._end = first, end
        self._position = 0
        self._answer = self._ask(0)
        length = self._answer.headers.get("Content-Length", "")
        self._length = int(length) if length.isascii() and length.isdigit() and len(length) < 19 else None
        ranges = self._answer.status == 206 or self._answer.headers.get("Accept-Ranges", "").lower() == "bytes"
        self._seekable = ranges and bool(self._length)

    def _ask(self, position: int) -> Any:
        start = self._first + position
        asked = {"Range": f"bytes={start}-{self._end - 1 if self._end else ''}"} if start or self._end else {}
        answer = self._web.get(self._url, asked)
        left = start if asked and answer.status != 206 else 0
        if left > MOST_PASSED_OVER:
            answer.close()
            raise OSError(f"the server of {host_of(self._url)} gives no parts of a file")
        # a server without parts gives the whole
        while left and (passed := answer.read(min(left, PIECE))):
            left -= len(passed)
        return answer

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._seekable

    def read(self, size: int = -1) -> bytes:
        """Return what has come, at most `size` bytes; waits only where nothing has."""
        most = self._end - self._first - self._position if self._end else PIECE
        data: bytes = self._answer.read1(max(0, min(most, size if size > 0 else PIECE)))
        self._position += len(data)
        return data

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = 0) -> int:
        whence &= ~FORCE
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._length or 0}[whence]
        target = base + offset
        if not 0 <= target <= (self._length or 0):
            raise OSError("a place outside of the file")
        if target != self._position:
            self._answer.close()
            # nothing is asked for at the very end
            self._answer = io.BytesIO() if target == self._length else self._ask(target)
            self._position = target
        return target

    def close(self) -> None:
        self._answer.close()


def web_options() -> dict[str, str]:
    """FFmpeg's options for inputs that an Opener opens."""
    # no protocol is its own; connections that are kept are opened by itself
    return {"protocol_whitelist": "none", "http_persistent": "0", "http_multiple": "0"}


def tls_context(*, insecure: bool) -> ssl.SSLContext:
    """Certificates are verified with those that this system trusts, else with certifi's, unless `insecure`."""
    context = ssl.create_default_context()
    if insecure:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context
    paths = ssl.get_default_verify_paths()
    if paths.cafile is None and paths.capath is None:
        try:
            import certifi
        except ImportError:
            return context
        context.load_verify_locations(certifi.where())
    return context


def quoted(url: str) -> str:
    """Spaces and letters beyond ASCII as an address has them; what is quoted already stays."""
    return urllib.parse.quote(url, safe="%/:=&?~#+!$,;'@()*[]")
