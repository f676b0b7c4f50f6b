"""A stream to a Bitcoin peer is carried to its end."""

from __future__ import annotations

import asyncio
import socket

import pytest

from isoproxy.bitcoin.flow import Flow
from isoproxy.errors import ErrorKind
from isoproxy.front.states import State
from isoproxy.isolation import APP, P2P
from tests.unit.front.playbook import CLIENT, OK, TO_PEER, Playbook, opening, turns


class Carries:
    """A Bitcoin side whose one outcome the test gives."""

    ports = frozenset({8333})

    def __init__(self) -> None:
        self.outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.early: bytes | None = None
        self.magic = b""

    def is_v1(self, first: bytes) -> bool | None:
        return (first.startswith(self.magic) if first else None) if self.magic else False

    def refuse(self, flow: Flow, dial_error: ErrorKind | None = None) -> None:
        raise AssertionError

    async def carry(
        self,
        client: socket.socket,
        early: bytes,
        peer: socket.socket,
        flow: Flow,
        client_id: bytes,
    ) -> None:
        assert (flow.peer.host, client_id) == ("a.test", CLIENT)
        self.early = early
        await self.outcome


def carried(bitcoin: Carries) -> Playbook:
    book = opening(Playbook(bitcoin=bitcoin), TO_PEER, early=b"hello")
    assert (book.dial.purpose, book.dial.optimistic_data) == (P2P, b"")
    assert book.tor_opens() == OK
    assert (book.state, book.reactor.handlers) == (State.RELAYING, {})
    return book


async def test_a_stream_to_a_bitcoin_peer_is_carried_to_its_end() -> None:
    bitcoin = Carries()
    book = carried(bitcoin)
    await turns()
    assert bitcoin.early == b"hello"
    bitcoin.outcome.set_result(None)
    await turns()
    assert book.is_over()
    assert book.dial.sock.closed


@pytest.mark.parametrize("begun", [False, True])
async def test_a_stream_that_is_cut_closes_both_sockets(begun: bool) -> None:
    book = carried(Carries())
    if begun:
        await turns()
    book.connection.abort()
    await turns()
    assert book.is_over()
    assert book.dial.sock.closed


async def test_a_defect_of_the_bitcoin_side_ends_one_connection() -> None:
    bitcoin = Carries()
    book = carried(bitcoin)
    bitcoin.outcome.set_exception(ValueError("a defect"))
    await turns()
    assert book.is_over()
    assert book.services.counters.defects == 1


async def test_v1_on_another_port_is_dialled_again_for_bitcoin() -> None:
    bitcoin = Carries()
    bitcoin.magic = b"magi"
    book = opening(Playbook(bitcoin=bitcoin))
    assert book.tor_opens() == OK
    first = book.dial
    book.says(b"magic words")
    assert first.purpose is APP
    assert (first.sock.take(), first.sock.closed) == (b"", True)
    states = [book.state]
    assert book.dial is not first
    assert book.dial.purpose is P2P
    book.tor_opens()
    assert [*states, book.state] == [State.OPENING, State.RELAYING]
    bitcoin.outcome.set_result(None)
    await turns()
    assert book.is_over()
