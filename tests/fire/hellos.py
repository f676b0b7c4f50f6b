"""TLS as servers see it: whether ClientHello, tickets or resumption tell whose a connection is.

Theory of operation
    Clients with a TLS policy each open connections in random order, over real TLS, to a server
    that an authority vouches for and to one that none does.  The server looks at the
    ClientHello (RFC 8446, 4.1.2) before it answers, and hands out tickets as all servers do.

    What is random in every ClientHello (random, session ID, key share, binders, the age of a
    ticket) is left out; what remains is the shape.  A ticket that is shown again is part of it.
"""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
import tempfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import pytest

from isoproxy.namecoin.electrum import tls
from isoproxy.namecoin.electrum.pins import PinStore
from isoproxy.namecoin.electrum.servers import NameServer, parse_server
from isoproxy.namecoin.electrum.tls import TlsPolicy
from tests.fire.judge import mixes
from tests.kit.electrumx import self_signed

CONNECTIONS: Final = 240
"""Of all clients together, half of them to each server."""
_KEY_SHARE: Final = 51
_PRE_SHARED_KEY: Final = 41

Shape = tuple[object, ...]


def shape(hello: bytes) -> Shape:
    """What of a ClientHello, with its record's head, is not random."""
    at = 43 + 1 + hello[43]
    ciphers = hello[at : at + 2 + int.from_bytes(hello[at : at + 2])]
    at += len(ciphers)
    compression = hello[at : at + 1 + hello[at]]
    at += len(compression) + 2
    extensions: list[Shape] = []
    while at < len(hello):
        kind, size = int.from_bytes(hello[at : at + 2]), int.from_bytes(hello[at + 2 : at + 4])
        body = hello[at + 4 : at + 4 + size]
        at += 4 + size
        if kind == _KEY_SHARE:
            body = body[:6]
        elif kind == _PRE_SHARED_KEY:
            body = body[2 : 4 + int.from_bytes(body[2:4])]
        extensions.append((kind, size, body))
    return (hello[:3], hello[9:11], hello[43], ciphers, compression, tuple(extensions))


def judged(clients: int, seed: int, connections: int = CONNECTIONS) -> float:
    """The p-value of "connections of one client look no more alike than others"."""
    chance = random.Random(f"{seed} hellos")
    with tempfile.TemporaryDirectory() as directory:
        seen = asyncio.run(_watch(clients, connections, Path(directory), chance))
    equal, own = [], []
    for shapes in seen.values():
        for (whose, one), (whose_next, other) in pairwise(shapes):
            equal.append(float(one == other))
            own.append(whose == whose_next)
    return mixes(equal, own, chance)


async def _watch(
    clients: int, connections: int, directory: Path, chance: random.Random
) -> dict[str, list[tuple[int, Shape]]]:
    """By server: whose each connection was, and its shape."""
    certificate, key, digest = self_signed(directory)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    pinned = parse_server(f"names.example:1:s:{digest.hex()}")
    vouched_for = parse_server("localhost:1:s")
    seen: dict[str, list[tuple[int, Shape]]] = {pinned.label: [], vouched_for.label: []}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(certificate))
        policies = [TlsPolicy(PinStore()) for _ in range(clients)]
        for number in range(connections):
            client, server = chance.randrange(clients), (pinned, vouched_for)[number % 2]
            hello = await _connect(policies[client], server, context)
            seen[server.label].append((client, shape(hello)))
    return seen


async def _connect(policy: TlsPolicy, server: NameServer, context: ssl.SSLContext) -> bytes:
    """One connection, over which a byte goes each way; the ClientHello."""
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.setblocking(False)
    opening = loop.create_task(policy.open(ours, server))
    hello = await _peek(theirs)
    reader = asyncio.StreamReader()
    serving, _ = await loop.connect_accepted_socket(
        lambda: asyncio.StreamReaderProtocol(reader), theirs, ssl=context
    )
    serving.write(b"x")
    answers, writer = await opening
    await answers.readexactly(1)
    writer.transport.abort()
    serving.abort()
    await asyncio.sleep(0)
    return hello


async def _peek(sock: socket.socket) -> bytes:
    """The first record, which stays in the socket."""
    readable = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(sock, readable.set)
    await readable.wait()
    loop.remove_reader(sock)
    hello = sock.recv(1 << 14, socket.MSG_PEEK)
    assert len(hello) == 5 + int.from_bytes(hello[3:5])
    return hello


# -- builds with a fault ------------------------------------------------------------------


def tickets_kept(patch: pytest.MonkeyPatch) -> None:
    """A ticket that a server gave to one identity is shown to it by all of the client."""
    kept: dict[tuple[int, Any], ssl.SSLSession] = {}

    class Resuming(ssl.SSLObject):
        place: tuple[int, Any]

        @classmethod
        def _create(cls, *args: Any, **named: Any) -> Any:
            place = id(named["context"]), named["server_hostname"]
            self = super()._create(*args, **named | {"session": kept.get(place)})  # type: ignore[misc]
            self.place = place
            return self

        def read(self, *args: Any) -> Any:
            data = super().read(*args)
            if self.session is not None and self.session.has_ticket:
                kept.setdefault(self.place, self.session)
            return data

    def resumes(context: ssl.SSLContext) -> None:
        context.sslobject_class = Resuming

    _with_contexts(patch, resumes)


def ciphers_of_an_installation(patch: pytest.MonkeyPatch) -> None:
    """Each installation offers the ciphers in an order of its own."""
    chance = random.Random(1)

    def own_order(context: ssl.SSLContext) -> None:
        names = [str(cipher["name"]) for cipher in context.get_ciphers()]
        older = [name for name in names if not name.startswith("TLS_")]
        context.set_ciphers(":".join(chance.sample(older, len(older))))

    _with_contexts(patch, own_order)


def _with_contexts(patch: pytest.MonkeyPatch, change: Callable[[ssl.SSLContext], None]) -> None:
    make = tls.ssl_context

    def made(*, authorities: bool) -> ssl.SSLContext:
        context = make(authorities=authorities)
        change(context)
        return context

    patch.setattr(tls, "ssl_context", made)


FAULTS: Final = {
    "tickets kept": tickets_kept,
    "ciphers of an installation": ciphers_of_an_installation,
}


def judged_with(fault: str, clients: int, seed: int, connections: int = CONNECTIONS) -> float:
    """As `judged`, of a build with that fault."""
    with pytest.MonkeyPatch.context() as patch:
        FAULTS[fault](patch)
        return judged(clients, seed, connections)
