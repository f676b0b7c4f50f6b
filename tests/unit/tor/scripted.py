"""A stand-in for tor's control port, and an independent client for the real SocksPort."""

from __future__ import annotations

import asyncio
import re
import socket
from pathlib import Path
from types import TracebackType

from tests.kit.waiting import until

PROTOCOLINFO = (
    b'250-PROTOCOLINFO 1\r\n250-AUTH METHODS=NULL\r\n250-VERSION Tor="0.4.9.11"\r\n250 OK\r\n'
)
UPLOADED = b"650 HS_DESC UPLOADED %s UNKNOWN $9CF77A9F7190283AD919645650CE0BD937029630~exit2\r\n"
ANSWERS: dict[str, bytes] = {
    "PROTOCOLINFO 1": PROTOCOLINFO,
    "GETINFO version": b"250-version=0.4.9.11\r\n250 OK\r\n",
    "GETINFO circuit-status": b"250-circuit-status=\r\n250 OK\r\n",
    "GETINFO status/bootstrap-phase": (
        b'250-status/bootstrap-phase=NOTICE BOOTSTRAP PROGRESS=100 TAG=done SUMMARY="Done"\r\n'
        b"250 OK\r\n"
    ),
}


class ScriptedTor:
    """Listens on a unix socket; answers from `answers`, otherwise 250 OK; b"" is silence.

    With `uploads`, a directory takes each onion service's descriptor at once.
    """

    def __init__(self, path: Path, answers: dict[str, bytes] | None = None) -> None:
        self.path = path
        self.answers = {**ANSWERS, **(answers or {})}
        self.commands: list[str] = []
        self.connections: list[asyncio.StreamWriter] = []
        self.accepted = 0
        self.uploads = True

    async def __aenter__(self) -> ScriptedTor:
        self._server = await asyncio.start_unix_server(self._serve, self.path)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.close()
        self.hang_up()
        await until(lambda: not self.connections)

    def say(self, data: bytes) -> None:
        """Send `data` on every connection, asked or not."""
        for writer in self.connections:
            writer.write(data)

    def hang_up(self) -> None:
        """Close every connection."""
        for writer in self.connections:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self.connections.append(writer)
        try:
            while line := await reader.readline():
                command = line.decode().rstrip("\r\n")
                self.commands.append(command)
                answer = self.answers.get(command, b"250 OK\r\n")
                writer.write(answer)
                if self.uploads and (added := re.search(rb"ServiceID=(\w+)", answer)):
                    writer.write(UPLOADED % added[1])
        except ConnectionError:
            pass
        finally:
            self.connections.remove(writer)
            writer.close()


def open_stream(socks: str, username: bytes, password: bytes, host: bytes, port: int) -> bytes:
    """Through Tor's unix SocksPort to an echo server and back: b"hello".

    If Tor refuses the stream: the first two bytes of its reply.
    """
    with socket.socket(socket.AF_UNIX) as stream:
        stream.settimeout(10)
        stream.connect(socks)
        stream.sendall(b"\5\1\2")
        assert stream.recv(2) == b"\5\2"
        stream.sendall(
            b"\1" + bytes([len(username)]) + username + bytes([len(password)]) + password
        )
        assert stream.recv(2) == b"\1\0"
        stream.sendall(b"\5\1\0\3" + bytes([len(host)]) + host + port.to_bytes(2, "big"))
        reply = stream.recv(22)[:2]
        if reply != b"\5\0":
            return reply
        stream.sendall(b"hello")
        return stream.recv(5)
