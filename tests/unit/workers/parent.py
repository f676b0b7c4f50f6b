"""A parent of a stream process that runs in this very process: orders out, messages in."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from isoproxy.front.judgement import HandshakeRule
from isoproxy.front.listener import ListenerSettings
from isoproxy.front.services import Limits
from isoproxy.isolation import Isolator, ListenerRule, own_group
from isoproxy.namecoin.value.name import TopLevels
from isoproxy.net.endpoint import Endpoint
from isoproxy.net.reactor import Handler, Reactor
from isoproxy.net.resolver_guard import ResolverGuard
from isoproxy.tor.dialer import DialerSettings
from isoproxy.workers.channel import Channel, pair
from isoproxy.workers.messages import (
    Begin,
    BitcoinSettings,
    Drain,
    Order,
    Reply,
    Settings,
    StatsRequest,
    packets,
)
from isoproxy.workers.report import Report, decode, merged
from isoproxy.workers.worker import Worker
from tests.kit.socks_port import SocksPort
from tests.kit.waiting import until


@dataclass
class Parent:
    """What the main process has: a channel, an isolator, listening sockets."""

    isolator: Isolator
    channel: Channel
    settings: Settings
    sockets: list[socket.socket]
    said: list[dict[str, Any]] = field(default_factory=list)
    ended: list[int] = field(default_factory=list)
    tickets: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def tell(self, message: Order | Reply, sockets: list[socket.socket] | None = None) -> None:
        for packet, its in packets(message, sockets or ()):
            self.channel.send(packet, its)

    async def order(
        self, order: Callable[[int], Order], sockets: list[socket.socket] | None = None
    ) -> Report:
        """Give an order; the report that answers it."""
        ticket = next(self.tickets)
        self.tell(order(ticket), sockets)
        await until(lambda: any(said.get("done") == ticket for said in self.said))
        parts = [said for said in self.said if ticket in (said.get("part"), said.get("done"))]
        return merged(decode(part, lambda name: True) for part in parts)

    async def report(self) -> Report:
        return await self.order(StatsRequest)

    async def asked(self, kind: str, count: int = 1) -> dict[str, Any]:
        """The question of that kind that came as number `count`."""

        def questions() -> list[dict[str, Any]]:
            return [said for said in self.said if said.get("ask") == kind]

        await until(lambda: len(questions()) >= count)
        return questions()[count - 1]

    async def client(self, index: int = 0) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A client of a listening socket."""
        return await asyncio.open_connection(*self.sockets[index].getsockname())


def listening() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def listener(name: str = "test") -> ListenerSettings:
    rule = HandshakeRule(ListenerRule(own_group(name)), top_levels=TopLevels())
    return ListenerSettings(name, Endpoint(host="127.0.0.1", port=0), rule)


@asynccontextmanager
async def parent_of_worker(
    port: SocksPort, bitcoin: BitcoinSettings | None = None, sockets: int = 1
) -> AsyncIterator[Parent]:
    """A parent and a stream process that serves; afterwards nothing is left of it."""
    loop = asyncio.get_running_loop()

    def defect(handler: Handler, error: Exception) -> None:
        raise error

    level = logging.getLogger("isoproxy").level
    reactor = Reactor(loop, defect)
    ours, theirs = pair()
    settings = Settings(
        (listener(),),
        Limits(),
        DialerSettings(port.endpoint, timeout_s=5),
        bitcoin or BitcoinSettings(),
        5.0,
        ("notice", "text", True),
    )
    said: list[dict[str, Any]] = []
    ended: list[int] = []
    channel = Channel(reactor, ours, lambda data, _: said.append(json.loads(data)), lambda: None)
    worker = Worker(theirs, ResolverGuard(), ended.append)
    parent = Parent(
        Isolator(), channel, settings, [listening() for _ in range(sockets)], said, ended
    )
    try:
        begun = await parent.order(
            lambda ticket: Begin(ticket, parent.isolator.export_state(), False, 1, settings),
            parent.sockets,
        )
        assert not begun.accepted
        yield parent
        if not ended:
            await parent.order(lambda ticket: Drain(ticket, 0))
            await until(lambda: ended)
    finally:
        for sock in parent.sockets:
            sock.close()
        channel.close()
        worker.close()
        reactor.close()
        logging.getLogger("isoproxy").setLevel(level)
