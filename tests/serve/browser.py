"""Chromium without a window, led through its own pipe (--remote-debugging-pipe), for which nothing is to be installed.

The protocol: https://chromedevtools.github.io/devtools-protocol/. Messages are JSON, each ended by a zero byte.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "chromium-headless-shell")
PROGRAM = next(filter(None, map(shutil.which, NAMES)), None)
OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)
CTRL = 2
SECONDS = 300
"""For an answer, or for what a page is waited for: another program may have the processor."""
PATIENCE = 20
"""Seconds that a browser has for its end."""
PAGE_GONE = ("Inspected target navigated", "Execution context was destroyed", "Cannot find context")
"""How the protocol says that a question's page gave way to another before it was answered."""


class PageGone(Exception):
    """The page of a question gave way to another (a redirect, a reload) before it was answered."""


class Browser:
    """One page in a browser of its own; what its console and its network complain of is in `complaints`."""

    def __init__(self, folder: Path) -> None:
        reading, child_writes = map(_high, os.pipe())
        child_reads, self._writing = map(_high, os.pipe())
        self._reading, self._rest, self._count = reading, b"", 0
        self.complaints: list[str] = []
        actions = [
            (os.POSIX_SPAWN_DUP2, child_reads, 3),
            (os.POSIX_SPAWN_DUP2, child_writes, 4),
            (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
            (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
        ]
        arguments = [PROGRAM, *OPTIONS, f"--user-data-dir={folder / 'profile'}"]
        self._process = os.posix_spawn(PROGRAM, arguments, os.environ, file_actions=actions, setpgroup=0)
        os.close(child_reads)
        os.close(child_writes)
        self._session = None
        target = self("Target.createTarget", url="about:blank")["targetId"]
        self._session = self("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "DOM"):
            self(f"{domain}.enable")
        self.downloads = folder / "downloads"
        self("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(self.downloads))

    def __call__(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol; its result."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters}
        if self._session and not method.startswith(("Target.", "Browser.")):
            message["sessionId"] = self._session
        os.write(self._writing, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._count:
            pass
        complaint = f"{method}: {answer.get('error')}"
        if any(sentence in complaint for sentence in PAGE_GONE):
            raise PageGone(complaint)
        assert "error" not in answer, complaint
        return answer["result"]

    def _next(self) -> dict[str, Any]:
        end = time.monotonic() + SECONDS
        while b"\0" not in self._rest:
            assert select.select([self._reading], [], [], max(end - time.monotonic(), 0))[0], "Chromium does not answer"
            piece = os.read(self._reading, 1 << 20)
            assert piece, "Chromium has ended"
            self._rest += piece
        text, _, self._rest = self._rest.partition(b"\0")
        message = json.loads(text)
        parameters = message.get("params", {})
        if message.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(parameters["exceptionDetails"].get("exception", {}).get("description", "exception"))
        elif message.get("method") == "Log.entryAdded" and parameters["entry"]["level"] in ("warning", "error"):
            self.complaints.append(parameters["entry"]["text"])
        elif message.get("method") == "Runtime.consoleAPICalled":
            self.complaints.append(str(parameters["args"]))
        return message

    def close(self) -> None:
        """End it, and whatever it has started: a browser that does not end when asked is ended."""
        os.write(self._writing, b'{"id": 0, "method": "Browser.close"}\0')
        end = time.monotonic() + PATIENCE
        while os.waitpid(self._process, os.WNOHANG) == (0, 0):
            if time.monotonic() > end:
                os.killpg(self._process, signal.SIGKILL)
            time.sleep(0.02)
        os.close(self._reading)
        os.close(self._writing)

    # ---- what a person sees and does ----

    def go(self, url: str, width: int = 1100, height: int = 760, *, touch: bool = False, density: float = 1) -> None:
        """Open an address in a window of this size in CSS pixels."""
        self("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=density, mobile=touch)
        self("Emulation.setTouchEmulationEnabled", enabled=touch)
        self("Page.navigate", url=url)
        self.wait("document.readyState === 'complete' && location.protocol === 'http:'")

    def dark(self, dark: bool) -> None:
        value = "dark" if dark else "light"
        self("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": value}])

    def value(self, expression: str) -> Any:
        """What an expression of JavaScript is; a promise is awaited."""
        answer = self("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, f"{expression}: {answer['exceptionDetails']}"
        return answer["result"].get("value")

    def wait(self, expression: str) -> None:
        """Until an expression (a promise is awaited) is true; while a page is not there yet, it is not."""
        end = time.monotonic() + SECONDS
        while not self._holds(expression):
            assert time.monotonic() < end, f"never true: {expression}; {self.complaints}"
            time.sleep(0.02)

    def _holds(self, expression: str) -> bool:
        try:
            return self.value(
                f"(async () => {{ try {{ return Boolean(await ({expression})) }} catch {{ return false }} }})()"
            )
        except PageGone:
            return False

    def places(self, selector: str, shares: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
        """Places of the window at these shares of an element's width and height."""
        left, top, width, height = self.value(
            "(({left, top, width, height}) => [left, top, width, height])"
            f"(document.querySelector({json.dumps(selector)}).getBoundingClientRect())"
        )
        return [(left + width * x, top + height * y) for x, y in shares]

    def middle(self, selector: str) -> tuple[float, float]:
        """Of an element that can be seen."""
        (left, top), (right, bottom), middle = self.places(selector, [(0, 0), (1, 1), (0.5, 0.5)])
        assert left < right and top < bottom, f"{selector} is not shown"
        return middle

    def click(self, selector: str) -> None:
        self.drag([self.middle(selector)])

    def drag(self, places: Sequence[tuple[float, float]]) -> None:
        """Press the mouse at the first place, move it over the others, and release it at the last."""
        self._mouse("mouseMoved", places[0], buttons=0)
        self._mouse("mousePressed", places[0], button="left", clickCount=1)
        for place in places[1:]:
            self._mouse("mouseMoved", place, button="left")
        self._mouse("mouseReleased", places[-1], button="left", buttons=0, clickCount=1)

    def _mouse(self, kind: str, place: tuple[float, float], buttons: int = 1, **rest: Any) -> None:
        self("Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], buttons=buttons, **rest)

    def touch(self, *fingers: Sequence[tuple[float, float]]) -> None:
        """Lay fingers down, each at the first of its places, move them over the others together, and lift them."""
        for kind, places in [("touchStart", 0), *(("touchMove", i) for i in range(1, len(fingers[0])))]:
            points = [{"x": finger[places][0], "y": finger[places][1], "id": i} for i, finger in enumerate(fingers)]
            self("Input.dispatchTouchEvent", type=kind, touchPoints=points)
        self("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])

    def press(self, key: str, *, ctrl: bool = False, shift: bool = False) -> None:
        modifiers = CTRL * ctrl + 8 * shift
        text = {"text": key} if len(key) == 1 and not ctrl else {"text": "\r"} if key == "Enter" else {}
        codes = {"Enter": 13, "Escape": 27, "Tab": 9, "Delete": 46, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39}
        code = codes.get(key, ord(key.upper()) if len(key) == 1 else 0)
        common = {"key": key, "modifiers": modifiers, "windowsVirtualKeyCode": code}
        self("Input.dispatchKeyEvent", type="keyDown", **common, **text)
        self("Input.dispatchKeyEvent", type="keyUp", **common)

    def choose_file(self, selector: str, path: Path) -> None:
        """Give a file to an input element, as its dialog would."""
        node = self("Runtime.evaluate", expression=f"document.querySelector({json.dumps(selector)})")["result"]
        self("DOM.setFileInputFiles", files=[str(path)], objectId=node["objectId"])

    def drop(self, place: tuple[float, float], path: Path) -> None:
        """Drag a file from the desktop to a place, and let go."""
        data = {"items": [], "files": [str(path)], "dragOperationsMask": 19}  # copy, link or move
        for kind in (
            "dragEnter",
            "dragOver",
            "dragOver",
            "drop",
        ):  # the page's answer to the first counts at the second
            self("Input.dispatchDragEvent", type=kind, x=place[0], y=place[1], data=data)

    def screenshot(self) -> bytes:
        """A PNG file of what is seen."""
        return base64.b64decode(self("Page.captureScreenshot", format="png")["data"])


def _high(descriptor: int) -> int:
    """The same pipe under a number that is none of the child's, 3 and 4."""
    high = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 10)
    os.close(descriptor)
    return high
