"""Promise: streams of different isolation tuples never share a circuit, of one tuple always do.

Every listener flag is tried on and off, and Tor's control port is the witness.  A stream is
recognised by its target, which is the test's to choose: each tuple has host names of its own,
or, where the destination port is what separates, a port of its own.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Hashable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from isoproxy.socks.http_connect import HttpConnect
from tests.kit.dial import Refused, dial, receive_exactly
from tests.kit.isoproxy_process import TCP, Isoproxy, system
from tests.kit.servers import EchoServer
from tests.kit.tornet import Address, TorNetwork
from tests.kit.witness import Stream, Witness

STREAMS_PER_TUPLE: Final = 10

LISTENERS: Final = {
    "default": TCP,
    "another": TCP,
    "any client": TCP + '\nisolate = ["SOCKSAuth"]',
    "any user": TCP + '\nisolate = ["ClientAddr"]',
    "protocol": TCP + '\nisolate = ["ClientAddr", "SOCKSAuth", "ClientProtocol"]',
    "address": TCP + '\nisolate = ["ClientAddr", "SOCKSAuth", "DestAddr"]',
    "port": TCP + '\nisolate = ["ClientAddr", "SOCKSAuth", "DestPort"]',
    "group, 1": TCP + "\nsession_group = 7",
    "group, 2": TCP + "\nsession_group = 7",
    "unix": 'address = "unix:{directory}/socks"',
}


@dataclass(frozen=True)
class Client:
    """Where a stream comes from, and what it says of itself; `http` is HTTP CONNECT."""

    listener: str
    user: bytes | None = None
    password: bytes = b""
    source: str = "127.0.0.1"
    protocol: str = "socks5"


@dataclass(frozen=True)
class Tuple:
    """One isolation tuple: clients that must share, and where they go.

    hosts  first labels of the names; no other tuple's
    ports  numbers of the echo servers
    """

    name: str
    clients: tuple[Client, ...]
    hosts: tuple[str, ...] = ("a", "b")
    ports: tuple[int, ...] = (0, 1)


def one(name: str, listener: str, user: bytes | None = None, password: bytes = b"") -> Tuple:
    return Tuple(name, (Client(listener, user, password),))


NUL: Final = b"\x00\xff\r\n"
TUPLES: Final = (
    # no credentials: the protocol does not separate where the listener does not say so
    Tuple("nobody", (Client("default"), Client("default", protocol="http"))),
    one("empty", "default", b"", b""),
    one("empty user", "default", b"", b"x"),
    one("alice 1", "default", b"alice", b"1"),
    one("alice 2", "default", b"alice", b"2"),
    one("alice", "default", b"alice", b""),
    one("bob", "default", b"bob", b"1"),
    one("framing 1", "default", b"ab", b"c"),
    one("framing 2", "default", b"a", b"bc"),
    one("binary 1", "default", NUL + b"1", NUL),
    one("binary 2", "default", NUL + b"2", NUL),
    one("binary 3", "default", NUL + b"2", NUL + b"\x00"),
    one("long", "default", b"\xfe" * 255, b"\x80" * 255),
    one("proposal 351", "default", b"<torS0X>0", b"1"),
    # ClientAddr
    Tuple("alice elsewhere", (Client("default", b"alice", b"1", source="127.0.0.2"),)),
    Tuple("nobody elsewhere", (Client("default", source="127.0.0.2"),)),
    Tuple(
        "alice anywhere",
        tuple(Client("any client", b"alice", b"1", f"127.0.0.{n}") for n in (1, 2)),
    ),
    # SOCKSAuth
    Tuple(
        "whoever, here",
        (Client("any user", b"alice", b"1"), Client("any user", b"bob"), Client("any user")),
    ),
    Tuple("whoever, elsewhere", (Client("any user", b"alice", b"1", source="127.0.0.2"),)),
    # ClientProtocol
    one("by SOCKS5", "protocol"),
    Tuple("by HTTP", (Client("protocol", protocol="http"),)),
    Tuple("by SOCKS4", (Client("protocol", b"", protocol="socks4"),)),
    # DestAddr
    Tuple("to one name", (Client("address", b"alice", b"1"),), hosts=("x",)),
    Tuple("to another name", (Client("address", b"alice", b"1"),), hosts=("y",)),
    # DestPort: the same name, so that only the port differs
    Tuple("to one port", (Client("port", b"alice", b"1"),), hosts=("same-name",), ports=(0,)),
    Tuple("to another port", (Client("port", b"alice", b"1"),), hosts=("same-name",), ports=(1,)),
    # session groups
    one("alice at another listener", "another", b"alice", b"1"),
    one("nobody at another listener", "another"),
    Tuple("alice in a group", tuple(Client(f"group, {n}", b"alice", b"1") for n in (1, 2))),
    # a unix socket: the client is the user it runs as
    one("alice over unix", "unix", b"alice", b"1"),
    one("nobody over unix", "unix"),
)


class Session:
    """All tuples' clients against one isoproxy; knows which tuple a stream belongs to."""

    def __init__(self, proxy: Isoproxy, ports: list[int]):
        self._addresses = dict(zip(LISTENERS, proxy.addresses, strict=True))
        self._ports = ports
        self._tuples: dict[tuple[str, int], str] = {}

    def targets(self, of: Tuple, number: int) -> tuple[str, int]:
        """The target of a tuple's stream `number`: all combinations, one after the other."""
        label = of.hosts[number % len(of.hosts)]
        if label != "same-name":
            label += "-" + of.name.replace(" ", "-").replace(",", "").lower()
        port = self._ports[of.ports[number // len(of.hosts) % len(of.ports)]]
        return f"{label}.test", port

    def open(self, of: Tuple, number: int) -> socket.socket:
        """One stream, connected and used."""
        host, port = self.targets(of, number)
        assert self._tuples.setdefault((host, port), of.name) == of.name
        client = of.clients[number // 4 % len(of.clients)]
        stream = connect(self._addresses[client.listener], client, host, port)
        try:
            check(stream)
        except BaseException:
            stream.close()
            raise
        return stream

    def open_all(self, held: contextlib.ExitStack, streams: int) -> list[socket.socket]:
        """So many streams of every tuple, all tuples in turn and many at a time.

        The first of each tuple go ahead: Tor gives streams of one tuple that come at the
        same moment a circuit each when it has several clean ones.
        """
        opened: list[socket.socket] = []
        with ThreadPoolExecutor(40) as pool:
            for numbers in (range(1), range(1, streams)):
                jobs = [pool.submit(self.open, one, n) for n in numbers for one in TUPLES]
                for job in jobs:
                    opened.append(job.result())
                    held.callback(opened[-1].close)
        return opened

    def tuple_of(self, stream: Stream) -> Hashable:
        return self._tuples[stream.host, stream.port]


def connect(proxy: Address, client: Client, host: str, port: int) -> socket.socket:
    source = "" if isinstance(proxy, str) else client.source
    if client.protocol == "socks5":
        return dial(proxy, host, port, user=client.user, password=client.password, source=source)
    assert not isinstance(proxy, str)
    stream = socket.create_connection(proxy, timeout=60, source_address=(source, 0))
    if client.protocol == "http":
        stream.sendall(f"CONNECT {host}:{port} HTTP/1.0\r\n\r\n".encode())
        answer = HttpConnect().succeed()
    else:
        assert client.user is not None
        request = b"\x04\x01" + port.to_bytes(2, "big") + b"\x00\x00\x00\x01"
        stream.sendall(request + client.user + b"\x00" + host.encode() + b"\x00")
        answer = b"\x00\x5a" + bytes(6)
    assert receive_exactly(stream, len(answer)) == answer
    return stream


def check(stream: socket.socket) -> None:
    """The stream carries bytes there and back."""
    stream.sendall(b"hello")
    assert receive_exactly(stream, 5) == b"hello"


@pytest.fixture(params=[1, 2], ids=["one process", "two processes"])
def session(
    request: pytest.FixtureRequest, tmp_path: Path, tor_network: TorNetwork
) -> Iterator[tuple[Isoproxy, Session]]:
    listeners = [text.replace("{directory}", str(tmp_path)) for text in LISTENERS.values()]
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(EchoServer(tor_network.server_ip)) for _ in range(2)]
        settings = [*system(tor_network.client), f"limits.workers={request.param}"]
        proxy = stack.enter_context(Isoproxy(tmp_path, settings, listeners=listeners))
        proxy.wait_for_workers(request.param)
        yield proxy, Session(proxy, [server.port for server in servers])
        assert all(worker["accepted"] for worker in proxy.status()["workers"])


def test_no_circuit_carries_two_tuples(
    tor_network: TorNetwork, session: tuple[Isoproxy, Session]
) -> None:
    proxy, streams = session
    assert len(TUPLES) >= 20
    with Witness(tor_network.client) as witness, contextlib.ExitStack() as held:
        start = witness.mark()
        before = streams.open_all(held, STREAMS_PER_TUPLE)
        renewed_at = witness.mark()
        old = witness.streams(after=start)
        assert len(old) == len(before) == STREAMS_PER_TUPLE * len(TUPLES) >= 200
        witness.assert_isolated(old, streams.tuple_of)
        witness.assert_shared(old, streams.tuple_of)
        assert len(witness.by_carrier(old)) == len(TUPLES)
        # nothing of what the applications said of themselves reached Tor
        assert {stream.username for stream in old} == {b"<torS0X>0"}
        assert not {stream.password for stream in old} & {
            c.password for t in TUPLES for c in t.clients
        }

        assert proxy.command("newnym").returncode == 0
        for stream in before:  # open streams live on
            check(stream)
        streams.open_all(held, 3)
        witness.settle()
        new = witness.streams(after=renewed_at)
        assert len(new) == 3 * len(TUPLES)
        witness.assert_isolated(new, streams.tuple_of)
        witness.assert_shared(new, streams.tuple_of)
        assert not witness.by_carrier(new).keys() & witness.by_carrier(old).keys()
        assert not {s.password for s in new} & {s.password for s in old}


def test_a_new_identity_asked_of_tor_is_one_here_too(
    tor_network: TorNetwork, tmp_path: Path
) -> None:
    """Tor Browser's button: SIGNAL NEWNYM from another controller."""
    with (
        tor_network.temporary_client() as client,
        EchoServer(tor_network.server_ip) as server,
        Isoproxy(tmp_path, system(client)) as proxy,
        Witness(client) as witness,
        client.control() as controller,
    ):
        proxy.wait_ready()

        def credentials() -> Hashable:
            before = witness.mark()
            dial(proxy.address, "echo.test", server.port, user=b"alice").close()
            witness.settle()
            (stream,) = witness.streams(after=before)
            return stream.credentials

        first = credentials()
        assert credentials() == first
        controller.check("SIGNAL NEWNYM")
        deadline, latest = time.monotonic() + 10, first
        while latest == first and time.monotonic() < deadline:
            with contextlib.suppress(Refused):  # a stream that was being opened just then ends
                latest = credentials()
        assert latest != first
        assert credentials() == latest
