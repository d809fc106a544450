"""A headless Chromium driven over its DevTools protocol through a pair of pipes: no driver, no port."""

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--enable-unsafe-swiftshader",
    "--disable-extensions",
    "--disable-background-networking",
    "--no-first-run",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)
FREE_DESCRIPTOR = 20
"""The child needs descriptors 3 and 4 for its ends, so ours are moved above."""


def find_browser() -> str | None:
    """The program, None if this machine has none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """One page. ``messages``: console messages, exceptions and log entries; ``requests``: URLs asked for."""

    def __init__(self, program: str, folder: Path, timeout: float = 60):
        self.messages: list[str] = []
        self.requests: list[str] = []
        self._timeout, self._number, self._buffer = timeout, 0, b""
        self._answers: dict[int, dict] = {}
        self._events: list[str] = []
        theirs_in, self._to = _pipe()
        self._from, theirs_out = _pipe()
        self._process = subprocess.Popen(
            [program, *OPTIONS, f"--user-data-dir={folder}", "about:blank"],
            preexec_fn=lambda: (os.dup2(theirs_in, 3), os.dup2(theirs_out, 4)),
            close_fds=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._session = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"
        ]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def close(self) -> None:
        for descriptor in (self._to, self._from):
            os.close(descriptor)
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def call(self, method: str, **parameters) -> dict:
        """Result of one command of the protocol."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        self._wait(lambda: self._number in self._answers, method)
        answer = self._answers.pop(self._number)
        assert "error" not in answer, f"{method}: {answer['error']}"
        return answer["result"]

    def open(self, url: str, width: int, height: int, touch: bool = False) -> None:
        """Load a page in a window of this size, until it is drawn."""
        self._events.clear()
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=touch,
        )  # fmt: skip
        self.call("Page.navigate", url=url)
        self._wait(lambda: "Page.loadEventFired" in self._events, url)
        self.settle()

    def settle(self) -> None:
        """Let the page draw what it was told."""
        self.evaluate(
            "new Promise(r => requestAnimationFrame(() => requestAnimationFrame(() => r(0))))"
        )

    def evaluate(self, expression: str):
        """Value of a JavaScript expression in the page; promises are awaited."""
        result = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def key(self, key: str) -> None:
        for kind in ("keyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                **({"text": key} if len(key) == 1 and kind == "keyDown" else {}),
            )

    def drag(self, start: tuple[float, float], stop: tuple[float, float]) -> None:
        """With the left mouse button, in window coordinates."""
        for kind, (x, y) in (
            ("mousePressed", start),
            ("mouseMoved", stop),
            ("mouseReleased", stop),
        ):
            self.call(
                "Input.dispatchMouseEvent",
                type=kind,
                x=x,
                y=y,
                button="left",
                buttons=1,
                clickCount=1,
            )
        self.settle()

    def screenshot(self, whole: bool = False) -> bytes:
        """PNG of the window, or of the whole page."""
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)[
            "data"
        ]
        return base64.b64decode(data)

    def pdf(self) -> bytes:
        result = self.call("Page.printToPDF", printBackground=True, preferCSSPageSize=True)
        return base64.b64decode(result["data"])

    def _wait(self, done, what: str) -> None:
        end = time.monotonic() + self._timeout
        while not done():
            ready, _, _ = select.select([self._from], [], [], max(0.0, end - time.monotonic()))
            piece = os.read(self._from, 1 << 20) if ready else b""
            if not piece:
                raise TimeoutError(f"the browser did not answer: {what}")
            *whole, self._buffer = (self._buffer + piece).split(b"\0")
            for message in whole:
                self._take(json.loads(message))

    def _take(self, message: dict) -> None:
        if "id" in message:
            self._answers[message["id"]] = message
            return
        method, parameters = message["method"], message["params"]
        self._events.append(method)
        if method == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])
        elif method == "Runtime.consoleAPICalled":
            values = [
                str(item.get("value", item.get("description"))) for item in parameters["args"]
            ]
            self.messages.append(" ".join([parameters["type"], *values]))
        elif method == "Runtime.exceptionThrown":
            self.messages.append(json.dumps(parameters["exceptionDetails"]))
        elif method == "Log.entryAdded":
            self.messages.append(f"{parameters['entry']['level']}: {parameters['entry']['text']}")


def _pipe() -> tuple[int, int]:
    """Reading and writing end, both above the descriptors that the child puts its own on."""
    ends = []
    for low in os.pipe():
        ends.append(fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, FREE_DESCRIPTOR))
        os.close(low)
    return tuple(ends)
