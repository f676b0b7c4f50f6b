"""Firefox without a window, driven by Marionette over a socket on loopback.

A message is its length in decimal, a colon, and JSON: [0, number, command, parameters] from us,
[1, number, error, result] from Firefox.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

_START_S: Final = 90.0
_ANSWER_S: Final = 60.0
_ELEMENT: Final = "element-6066-11e4-a52e-4f735466cecf"
"""The key of a reference to an element (WebDriver §12)."""
_RETURN: Final = "\ue006"
"""The key's code point (WebDriver §17.4.2)."""

PROGRAM: Final = shutil.which("firefox-esr")
"""Debian's Firefox, if it is here."""


class FirefoxError(Exception):
    """Firefox did not do as told; the text is what it says, of a page what its error page is."""


class Firefox:
    """A running Firefox with the preferences of `preferences`, in a profile of its own."""

    def __init__(self, directory: Path, preferences: str) -> None:
        self._directory = directory
        self._number = 0
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port: int = free.getsockname()[1]
        profile = directory / "profile"
        profile.mkdir()
        own = f'user_pref("marionette.port", {self._port});\n'
        (profile / "user.js").write_text(preferences + own)

    def open(self, url: str) -> None:
        """Load a page, to its end."""
        self._tell("Marionette:SetContext", value="content")
        self._tell("WebDriver:Navigate", url=url)

    def type_address(self, text: str) -> None:
        """Type `text` and Return in the address bar, as a person does."""
        self._tell("Marionette:SetContext", value="chrome")
        found = self._tell("WebDriver:FindElement", using="css selector", value="#urlbar-input")
        element = found["value"][_ELEMENT]
        self._tell("WebDriver:ElementSendKeys", id=element, text=text + _RETURN)

    def value(self, expression: str) -> Any:
        """What a JavaScript expression yields on the page."""
        self._tell("Marionette:SetContext", value="content")
        return self._tell("WebDriver:ExecuteScript", script=f"return {expression}", args=[])[
            "value"
        ]

    def trust(self, root: str) -> None:
        """Import a root for web sites, given in base64."""
        self._tell("Marionette:SetContext", value="chrome")
        database = 'Components.classes["@mozilla.org/security/x509certdb;1"]'
        service = f"{database}.getService(Components.interfaces.nsIX509CertDB)"
        script = f'{service}.addCertFromBase64(arguments[0], "C,,")'
        self._tell("WebDriver:ExecuteScript", script=script, args=[root])

    def identity(self) -> str:
        """What the padlock says: "verifiedDomain" where the page came over TLS that it believes."""
        self._tell("Marionette:SetContext", value="chrome")
        script = 'return document.getElementById("identity-box").className'
        return str(self._tell("WebDriver:ExecuteScript", script=script, args=[])["value"]).split()[
            0
        ]

    def _tell(self, command: str, **parameters: object) -> dict[str, Any]:
        self._number += 1
        message = json.dumps([0, self._number, command, parameters]).encode()
        self._socket.sendall(b"%d:%b" % (len(message), message))
        _, number, error, result = self._hear()
        assert number == self._number
        if error is not None:
            raise FirefoxError(f"{error['error']}: {error['message']}")
        return dict(result)

    def _hear(self) -> Any:
        length = b""
        while not length.endswith(b":"):
            length += self._read(1)
        return json.loads(self._read(int(length[:-1])))

    def _read(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            more = self._socket.recv(length - len(data))
            assert more, "Firefox ended"
            data += more
        return data

    def __enter__(self) -> Self:
        assert PROGRAM is not None
        options = ("--headless", "--marionette", "--remote-allow-system-access", "--no-remote")
        self._process = subprocess.Popen(
            [PROGRAM, *options, "--profile", str(self._directory / "profile")],
            env={**os.environ, "HOME": str(self._directory)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            self._socket = self._connect()
            self._hear()
            self._tell("WebDriver:NewSession")
        except BaseException:
            self._end()
            raise
        return self

    def _connect(self) -> socket.socket:
        deadline = time.monotonic() + _START_S
        while True:
            try:
                return socket.create_connection(("127.0.0.1", self._port), timeout=_ANSWER_S)
            except ConnectionRefusedError:
                assert self._process.poll() is None, "Firefox ended"
                assert time.monotonic() < deadline, "Firefox does not listen"
                time.sleep(0.1)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._socket.close()
        self._end()

    def _end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
