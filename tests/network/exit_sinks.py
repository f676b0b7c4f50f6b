"""Far ends that keep what they receive, and clients that open streams to them at random.

Theory of operation
    Sinks listen where the exits connect to: on the ports that Bitcoin peers are expected on,
    and on some others.  What they say, and when they close, is each port's own.  The clients
    speak all of a listener's protocols, early and late; what they say is an `Opening`.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from tests.kit.openings import MAGICS, Kind, Opening, Received, opening

USERS: Final = 6
UNDER_WAY: Final = 48
"""Clients at a time."""
ANSWER_S: Final = 60.0
"""How long a client of another protocol waits for the far end's answer."""
_READ: Final = 1 << 16


class Manner(Enum):
    """What a sink does; the patient ones read to the end."""

    SILENT = "reads on"
    BANNER = "speaks first"
    CLOSES = "closes without an answer"
    VERSION = "begins with a v1 header"
    ONE_BYTE = "answers one byte and closes"

    @property
    def patient(self) -> bool:
        return self in (Manner.SILENT, Manner.BANNER)


class Sinks:
    """`manners` says what the sink of each port does."""

    def __init__(self, host: str, manners: dict[int, Manner], chance: random.Random) -> None:
        self.host = host
        self.manners = manners
        self._chance = chance
        self._said: list[tuple[int, bytearray]] = []
        self._serving: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    @property
    def received(self) -> list[Received]:
        """What has come so far, of each connection."""
        return [Received(port, bytes(said)) for port, said in self._said]

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Accept connections within the context."""
        async with contextlib.AsyncExitStack() as stack:
            for port in self.manners:
                server = await asyncio.start_server(self._serve, self.host, port, backlog=512)
                stack.callback(server.close)
            yield
        left = list(self._serving)
        for writer in self._serving.values():
            writer.transport.abort()
        await asyncio.gather(*left)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving[task] = writer
        port, said = writer.get_extra_info("sockname")[1], bytearray()
        self._said.append((port, said))
        with contextlib.suppress(OSError):
            await self._behave(self.manners[port], said, reader, writer)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        del self._serving[task]

    async def _behave(
        self,
        manner: Manner,
        said: bytearray,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        if manner is Manner.BANNER:
            writer.write(b"220 sink.test\r\n")
        if manner is Manner.VERSION:
            writer.write(self._chance.choice(MAGICS) + b"version".ljust(12, b"\0") + bytes(8))
        while data := await reader.read(_READ):
            said += data
            if manner is Manner.ONE_BYTE:
                writer.write(b"\x42")
            if manner in (Manner.ONE_BYTE, Manner.CLOSES) and len(said) >= 24:
                break


class Way(Enum):
    """How a client asks for its stream; at the Bitcoin proxy it may just speak."""

    SOCKS5 = 5
    SOCKS4A = 4
    CONNECT = 1
    UNASKED = 0


@dataclass
class Crowd:
    """Clients of the listener and of the Bitcoin proxy at `addresses`.

    `hosts` are names of the sinks, at `ports`.  `told` is what clients said, `whole` what
    must have come to the far end as it was.
    """

    addresses: Sequence[tuple[str, int]]
    hosts: Sequence[str]
    sinks: Sinks
    chance: random.Random
    told: list[Opening] = field(default_factory=list)
    whole: list[Opening] = field(default_factory=list)
    failed: int = 0

    async def come(self, count: int) -> None:
        """So many clients, some at a time."""
        room = asyncio.Semaphore(UNDER_WAY)

        async def one() -> None:
            async with room:
                await self._client()

        async with asyncio.TaskGroup() as group:
            for _ in range(count):
                group.create_task(one())

    async def _client(self) -> None:
        chance, at_proxy = self.chance, self.chance.random() < 0.25
        way = chance.choice(list(Way) if at_proxy else [Way.SOCKS5, Way.SOCKS5, *Way][:5])
        if not at_proxy and way is Way.UNASKED:
            way = Way.SOCKS5
        port = chance.choice(list(self.sinks.manners))
        said = opening(chance, (self.sinks.host, port))
        self.told.append(said)
        waits = said.kind is Kind.OTHER and way is not Way.UNASKED
        reader, writer = await asyncio.open_connection(*self.addresses[at_proxy])
        try:
            user = b"user%d" % chance.randrange(USERS)
            early = chance.random() < 0.5
            pieces = list(said.pieces)
            first = pieces.pop(0)[1] if early and way is not Way.UNASKED else b""
            opened = await ask(way, chance.choice(self.hosts), port, user, first, reader, writer)
            if opened:
                await self._speak(pieces, reader, writer, waits)
            self.failed += not opened
            if opened and waits and self.sinks.manners[port].patient:
                self.whole.append(said)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _speak(
        self,
        pieces: Sequence[tuple[float, bytes]],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        waits: bool,
    ) -> None:
        for pause, piece in pieces:
            await asyncio.sleep(pause)
            writer.write(piece)
        ends = waits or self.chance.random() < 0.3
        if ends:
            writer.write_eof()
        waits_s = ANSWER_S if waits else self.chance.choice((0.0, 0.2, 0.5, 1.3))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(waits_s):
                while await reader.read(_READ):
                    pass


async def ask(
    way: Way,
    host: str,
    port: int,
    user: bytes,
    early: bytes,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> bool:
    """Ask for a stream, with `early` behind the request; whether it was opened."""
    name, number = host.encode(), port.to_bytes(2, "big")
    match way:
        case Way.SOCKS5:
            writer.write(b"\x05\x01\x02")
            await reader.readexactly(2)
            writer.write(bytes([1, len(user)]) + user + b"\x01x")
            await reader.readexactly(2)
            writer.write(b"\x05\x01\x00\x03" + bytes([len(name)]) + name + number + early)
            reply = await reader.readexactly(4)
            await reader.readexactly({1: 6, 4: 18}[reply[3]])
            return reply[1] == 0
        case Way.SOCKS4A:
            writer.write(b"\x04\x01" + number + b"\0\0\0\x01" + user + b"\0" + name + b"\0" + early)
            return (await reader.readexactly(8))[1] == 90
        case Way.CONNECT:
            login = base64.b64encode(user + b":x").decode()
            head = f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n"
            head += f"Proxy-Authorization: Basic {login}\r\n\r\n"
            writer.write(head.encode() + early)
            return b" 200 " in await reader.readuntil(b"\r\n\r\n")
    return True
