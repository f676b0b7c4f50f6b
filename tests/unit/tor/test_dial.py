"""One dial over a scripted socket: told once, closed always."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from isoproxy.errors import ErrorKind
from isoproxy.isolation import Isolator
from isoproxy.net.reactor import Reactor
from isoproxy.socks import Client, Command, encode_reply
from isoproxy.tor.dial import Dial


class World:
    """A dial and what it told; `tor` is the other end of its socket."""

    def __init__(self, *, broken: OSError | None = None) -> None:
        self.isolator = Isolator()
        self.tor, self.near = socket.socketpair()
        self.near.setblocking(False)
        self.reactor = Reactor(asyncio.get_running_loop(), self._defect)
        self.over: list[Dial] = []
        self.done: list[Dial] = []
        self._broken = broken
        self.dial = Dial(
            self.reactor,
            self.isolator,
            self.isolator.own_key("test"),
            "circuit",
            Client(Command.CONNECT, b"a.test", 80, username=b"u", password=b"p"),
            self._open,
            self.over.append,
            self.done.append,
            read_ahead=True,
        )

    def _defect(self, handler: Any, error: Exception) -> None:
        raise error

    def _open(self) -> socket.socket:
        if self._broken is not None:
            raise self._broken
        return self.near

    def close(self) -> None:
        self.reactor.close()
        self.tor.close()
        self.near.close()


async def turns() -> None:
    for _ in range(3):
        await asyncio.sleep(0.005)


def refused(world: World, kind: ErrorKind) -> bool:
    (dial,) = world.done
    return dial.error is not None and dial.error.kind is kind and world.over == [dial]


async def test_it_speaks_and_hands_over_a_socket_that_is_still_watched() -> None:
    world = World()
    world.dial.begin()
    assert world.tor.recv(9) == b"\x05\x01\x02"
    world.tor.send(b"\x05\x02")
    await turns()
    assert world.tor.recv(99).startswith(b"\x01\x01u\x01p\x05\x01\x00\x03\x06a.test")
    world.tor.send(b"\x01\x00" + encode_reply(0) + b"first")
    await turns()
    assert (world.over, world.done) == ([world.dial], [world.dial])
    assert world.dial.leftover == b"first"
    assert (world.dial.readable, world.dial.ending) == (False, False)
    assert world.near.fileno() == -1, "nobody took it"
    world.close()


@pytest.mark.parametrize(
    ("broken", "kind"),
    [
        (ConnectionRefusedError(), ErrorKind.TOR_UNREACHABLE),
        (OSError(24, "too many"), ErrorKind.BUSY),
    ],
)
async def test_a_socket_that_cannot_be_had_says_whose_fault_it_is(
    broken: OSError, kind: ErrorKind
) -> None:
    world = World(broken=broken)
    world.dial.begin()
    assert refused(world, kind)
    world.close()


async def test_an_internal_error_ends_it_and_closes_its_socket() -> None:
    world = World()
    world.dial.begin()
    world.dial.abort()
    world.dial.abort()
    assert refused(world, ErrorKind.INTERNAL)
    assert world.near.fileno() == -1
    world.close()


async def test_one_that_is_cancelled_tells_nobody() -> None:
    world = World()
    world.dial.begin()
    world.dial.cancel()
    world.tor.close()
    await turns()
    assert (world.done, world.over, world.near.fileno()) == ([], [world.dial], -1)
    world.close()
