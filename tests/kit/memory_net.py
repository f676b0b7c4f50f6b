"""Name servers without sockets: connections in memory, on a virtual clock hours take seconds.

A `MemoryNet` stands where the dialer and the TLS policy stand.  What each server sees is kept
in a `Seen` for each of its connections: when it was opened and ended, and what was asked.
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

from isoproxy.errors import DialError, ErrorKind
from isoproxy.isolation import Credentials, IsolationKey, Purpose, upstream_credentials
from isoproxy.namecoin.electrum.servers import NameServer
from isoproxy.net.target import Target
from tests.kit.electrum_server import Cut, ElectrumServer, Fault, Silence


@dataclass(eq=False)
class Seen:
    """One connection as its server sees it; times are those of the loop.

    `client` says whose it is: the truth, which a server does not know.
    """

    label: str
    opened: float
    client: str = ""
    ended: float | None = None
    requests: list[tuple[float, str, list[Any]]] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    reply: Callable[[dict[str, Any]], None] = lambda message: None

    @property
    def names(self) -> list[tuple[float, str, list[Any]]]:
        """The requests about names."""
        return [one for one in self.requests if "name" in one[1] or "scripthash" in one[1]]


class MemoryNet:
    """The servers `by_label`, as one client, `client`, reaches them.

    A circuit takes `dial()` s, each message `delay()` s in each direction.  A request of a
    method is answered if `answers(seen, method)`.
    """

    def __init__(
        self,
        by_label: dict[str, ElectrumServer],
        seen: list[Seen] | None = None,
        *,
        client: str = "",
        delay: Callable[[], float] = lambda: 0.0,
        dial: Callable[[], float] = lambda: 0.0,
        answers: Callable[[Seen, str], bool] = lambda seen, method: True,
    ) -> None:
        self._by_label = by_label
        self._client = client
        self._delay = delay
        self._dial = dial
        self._answers = answers
        self.seen = [] if seen is None else seen
        self.credentials: list[Credentials] = []
        self.dead: set[str] = set()

    async def connect(
        self,
        key: IsolationKey,
        purpose: Purpose,
        target: Target,
        *,
        client: bytes = b"",
        timeout: float | None = None,
    ) -> socket.socket:
        """As `isoproxy.tor.dialer.Dialer.connect`; what it gives is for `open` alone."""
        self.credentials.append(upstream_credentials(key, purpose))
        await asyncio.sleep(self._dial())
        if f"{target.host}:{target.port}" in self.dead:
            raise DialError(kind=ErrorKind.CONNECTION_REFUSED)
        return cast("socket.socket", None)

    async def open(
        self, sock: socket.socket | None, server: NameServer
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """As `TlsPolicy.open`."""
        loop = asyncio.get_running_loop()
        seen = Seen(server.label, loop.time(), self._client)
        self.seen.append(seen)
        reader = asyncio.StreamReader()
        writer = _Writer(seen, reader, self._by_label[server.label], self._delay, self._answers)
        return reader, cast("asyncio.StreamWriter", writer)


class _Writer:
    """The client's end of a connection; `transport` is itself."""

    def __init__(
        self,
        seen: Seen,
        reader: asyncio.StreamReader,
        server: ElectrumServer,
        delay: Callable[[], float],
        answers: Callable[[Seen, str], bool],
    ) -> None:
        self.seen = seen
        self._answers = answers
        self._reader = reader
        self._server = server
        self._delay = delay
        self._loop = asyncio.get_running_loop()
        self.transport = self
        seen.reply = self._send

    def write(self, data: bytes) -> None:
        if self.seen.ended is None:
            for line in data.splitlines():
                self._loop.call_later(self._delay(), self._arrived, line)

    def abort(self) -> None:
        if self.seen.ended is None:
            self.seen.ended = self._loop.time()

    def _arrived(self, line: bytes) -> None:
        message = json.loads(line)
        method, params = message["method"], message["params"]
        self.seen.requests.append((self._loop.time(), method, params))
        self.seen.sizes.append(len(line))
        self._server.requests.append((method, params))
        if not self._answers(self.seen, method):
            return
        self._server.asking = self.seen
        reply: dict[str, Any] = {"jsonrpc": "2.0", "id": message["id"]}
        try:
            honest = self._server._honest(method, params)
            reply["result"] = self._server.lie(method, params, honest)
        except Fault as fault:
            reply["error"] = {"code": fault.code, "message": "no"}
        except Silence:
            return
        except Cut:
            self._reader.feed_eof()
            return
        self._send(reply)

    def _send(self, message: dict[str, Any]) -> None:
        data = json.dumps(message).encode() + b"\n"
        self._loop.call_later(self._delay() + self._server.delay, self._feed, data)

    def _feed(self, data: bytes) -> None:
        if self.seen.ended is None:
            self._reader.feed_data(data)


def over_tor(chance: random.Random) -> tuple[Callable[[], float], Callable[[], float]]:
    """Delays of messages and of new circuits as Tor has them, roughly."""
    return (
        lambda: chance.lognormvariate(-1.9, 0.3),
        lambda: chance.lognormvariate(0.2, 0.5),
    )
