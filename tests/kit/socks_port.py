"""A SocksPort for unit tests of what talks to one: it says what the test tells it to.

The end-to-end tests use the real tor; this one exists to answer wrongly, late, in pieces
or not at all, which tor does not do on demand.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from isoproxy.errors import RemoteProtocolError
from isoproxy.net.endpoint import Endpoint
from isoproxy.socks import Request, Server

Serve = Callable[[Request, asyncio.StreamReader, asyncio.StreamWriter, Server], Awaitable[None]]


async def echo(
    request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, server: Server
) -> None:
    """Accept the stream and send back what comes, until its end."""
    writer.write(server.succeed() + server.leftover)
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


def refusing(reply: bytes) -> Serve:
    """Answer every request with `reply` and close."""

    async def serve(
        request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, server: Server
    ) -> None:
        writer.write(reply)

    return serve


async def silent(
    request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, server: Server
) -> None:
    """Never answer."""
    await reader.read()


@dataclass
class SocksPort:
    """Listens on a unix socket, or on a loopback address when `path` is None.

    `requests` records what was asked for, credentials included.
    """

    serve: Serve = echo
    path: Path | None = None
    requests: list[Request] = field(default_factory=list)
    endpoint: Endpoint = field(default_factory=Endpoint)
    open: int = 0
    _server: asyncio.Server | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def __aenter__(self) -> SocksPort:
        if self.path is not None:
            self._server = await asyncio.start_unix_server(self._accept, self.path)
            self.endpoint = Endpoint.unix(str(self.path))
        else:
            self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
            self.endpoint = Endpoint.tcp(*self._server.sockets[0].getsockname())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.open += 1
        try:
            await self._talk(reader, writer)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self.open -= 1
            self._tasks.discard(task)
            writer.close()
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server = Server(require_auth=True)
        request = None
        while request is None:
            data = await reader.read(4096)
            if not data:
                return
            try:
                request = server.receive(data)
            except RemoteProtocolError as error:
                writer.write(error.reply)
                return
            writer.write(server.data_to_send())
        self.requests.append(request)
        await self.serve(request, reader, writer, server)
