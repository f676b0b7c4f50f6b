"""A connection to Arti's RPC port, kept up: how far Arti is, and where it listens.

Theory of operation
    `ArtiRpc` connects to the unix socket, authenticates, and asks for the status and the
    SOCKS port, often while Arti starts and now and then afterwards.  When the
    connection breaks it connects again with back-off.

Invariants
    While Arti does not answer, `socks` leads nowhere: what listens at the port of an Arti
    that has gone may be anybody's.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

from isoproxy.errors import OperationError
from isoproxy.net.backoff import Backoff
from isoproxy.net.endpoint import Endpoint
from isoproxy.observe.log import logger
from isoproxy.tor.arti import wire
from isoproxy.tor.control.events import Bootstrap
from isoproxy.tor.observers import Observers

ANSWER_S: Final = 10.0
"""How long Arti may take to answer."""
STARTING_S: Final = 0.5
READY_S: Final = 5.0
"""Seconds between two questions, while Arti starts and afterwards."""

_log = logger("arti")


class ArtiSession:
    """An authenticated connection; each question raises OSError or OperationError."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._numbers = itertools.count(1)
        self._session = self._client = wire.CONNECTION

    async def authenticate(self) -> None:
        wire.check_banner(await self._line())
        answer = await self._ask(self._session, "auth:authenticate", scheme="auth:inherent")
        self._session = wire.session(answer)
        self._client = wire.client(await self._ask(self._session, "arti:get_client"))

    async def bootstrap(self) -> Bootstrap:
        """How far Arti's start has come."""
        return wire.bootstrap(await self._ask(self._client, "arti:get_client_status"))

    async def socks_port(self) -> Endpoint:
        """Where Arti's SOCKS port is."""
        return wire.socks_port(await self._ask(self._session, "arti:get_proxy_info"))

    async def _ask(self, target: str, method: str, **parameters: str) -> dict[str, Any]:
        number = next(self._numbers)
        self._writer.write(wire.request(number, target, method, **parameters))
        return wire.result(number, await self._line())

    async def _line(self) -> bytes:
        try:
            async with asyncio.timeout(ANSWER_S):
                await self._writer.drain()
                return await self._reader.readuntil(b"\n")
        except (EOFError, asyncio.LimitOverrunError):
            raise OperationError("Arti ended the connection to its RPC port") from None


@contextlib.asynccontextmanager
async def session(endpoint: Endpoint) -> AsyncIterator[ArtiSession]:
    """A connection to the RPC socket at `endpoint`; raises OSError or OperationError."""
    assert endpoint.path is not None, "Arti's RPC port is a unix socket"
    reader, writer = await asyncio.open_unix_connection(endpoint.path, limit=wire.MAX_LINE)
    try:
        arti = ArtiSession(reader, writer)
        await arti.authenticate()
        yield arti
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


class ArtiRpc:
    """What a running Arti says of itself.

    endpoint    its RPC socket
    socks       where its SOCKS port is; nowhere while it does not answer
    bootstrap   how far its start has come; None while it does not answer
    """

    def __init__(self, endpoint: Endpoint, backoff: Backoff | None = None) -> None:
        self.endpoint = endpoint
        self.socks = Endpoint()
        self.bootstrap: Bootstrap | None = None
        self._backoff = backoff or Backoff(0.1, 10.0)
        self._changes: Observers[Bootstrap | None] = Observers()
        self._task: asyncio.Task[None] | None = None

    def on_change(self, callback: Callable[[Bootstrap | None], None]) -> Callable[[], None]:
        """Tell `callback` each change of the bootstrap; the result ends that."""
        return self._changes.add(callback)

    def start(self) -> None:
        """Connect, and stay connected until `close`."""
        self._task = asyncio.create_task(self._follow(), name="arti's rpc")

    async def close(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        self._set(Endpoint(), None)

    async def _follow(self) -> None:
        while True:
            problem: Exception | None = None
            try:
                await self._one_connection()
            except (OSError, OperationError) as error:
                problem = error
            if self.bootstrap is not None:
                _log.warn("arti_does_not_answer", error=problem)
            self._set(Endpoint(), None)
            await asyncio.sleep(self._backoff.next())

    async def _one_connection(self) -> None:
        async with session(self.endpoint) as arti:
            while True:
                status = await arti.bootstrap()
                self._set(await arti.socks_port(), status)
                self._backoff.reset()
                await asyncio.sleep(READY_S if status.percent == 100 else STARTING_S)

    def _set(self, socks: Endpoint, bootstrap: Bootstrap | None) -> None:
        changed = (self.socks, self.bootstrap) != (socks, bootstrap)
        self.socks, self.bootstrap = socks, bootstrap
        if changed:
            self._changes.notify(bootstrap)
