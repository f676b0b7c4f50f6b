"""Plans of a stream process: their DNS, and what stays over new settings."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import dns.message
import pytest

from isoproxy.front.transparent import Program
from isoproxy.transparent.answer import BOTH, IPV4_ONLY
from isoproxy.workers import transparent
from isoproxy.workers.messages import TransparentPlan
from isoproxy.workers.transparent import TransparentSide
from tests.kit.socks_port import SocksPort
from tests.kit.waiting import until
from tests.unit.front.test_frontend import front_end
from tests.unit.workers.parent import listener

PROGRAM = Program(b"u0", None, b"nonce")
PLAN = TransparentPlan("one", listener(), 1, 2, BOTH, PROGRAM)


@contextmanager
def sockets() -> Iterator[list[socket.socket]]:
    """A listener and a socket for DNS."""
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(type=socket.SOCK_DGRAM) as udp,
    ):
        udp.bind(("127.0.0.1", 0))
        yield [tcp, udp]


def copies(those: list[socket.socket]) -> list[socket.socket]:
    return [sock.dup() for sock in those]


class Client:
    """Asks the DNS at `sock` from an address of its own."""

    def __init__(self, sock: socket.socket, host: str = "127.0.0.1") -> None:
        self._there = sock.getsockname()
        self.sock = socket.socket(type=socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.sock.bind((host, 0))
        self.came: list[bytes] = []

    def send(self, name: str, rdtype: str = "A") -> None:
        self.sock.sendto(dns.message.make_query(name, rdtype).to_wire(), self._there)

    def received(self) -> list[bytes]:
        try:
            while True:
                self.came.append(self.sock.recv(2000))
        except BlockingIOError:
            return self.came

    async def ask(self, name: str, rdtype: str = "A") -> list[str]:
        before = len(self.received())
        self.send(name, rdtype)
        await until(lambda: len(self.received()) > before)
        response = dns.message.from_wire(self.came[-1])
        return [rdata.to_text() for rrset in response.answer for rdata in rrset]


async def test_addresses_stay_over_new_settings_and_end_with_their_plan() -> None:
    with sockets() as those:
        async with SocksPort() as port, front_end(port) as front:
            side, client = TransparentSide(front), Client(those[1])
            with client.sock:
                side.serve([PLAN], copies(those))
                first = await client.ask("a.test")
                side.serve([replace(PLAN, families=IPV4_ONLY)], copies(those))
                assert await client.ask("a.test") == first
                assert await client.ask("a.test", "AAAA") == []
                side.close()
                side.serve([PLAN], copies(those))
                assert await client.ask("a.test") not in ([], first)
            side.close()


async def test_each_client_of_a_gateway_has_a_map_of_its_own_and_a_program_one() -> None:
    for program, same in ((None, False), (PROGRAM, True)):
        with sockets() as those:
            async with SocksPort() as port, front_end(port) as front:
                side = TransparentSide(front)
                side.serve([replace(PLAN, program=program)], copies(those))
                one, two = Client(those[1], "127.0.0.1"), Client(those[1], "127.0.0.2")
                with one.sock, two.sock:
                    answers = [await client.ask("a.test") for client in (one, two)]
                assert (answers[0] == answers[1]) is same
                side.close()


async def test_a_client_that_asks_too_much_is_not_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transparent, "QUERIES_PER_S", 1e-6)
    with sockets() as those:
        async with SocksPort() as port, front_end(port) as front:
            monkeypatch.setattr(transparent, "QUERIES_PER_S", 2.0)
            side, client = TransparentSide(front), Client(those[1])
            front.loop.time = lambda: 0.0  # type: ignore[method-assign]
            side.serve([PLAN], copies(those))
            with client.sock:
                for _ in range(5):
                    client.send("a.test")
                other = Client(those[1])
                with other.sock:
                    other.send("a.test")
                    side._served["one"]._dns[0].on_events(0, 0)
                    assert len(client.received()) == 2
                    assert other.received() == []
            side.close()
            del front.loop.time


async def test_listeners_that_are_gone_accept_no_more() -> None:
    with sockets() as those:
        async with SocksPort() as port, front_end(port) as front:
            side = TransparentSide(front)
            side.serve([PLAN], copies(those))
            with socket.create_connection(those[0].getsockname()):
                await until(lambda: front.accepted["test"] == 1)
            side.close()
            with socket.create_connection(those[0].getsockname()):
                await until(lambda: not len(front.connections))
            assert front.accepted["test"] == 1
