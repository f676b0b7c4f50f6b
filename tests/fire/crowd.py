"""Thousands of clients of one isoproxy: streams by SOCKS, `.bit` names, Bitcoin peers.

Theory of operation
    The crowd sits on seats.  A seat opens a flow, talks over it now and then, ends it after
    a while in one of the ways there are, and opens the next one; so that many flows are
    alive at any time, and each of them is as young or as old as chance has it.  A flow that
    is refused, or that ends too soon, is counted, and the seat tries again a second later.

Invariants
    Every byte that comes back is compared; one that is wrong is counted in `wrong`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from isoproxy.errors import RemoteProtocolError
from tests.kit.dial import Refused, dial
from tests.network.bitcoin_ends import V1Client

_SOURCES: Final = 4
"""Client addresses; one of them may not have all connections that isoproxy allows."""


@dataclass(frozen=True)
class Plan:
    """How many of each kind, and how they behave; times in seconds, means."""

    streams: int
    names: int
    peers: int
    life: float = 150.0
    silence: float = 20.0
    users: int = 15
    name_users: int = 3
    peer_users: int = 3

    @classmethod
    def of(cls, flows: int) -> Plan:
        """The mix of a crowd of so many: one in 20 by a name, one in 30 a Bitcoin peer."""
        names, peers = flows // 20, flows // 30
        return cls(flows - names - peers, names, peers)


@dataclass
class Tally:
    """What became of the flows."""

    ended: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    broken: Counter[str] = field(default_factory=Counter)
    wrong: int = 0


class Crowd:
    """Clients of the listener at `proxy`; `run` seats all of them until `stop` is called."""

    def __init__(
        self,
        proxy: tuple[str, int],
        plan: Plan,
        *,
        echo: tuple[str, int],
        names: list[str],
        peer: tuple[str, int],
        seed: int,
    ) -> None:
        self.tally = Tally()
        self._proxy, self._plan = proxy, plan
        self._echo, self._names, self._peer = echo, names, peer
        self._random = random.Random(seed)
        self._over = threading.Event()

    def stop(self) -> None:
        """Flows that are open end at their next word; callable from any thread."""
        self._over.set()

    async def run(self, ramp: float) -> None:
        """Fill the seats within `ramp` seconds, and keep them filled until the stop."""
        plan = self._plan
        threads = [
            threading.Thread(target=self._peer_seat, args=(n, ramp), daemon=True)
            for n in range(plan.peers)
        ]
        for thread in threads:
            thread.start()
        async with asyncio.TaskGroup() as group:
            for number in range(plan.streams):
                group.create_task(self._seat(ramp, "socks", f"user {number % plan.users}"))
            for number in range(plan.names):
                group.create_task(self._seat(ramp, "name", f"namer {number % plan.name_users}"))
        for thread in threads:
            await asyncio.to_thread(thread.join)

    # -- streams, to a host or to a name

    async def _seat(self, ramp: float, kind: str, user: str) -> None:
        await self._sleep(self._random.uniform(0, ramp))
        while not self._over.is_set():
            host, port = self._echo
            if kind == "name":
                host = self._random.choice(self._names)
            try:
                await self._flow(user.encode(), host.encode(), port)
                self.tally.ended[kind] += 1
            except Refused as refusal:
                self.tally.refused[f"{kind} {refusal.reply:#x}"] += 1
                await self._sleep(1)
            except (OSError, asyncio.IncompleteReadError):
                self.tally.broken[kind] += 1
                await self._sleep(1)

    async def _flow(self, user: bytes, host: bytes, port: int) -> None:
        source = f"127.0.0.{1 + self._random.randrange(_SOURCES)}"
        reader, writer = await asyncio.open_connection(*self._proxy, local_addr=(source, 0))
        try:
            login = b"\x05\x01\x02\x01" + bytes([len(user)]) + user + b"\x011"
            request = b"\x05\x01\x00\x03" + bytes([len(host)]) + host + port.to_bytes(2, "big")
            writer.write(login + request)
            answer = await reader.readexactly(14)
            if answer[5]:
                raise Refused("", answer[5])
            await self._talk(reader, writer)
            await self._end(reader, writer)
        finally:
            writer.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for pause in self._pauses():
            said = os.urandom(self._random.choice((10, 100, 1000, 10000)))
            writer.write(said)
            if await reader.readexactly(len(said)) != said:
                self.tally.wrong += 1
            await self._sleep(pause)

    async def _end(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        way = self._random.choice(("close", "half-close", "reset"))
        if way == "half-close":
            writer.write_eof()
            if await reader.read():
                self.tally.wrong += 1
        elif way == "reset":
            writer.transport.abort()

    def _pauses(self) -> Iterator[float]:
        """The silences of one life."""
        left = self._random.expovariate(1 / self._plan.life)
        while left > 0 and not self._over.is_set():
            pause = min(left, self._random.expovariate(1 / self._plan.silence))
            left -= pause
            yield pause

    async def _sleep(self, seconds: float) -> None:
        """In pieces, so that the stop is heard."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if self._over.is_set():
                return
            await asyncio.sleep(min(left, 5.0))

    # -- Bitcoin peers: v1 programs, a thread each

    def _peer_seat(self, number: int, ramp: float) -> None:
        self._over.wait(self._random.uniform(0, ramp))
        user = b"peer %d" % (number % self._plan.peer_users)
        while not self._over.is_set():
            try:
                with contextlib.closing(dial(self._proxy, *self._peer, user=user)) as sock:
                    client = V1Client(sock)
                    client.hello()
                    for pause in self._pauses():
                        client.ping(os.urandom(8))
                        self._over.wait(pause)
                self.tally.ended["peer"] += 1
            except Refused as refusal:
                self.tally.refused[f"peer {refusal.reply or 0:#x}"] += 1
                self._over.wait(1)
            except (OSError, EOFError):
                self.tally.broken["peer"] += 1
                self._over.wait(1)
            except RemoteProtocolError:
                self.tally.wrong += 1
                self._over.wait(1)
