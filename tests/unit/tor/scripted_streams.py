"""A control port that behaves as Tor's does towards a controller, on a unix socket."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from pathlib import Path

from isoproxy.net.endpoint import Endpoint

ISO = (
    b" CLIENT_PROTOCOL=SOCKS5 NYM_EPOCH=0 SESSION_GROUP=-6"
    b" ISO_FIELDS=SOCKS_USERNAME,SOCKS_PASSWORD,CLIENTADDR,SESSION_GROUP,NYM_EPOCH"
)


class StreamingTor:
    """Streams that wait, and what a controller did about them.

    `conf` answers GETCONF; `replies` overrides the reply to a command's beginning; the
    lines that came are in `log`, by connection in `asked`.  `unwritten` events go out only
    when the connection that follows events is asked something.
    """

    def __init__(self, path: Path) -> None:
        self.endpoint = Endpoint.unix(str(path))
        self._path = path
        self.conf = {"__LeaveStreamsUnattached": "1", "AutomapHostsOnResolve": "0"}
        self.version = "0.4.9.11"
        self.bootstrap = b'NOTICE BOOTSTRAP PROGRESS=100 TAG=done SUMMARY="Done"'
        self.auth = b"250-AUTH METHODS=NULL\r\n"
        self.replies: dict[bytes, bytes] = {}
        self.silent: set[bytes] = set()
        self.log: list[bytes] = []
        self.asked: list[list[bytes]] = []
        self.listed: dict[int, bytes] = {}
        self.mappings: list[bytes] = []
        self.targets: dict[int, bytes] = {}
        self.attached: dict[int, bytes] = {}
        self.closed: dict[int, bytes] = {}
        self.unwritten: list[bytes] = []
        self._followers: list[asyncio.StreamWriter] = []
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[StreamingTor]:
        self._server = await asyncio.start_unix_server(self._serve, self._path)
        try:
            yield self
        finally:
            self._server.close()
            self.hang_up()

    def hang_up(self) -> None:
        """Close every connection, as a Tor that ends."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()
        self._followers.clear()

    @property
    def connections(self) -> int:
        return len(self._writers)

    def new(
        self, number: int, target: bytes, *, status: bytes = b"NEW", source: bytes = b"127.0.0.1"
    ) -> None:
        """A stream comes in and waits."""
        self.listed[number] = b"%d %s 0 %s" % (number, status, target)
        self.targets[number] = target
        head = b"650 STREAM %d %s 0 %s" % (number, status, target)
        self.emit(head + b" SOURCE_ADDR=%s:5 PURPOSE=USER" % source + ISO)
        self.emit(b"650 STREAM %d CONTROLLER_WAIT 0 %s" % (number, target) + ISO)

    def end(self, number: int) -> None:
        """The client closes the stream."""
        line = self.listed.pop(number).split(b" ", 2)[2]
        self.emit(b"650 STREAM %d CLOSED %s REASON=DONE" % (number, line) + ISO)

    def emit(self, line: bytes) -> None:
        """Write raw bytes to all that follow STREAM events."""
        for writer in self._followers:
            writer.write(line + b"\r\n")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        log: list[bytes] = []
        self.asked.append(log)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                line = (await reader.readuntil(b"\r\n"))[:-2]
                self.log.append(line)
                log.append(line)
                if writer in self._followers:
                    while self.unwritten:
                        self.emit(self.unwritten.pop(0))
                if line.partition(b" ")[0] not in self.silent:
                    writer.write(self._reply(line, writer))

    def _reply(self, line: bytes, writer: asyncio.StreamWriter) -> bytes:
        for beginning, reply in self.replies.items():
            if line.startswith(beginning):
                return reply
        verb, *words = line.split(b" ")
        if verb == b"PROTOCOLINFO":
            return b"250-PROTOCOLINFO 1\r\n" + self.auth + b"250 OK\r\n"
        if verb == b"SETEVENTS":
            self._followers.append(writer)
        elif verb == b"GETCONF":
            name = words[0].decode()
            return f"250 {name}={self.conf[name]}\r\n".encode()
        elif verb == b"SETCONF":
            name, _, value = words[0].decode().partition("=")
            self.conf[name] = value
        elif verb == b"GETINFO":
            return self._info(words)
        elif verb.endswith(b"STREAM"):
            return self._stream(verb, words)
        return b"250 OK\r\n"

    def _info(self, keys: list[bytes]) -> bytes:
        answer = b""
        for key in keys:
            if key == b"version":
                answer += b"250-version=%s\r\n" % self.version.encode()
            elif key == b"status/bootstrap-phase":
                answer += b"250-%s=%s\r\n" % (key, self.bootstrap)
            elif key == b"stream-status":
                lines = [line + b"\r\n" for line in self.listed.values()]
                answer += b"250+stream-status=\r\n" + b"".join(lines) + b".\r\n"
            elif key == b"address-mappings/all":
                lines = [line + b"\r\n" for line in self.mappings]
                answer += b"250+address-mappings/all=\r\n" + b"".join(lines) + b".\r\n"
            else:
                return b'552 Unrecognized key "%s"\r\n' % key
        return answer + b"250 OK\r\n"

    def _stream(self, verb: bytes, words: list[bytes]) -> bytes:
        number = int(words[0])
        if number not in self.listed:
            return b'552 Unknown stream "%d"\r\n' % number
        if verb == b"REDIRECTSTREAM":
            port = self.targets[number].rpartition(b":")[2]
            self.targets[number] = words[1] + b":" + port
            self.listed[number] = b"%d NEW 0 %s" % (number, self.targets[number])
        elif verb == b"ATTACHSTREAM":
            self.attached[number] = self.targets[number]
            self.listed[number] = re.sub(
                rb" NEW(RESOLVE)? 0 ", b" SENTCONNECT 3 ", self.listed[number]
            )
        else:
            self.closed[number] = words[1]
            del self.listed[number]
        return b"250 OK\r\n"
