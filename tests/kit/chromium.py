"""Chromium without a window, spoken to over the pipe of its DevTools protocol.

    with Chromium(tmp_path) as chromium:
        page = chromium.open("http://127.0.0.1:9252/")
        page.wait_for("document.title !== ''")
        page.screenshot(path)
        page.complaints, page.requests

Theory of operation
    `--remote-debugging-pipe` makes Chromium read commands at descriptor 3 and write answers
    and events at descriptor 4, each a JSON object that ends in a NUL byte.  The profile is
    new and empty, and everything that Chromium does on its own account is switched off.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

_FLAGS: Final = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)
# Chromium wants its pipes at the descriptors 3 and 4.
_AT_3_AND_4: Final = """\
import fcntl, os, sys
orders, answers = (fcntl.fcntl(int(fd), fcntl.F_DUPFD, 10) for fd in sys.argv[1:3])
os.dup2(orders, 3)
os.dup2(answers, 4)
os.execvp(sys.argv[3], sys.argv[3:])
"""
_ANSWER_S: Final = 60.0


class ChromiumError(Exception):
    """Chromium did not do as told, or said nothing for too long."""


class Page:
    """One tab."""

    def __init__(self, chromium: Chromium, session: str) -> None:
        self._chromium = chromium
        self._session = session
        self.complaints: list[str] = []
        """Errors and warnings of its console: exceptions, failures, forbidden loads."""
        self.requests: list[str] = []
        """The URL of everything it asked for."""
        self._login: dict[str, str] = {}

    def tell(self, method: str, **parameters: object) -> dict[str, Any]:
        """One command of the DevTools protocol and its result."""
        return self._chromium.tell(method, self._session, **parameters)

    def look(self, *, width: int, height: int, dark: bool = False, scale: float = 1) -> None:
        """Have a screen of so many pixels of CSS, in a light or dark room."""
        self.tell(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=width < 640,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.tell("Emulation.setEmulatedMedia", features=[scheme])

    def value(self, expression: str) -> Any:
        """What a JavaScript expression yields on the page."""
        answer = self.tell("Runtime.evaluate", expression=expression, returnByValue=True)
        if "exceptionDetails" in answer:
            raise ChromiumError(f"{expression}: {answer['exceptionDetails']['text']}")
        return answer["result"].get("value")

    def wait_for(self, expression: str, timeout: float = 30.0) -> None:
        """Return once `expression` is true on the page."""
        deadline = time.monotonic() + timeout
        while not self.value(expression):
            if time.monotonic() > deadline:
                raise ChromiumError(f"not in {timeout} s: {expression}")
            time.sleep(0.1)

    def log_in(self, user: str, password: str) -> None:
        """Give these to whoever asks for a user name from now on, as a person in the dialog."""
        self._login = {"username": user, "password": password}
        self.tell("Fetch.enable", handleAuthRequests=True)

    def load(self, url: str) -> None:
        """Go to another page."""
        answer = self.tell("Page.navigate", url=url)
        if "errorText" in answer:
            raise ChromiumError(f"{url}: {answer['errorText']}")

    def screenshot(self, path: Path, *, whole: bool = True) -> None:
        """Write a PNG of the page, `whole` or as far as the screen shows it."""
        answer = self.tell("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(answer["data"]))

    def hear(self, method: str, parameters: dict[str, Any]) -> None:
        """Take an event."""
        if method == "Fetch.requestPaused":
            self._say("Fetch.continueRequest", requestId=parameters["requestId"])
        elif method == "Fetch.authRequired":
            answer = {"response": "ProvideCredentials", **self._login}
            self._say(
                "Fetch.continueWithAuth",
                requestId=parameters["requestId"],
                authChallengeResponse=answer,
            )
        elif method == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(str(parameters["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "warning"):
            self.complaints.append(str(parameters["args"]))
        elif method == "Log.entryAdded" and parameters["entry"]["level"] in ("error", "warning"):
            self.complaints.append(f"{parameters['entry']['text']} {parameters['entry']}")

    def _say(self, method: str, **parameters: object) -> None:
        """A command whose result nobody waits for."""
        self._chromium.say(method, self._session, parameters)


class Chromium:
    """A browser of its own; a context manager.

    `directory` holds its profile; `flags` are more words of its command line.
    """

    def __init__(self, directory: Path, flags: Sequence[str] = ()) -> None:
        self._directory = directory
        self._flags = [*_FLAGS, *flags]
        self._pages: dict[str, Page] = {}
        self._last = 0
        self._rest = b""

    def open(self, url: str, **look: Any) -> Page:
        """A new tab that has begun to load `url`; `look` as for `Page.look`."""
        target = self.tell("Target.createTarget", url="about:blank")["targetId"]
        attached = self.tell("Target.attachToTarget", targetId=target, flatten=True)
        page = self._pages[attached["sessionId"]] = Page(self, attached["sessionId"])
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.tell(f"{domain}.enable")
        if look:
            page.look(**look)
        page.load(url)
        return page

    def say(self, method: str, session: str | None, parameters: dict[str, object]) -> int:
        """Send one command; returns its number."""
        self._last += 1
        command: dict[str, object] = {"id": self._last, "method": method, "params": parameters}
        if session is not None:
            command["sessionId"] = session
        os.write(self._orders, json.dumps(command).encode() + b"\0")
        return self._last

    def tell(self, method: str, session: str | None = None, **parameters: object) -> dict[str, Any]:
        """One command to the browser, or to a tab's `session`, and its result."""
        number = self.say(method, session, parameters)
        while True:
            message = self._next()
            if message.get("id") == number:
                if "error" in message:
                    raise ChromiumError(f"{method}: {message['error']}")
                result: dict[str, Any] = message["result"]
                return result
            page = self._pages.get(message.get("sessionId", ""))
            if page is not None and "method" in message:
                page.hear(message["method"], message["params"])

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            if not select.select([self._answers], [], [], _ANSWER_S)[0]:
                raise ChromiumError(f"Chromium said nothing for {_ANSWER_S:.0f} s")
            data = os.read(self._answers, 1 << 20)
            if not data:
                raise ChromiumError(f"Chromium ended: {self._log.read_text()[-2000:]}")
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        return message

    def __enter__(self) -> Self:
        program = shutil.which("chromium")
        if program is None:
            raise ChromiumError("there is no chromium; run scripts/system-packages test")
        profile = self._directory / "chromium"
        self._log = self._directory / "chromium.log"
        orders, self._orders = os.pipe()
        self._answers, answers = os.pipe()
        command = [sys.executable, "-c", _AT_3_AND_4, str(orders), str(answers), program]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*command, *self._flags, f"--user-data-dir={profile}"],
                pass_fds=(orders, answers),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "HOME": str(self._directory)},
            )
        os.close(orders)
        os.close(answers)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                self.tell("Browser.close")
            self._process.wait(20 if error is None else 0.1)
        except (OSError, ChromiumError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        finally:
            os.close(self._orders)
            os.close(self._answers)
