"""A headless Chromium spoken to over its debugging pipe: no port, no driver program, no library.

Only for tests. A page runs as a user would see it (its own policy holds); what a test evaluates runs beside that
policy, as developer tools do.
"""

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-extensions", "--disable-dev-shm-usage",
    "--disable-background-networking", "--disable-component-update", "--remote-debugging-pipe",
)  # fmt: skip
_QUIET = {"Network.loadingFinished", "Network.dataReceived", "Network.responseReceived"}


@dataclass
class Page:
    """One tab. `events` are all that it reported: requests, messages of the console, exceptions."""

    pipe: tuple[int, int]
    session: str = ""
    events: list[dict[str, Any]] = field(default_factory=list)
    number: int = 0
    buffer: bytes = b""

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """The answer to one command of the DevTools protocol."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.pipe[1], json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self.number:
                assert "error" not in answer, (method, answer["error"])
                return dict(answer["result"])

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self.buffer:
            data = os.read(self.pipe[0], 1 << 20)
            assert data, "the browser ended"
            self.buffer += data
        line, _, self.buffer = self.buffer.partition(b"\0")
        message = dict(json.loads(line))
        if "method" in message and message["method"] not in _QUIET:
            self.events.append(message)
        return message

    def attach(self) -> None:
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def show(self, width: int, height: int, *, scheme: str = "light", media: str = "screen") -> None:
        """The size of the window (a phone's below 600 pixels), light or dark, screen or print."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", media=media, features=features)

    def open(self, url: str) -> None:
        """Load `url` and wait until the page says that it is loaded."""
        self.events.clear()
        self.call("Page.navigate", url=url)
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self._next()

    def evaluate(self, script: str) -> Any:
        """The value of a script, awaited, in the page but beside its policy."""
        answer = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def requests(self) -> list[str]:
        """Every address that was asked for since the page was opened, without what needs no network."""
        asked = [e["params"]["request"]["url"] for e in self.events if e["method"] == "Network.requestWillBeSent"]
        return [url for url in asked if not url.startswith("data:")]

    def complaints(self) -> list[str]:
        """What the page wrote to the console, violations of its policy and exceptions."""
        found = []
        for event in self.events:
            if event["method"] == "Log.entryAdded":
                found.append(event["params"]["entry"]["text"])
            if event["method"] in {"Runtime.consoleAPICalled", "Runtime.exceptionThrown"}:
                found.append(json.dumps(event["params"]))
        return found

    def screenshot(self, path: Path) -> None:
        """The whole page as PNG."""
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(data))

    def pdf(self, path: Path) -> None:
        """The page as it is printed on A4."""
        settings = {"paperWidth": 8.27, "paperHeight": 11.69, "preferCSSPageSize": True, "printBackground": True}
        path.write_bytes(base64.b64decode(self.call("Page.printToPDF", **settings)["data"]))


@contextmanager
def browser(profile: Path) -> Iterator[Page]:
    """A browser with one tab, ended with the block. `profile` is a folder for its own files."""
    assert CHROMIUM is not None
    read_theirs, write_ours = os.pipe()
    read_ours, write_theirs = os.pipe()

    # the browser reads commands from descriptor 3 and writes answers to 4
    wire = f'exec "$0" "$@" 3<&{read_theirs} 4>&{write_theirs}'
    process = subprocess.Popen(
        ["bash", "-c", wire, CHROMIUM, *_FLAGS, f"--user-data-dir={profile}"],
        pass_fds=(read_theirs, write_theirs), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(read_theirs)
    os.close(write_theirs)
    page = Page((read_ours, write_ours))
    try:
        page.attach()
        yield page
    finally:
        os.close(write_ours)
        process.terminate()
        process.wait(timeout=30)
        os.close(read_ours)
