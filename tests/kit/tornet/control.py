"""A small client of Tor's control port that hides nothing (control-spec §2, §3, §4).

`Control.cmd` returns reply lines verbatim; events arrive, in order, on `Control.events`.
Bytes are kept one for one (as Latin-1), since user names in events may hold any byte.
"""

from __future__ import annotations

import contextlib
import queue
import re
import socket
import threading
from types import TracebackType
from typing import IO, Self

Address = str | tuple[str, int]
"""A unix socket's path, or (host, port)."""


class TorNetError(Exception):
    """The network, or one of its nodes, did not do what was asked of it."""


class Control:
    """One authenticated control connection, with a thread that reads from it."""

    def __init__(self, address: Address, cookie_file: str | None = None, timeout: float = 30.0):
        self._timeout = timeout
        self._socket = _connect(address, timeout)
        self._replies: queue.Queue[list[str] | None] = queue.Queue()
        self._one_at_a_time = threading.Lock()
        self.events: queue.Queue[str | None] = queue.Queue()
        """Every line of every event; None when the connection has ended."""
        self._reader = threading.Thread(target=self._read, name="control", daemon=True)
        self._reader.start()
        secret = ""
        try:
            if cookie_file is not None:
                with open(cookie_file, "rb") as file:
                    secret = " " + file.read().hex()
            self.check("AUTHENTICATE" + secret)
        except BaseException:
            self.close()
            raise

    def cmd(self, line: str) -> list[str]:
        """Send one command and return the lines of its reply, a data block's included."""
        with self._one_at_a_time:
            self._socket.sendall(line.encode("latin-1") + b"\r\n")
            try:
                reply = self._replies.get(timeout=self._timeout)
            except queue.Empty:
                raise TorNetError(f"{line.split()[0]}: no reply in {self._timeout} s") from None
        if reply is None:
            raise ConnectionError("tor closed the control connection")
        return reply

    def check(self, line: str) -> list[str]:
        """Like `cmd`; a reply that is not a success (25x) raises TorNetError."""
        reply = self.cmd(line)
        if not reply[-1].startswith("25"):
            raise TorNetError(f"{line.split()[0]}: {reply}")
        return reply

    def getinfo(self, key: str) -> str:
        """The value of one GETINFO key, of one line or of many."""
        reply = self.check("GETINFO " + key)
        if reply[0].startswith("250+"):
            return "\n".join(reply[1 : reply.index(".", 1)])
        return reply[0].split("=", 1)[1]

    def settle(self) -> None:
        """Return when all events of what tor has done so far are in `events`.

        tor answers a command at once, but hands out events at the end of its main loop's
        round; the second answer is thus later than the events before the first command.
        """
        for _ in range(2):
            self.check("GETINFO version")

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        if self._reader is not threading.current_thread():
            self._reader.join(5)

    def _read(self) -> None:
        try:
            with self._socket.makefile("rb") as stream:
                self._take_replies(stream)
        except (OSError, ValueError):
            pass  # closed, by us or by tor: said below
        self._replies.put(None)
        self.events.put(None)

    def _take_replies(self, stream: IO[bytes]) -> None:
        reply: list[str] = []
        in_data = False
        for raw in stream:
            if not raw.endswith(b"\n"):
                return  # cut off when the connection was closed
            line = raw.rstrip(b"\r\n").decode("latin-1")
            reply.append(line)
            if in_data:
                in_data = line != "."
            elif line[3:4] == "+":
                in_data = True
            elif line[3:4] == " ":
                if line.startswith("650"):
                    for event in reply:
                        self.events.put(event)
                else:
                    self._replies.put(reply)
                reply = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()


def _connect(address: Address, timeout: float) -> socket.socket:
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    connection = socket.socket(family)
    connection.settimeout(timeout)
    try:
        connection.connect(address)
    except OSError:
        connection.close()
        raise
    connection.settimeout(None)
    return connection


def listener_addresses(reply: str) -> list[Address]:
    """What GETINFO net/listeners/* says, as addresses."""
    found: list[Address] = []
    for text in re.findall(r'"([^"]*)"', reply):
        if text.startswith("unix:"):
            found.append(text[5:])
        else:
            host, port = text.rsplit(":", 1)
            found.append((host.strip("[]"), int(port)))
    return found
