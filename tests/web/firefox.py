"""Debian's Firefox, driven through WebDriver BiDi: one socket, no package of Node."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.runtime import pulse

PREFERENCES = {
    # a camera and a microphone that are drawn, without a question
    "media.navigator.streams.fake": True,
    "media.navigator.permission.disabled": True,
    "media.autoplay.default": 0,
    # what the browser itself would ask of others
    "app.update.enabled": False,
    "browser.safebrowsing.malware.enabled": False,
    "browser.safebrowsing.phishing.enabled": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "toolkit.telemetry.enabled": False,
}
# a private window, as new ones are, and as older ones were: nothing is kept, nor can be
PRIVATE = {"browser.privatebrowsing.autostart": True}
NOTHING_KEPT = PRIVATE | {
    "dom.serviceWorkers.enabled": False,
    "dom.caches.enabled": False,
    "dom.indexedDB.enabled": False,
    "dom.storage.enabled": False,
}
# results as they come, and refusals of the page's policy
WATCH = (
    "() => { window.results = []; window.refusedByPolicy = [];"
    " addEventListener('avgn-result', (event) => results.push(event.detail));"
    " addEventListener('securitypolicyviolation', (event) => refusedByPolicy.push(event.blockedURI)); }"
)
PATIENCE = 90.0


def executable() -> str | None:
    return shutil.which("firefox-esr") or shutil.which("firefox")


def missing() -> str | None:
    """Why there is no Firefox here that can be heard, or None: without a device for sound it runs none at all."""
    return pulse.missing() if executable() else "no Firefox is installed (Debian: firefox-esr)"


class Page:
    """The one tab of a new browser; what its console says of errors and what it asks for are kept."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket
        self._number = 0
        self.errors: list[str] = []
        self.requests: list[str] = []
        self._call("session.new", capabilities={})
        self._call("session.subscribe", events=["log.entryAdded", "network.beforeRequestSent"])
        self._context = self._call("browsingContext.getTree")["contexts"][0]["context"]
        self._call("script.addPreloadScript", functionDeclaration=WATCH)

    def goto(self, url: str) -> None:
        self._call("browsingContext.navigate", context=self._context, url=url, wait="complete")

    def evaluate(self, expression: str) -> Any:
        """Return the value of an expression, or of the promise that it gives."""
        text = f"(async () => JSON.stringify(await ({expression}) ?? null))()"
        target = {"context": self._context}
        found = self._call("script.evaluate", expression=text, target=target, awaitPromise=True)
        assert found["type"] == "success", found
        return json.loads(found["result"]["value"])

    def until(self, condition: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not self.evaluate(condition):
            assert time.monotonic() < deadline, f"{condition} did not come about in {PATIENCE} s"
            time.sleep(0.05)

    def click(self, selector: str) -> None:
        """Click as a person does: browsers start no sound for anything less."""
        box = f"document.querySelector({json.dumps(selector)}).getBoundingClientRect()"
        x, y = self.evaluate(f"[{box}.x + {box}.width / 2, {box}.y + {box}.height / 2]")
        moves = [
            {"type": "pointerMove", "x": int(x), "y": int(y)},
            {"type": "pointerDown", "button": 0},
            {"type": "pointerUp", "button": 0},
        ]
        mouse = {"type": "pointer", "id": "mouse", "actions": moves}
        self._call("input.performActions", context=self._context, actions=[mouse])

    def choose_file(self, selector: str, file: Path) -> None:
        element = f"document.querySelector({json.dumps(selector)})"
        target = {"context": self._context}
        found = self._call("script.evaluate", expression=element, target=target, awaitPromise=False)["result"]
        self._call("input.setFiles", context=self._context, element={"sharedId": found["sharedId"]}, files=[str(file)])

    def _call(self, method: str, **parameters: Any) -> Any:
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(PATIENCE))
            if message.get("id") == self._number:
                assert message["type"] == "success", message
                return message["result"]
            if message.get("method") == "log.entryAdded" and message["params"]["level"] == "error":
                self.errors.append(str(message["params"]["text"]))
            if message.get("method") == "network.beforeRequestSent":
                self.requests.append(message["params"]["request"]["url"])


@contextlib.contextmanager
def firefox(profile: Path, preferences: Mapping[str, Any] | None = None) -> Iterator[Page]:
    """A new browser with a new profile in a folder, of preferences beside the usual ones, and its page."""
    from websockets.sync.client import connect

    profile.mkdir()
    wanted = {**PREFERENCES, **(preferences or {})}
    lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in wanted.items()]
    (profile / "user.js").write_text("".join(lines))
    program = executable()
    assert program is not None
    command = [program, "--headless", "--no-remote", "--profile", str(profile), "--remote-debugging-port", "0"]
    with pulse.server(profile) as environment:
        process = subprocess.Popen(
            [*command, "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        try:
            assert process.stderr is not None
            found = (re.search(r"BiDi listening on (ws://\S+)", line) for line in process.stderr)
            address = next(match[1] for match in found if match)
            with connect(f"{address}/session", max_size=None) as socket:
                yield Page(socket)
        finally:
            process.terminate()
            process.wait(30)
