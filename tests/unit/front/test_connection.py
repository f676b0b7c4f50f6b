"""The life of a client, event by event, without sockets: every transition of the table."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from ipaddress import ip_address

import pytest

from isoproxy.bitcoin.flow import Flow
from isoproxy.errors import ErrorKind, NamingError
from isoproxy.front.services import Untranslated
from isoproxy.front.states import TRANSITIONS, Event, State
from isoproxy.isolation import APP, P2P, IsolationKey
from isoproxy.namecoin.resolve.answer import Want
from isoproxy.net.reactor import READABLE
from isoproxy.net.target import Target
from isoproxy.socks import Command, encode_reply
from tests.unit.front.playbook import CLIENT, Playbook

GREETING = b"\x05\x01\x00"
REQUEST = b"\x05\x01\x00\x03\x06a.test\x00\x50"
TO_PEER = b"\x05\x01\x00\x03\x06a.test\x20\x8d"
OUR_NAME = b"\x05\x01\x00\x03\x05d.bit\x00\x50"
RESOLVE = b"\x05\xf0\x00\x03\x06a.test\x00\x00"
RESOLVE_PTR = b"\x05\xf1\x00\x01\xc0\x00\x02\x01\x00\x00"
OK = encode_reply(0)
WALKED: set[tuple[State, Event]] = set()
"""What all tests of this module have walked together."""


@pytest.fixture(autouse=True)
def playbooks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Note what every playbook walks."""
    ended = Playbook._on_end

    def on_end(book: Playbook, connection: object) -> None:
        WALKED.update(book.connection.walked)
        ended(book, book.connection)

    monkeypatch.setattr(Playbook, "_on_end", on_end)


def opening(book: Playbook, request: bytes = REQUEST, early: bytes = b"") -> Playbook:
    """The book at the moment when the request is complete."""
    assert book.says(GREETING) == b"\x05\x00"
    assert book.says(request + early) == b""
    assert book.state is State.OPENING
    return book


async def test_a_stream_from_the_greeting_to_both_ends() -> None:
    book = opening(Playbook())
    assert (book.dial.target, book.dial.command) == (Target("a.test", 80), Command.CONNECT)
    assert book.dial.purpose is APP
    assert book.tor_opens(leftover=b"hello") == OK + b"hello"
    assert book.state is State.RELAYING
    book.says(b"up")
    book.tor_says(b"down")
    assert (book.dial.sock.take(), book.client.take()) == (b"up", b"down")
    view = book.connection.view(0)
    assert (view.stage, view.bytes_up, view.bytes_down) == ("relaying", 2, 9)
    book.leaves()
    assert book.dial.sock.shut
    book.tor_says(b"last", ending=True)
    assert book.client.take() == b"last"
    assert book.dial.sock.closed
    assert book.is_over()
    counters = book.services.counters
    assert (counters.opened, counters.bytes_up, counters.bytes_down) == (1, 2, 13)


async def test_optimistic_data_goes_with_the_dial_and_not_twice() -> None:
    book = opening(Playbook(), early=b"GET /")
    assert book.dial.optimistic_data == b"GET /"
    book.tor_opens()
    assert book.dial.sock.take() == b""


async def test_what_the_client_says_while_tor_is_dialled_waits() -> None:
    book = opening(Playbook())
    book.client.incoming.append(b"meanwhile")
    book.happens(book.client, READABLE)
    book.tor_opens()
    assert book.dial.sock.take() == b"meanwhile"


async def test_tors_refusal_is_told_and_lingers_until_the_client_ends() -> None:
    book = opening(Playbook())
    assert book.tor_refuses(ErrorKind.ONION_NOT_FOUND) == encode_reply(0xF0)
    assert book.state is State.CLOSING
    assert not book.client.closed
    book.says(b"said too late")
    book.leaves()
    assert book.is_over()


@pytest.mark.parametrize("broken", [False, True])
async def test_a_client_that_leaves_takes_its_dial_with_it(broken: bool) -> None:
    book = opening(Playbook())
    book.leaves(broken=broken)
    assert book.dial.cancelled
    assert book.is_over()


@pytest.mark.parametrize("early", [True, False])
async def test_a_client_that_said_something_and_ended_is_waited_for(early: bool) -> None:
    book = opening(Playbook(), early=b"GET /" if early else b"")
    book.client.incoming += [] if early else [b"GET /"]
    book.leaves()
    assert book.state is State.OPENING
    assert book.tor_opens() == OK
    assert book.dial.sock.shut
    assert book.dial.sock.take() == (b"" if early else b"GET /")


async def test_a_client_that_is_gone_when_tor_answers() -> None:
    book = opening(Playbook())
    book.client.gone = True
    assert book.tor_opens() == b""
    assert book.is_over()


@pytest.mark.parametrize("said", [b"", b"\x05"])
async def test_a_handshake_ends_with_the_client_or_its_time(said: bytes) -> None:
    leaves, stays = Playbook(), Playbook()
    for book in (leaves, stays):
        if said:
            book.says(said)
    leaves.leaves()
    assert leaves.is_over()
    assert stays.time_passes() == (b"\x05\xff" if said else b"")
    assert stays.state is State.CLOSING
    stays.time_passes()
    assert stays.is_over()


async def test_a_broken_protocol_and_a_refusal_are_answered_in_one_write() -> None:
    book = Playbook()
    assert book.says(b"\x16\x03") == bytes.fromhex("15030100020228")
    assert book.state is State.CLOSING
    book = Playbook()
    assert book.says(GREETING + b"\x05\x01\x00\x03\x03a b\x00\x50")[:2] == b"\x05\x00"
    assert book.state is State.CLOSING


@pytest.mark.parametrize(
    ("request_", "host", "told"),
    [
        (RESOLVE, ip_address("192.0.2.9"), encode_reply(0, ip_address("192.0.2.9"))),
        (RESOLVE, b"a.test", encode_reply(1)),
        (RESOLVE_PTR, b"a.test", encode_reply(0, b"a.test")),
        (RESOLVE_PTR, b"", encode_reply(1)),
        (RESOLVE_PTR, ip_address("192.0.2.9"), encode_reply(1)),
    ],
)
async def test_what_tor_resolves_is_answered_and_closed(
    request_: bytes, host: object, told: bytes
) -> None:
    book = opening(Playbook(), request_)
    assert book.tor_answers(host) == told
    assert book.state is State.CLOSING


# Names


class Answers:
    """A name service whose one answer the test gives, late."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[Target] = asyncio.get_running_loop().create_future()
        self.want: Want | None = None

    async def address_of(
        self, target: Target, key: IsolationKey, want: Want, client: bytes | None
    ) -> Target:
        assert client == CLIENT
        self.want = want
        return await self.answer


async def turns() -> None:
    """Let tasks go on."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_name_of_ours_is_dialled_by_its_answer() -> None:
    names = Answers()
    book = opening(Playbook(names=names), OUR_NAME)
    await turns()
    assert (names.want, book.dials) == (Want.STREAM, [])
    names.answer.set_result(Target("192.0.2.7", 80))
    await turns()
    assert book.dial.target == Target("192.0.2.7", 80)
    assert book.tor_opens() == OK


async def test_a_name_that_has_no_answer_is_refused_and_not_dialled() -> None:
    names = Answers()
    book = opening(Playbook(names=names), OUR_NAME)
    names.answer.set_exception(NamingError(kind=ErrorKind.NAME_ABSENT))
    await turns()
    assert book.client.take() == encode_reply(0xF0)
    assert (book.state, book.dials) == (State.CLOSING, [])


async def test_a_client_that_leaves_takes_its_look_up_with_it() -> None:
    names = Answers()
    book = opening(Playbook(names=names), OUR_NAME)
    await turns()
    book.leaves(broken=True)
    await turns()
    assert names.answer.cancelled()
    assert book.is_over()


async def test_a_defect_of_the_name_service_ends_one_connection() -> None:
    names = Answers()
    book = opening(Playbook(names=names), OUR_NAME)
    names.answer.set_exception(ValueError("a defect"))
    await turns()
    assert book.is_over()
    assert book.services.counters.defects == 1


# Bitcoin


@dataclass
class First:
    first: bytes


class Carries:
    """A Bitcoin side whose one outcome the test gives."""

    ports = frozenset({8333})

    def __init__(self) -> None:
        self.outcome: asyncio.Future[Untranslated | None] = (
            asyncio.get_running_loop().create_future()
        )
        self.early: bytes | None = None
        self.magic = b""

    def is_v1(self, first: bytes) -> bool | None:
        return (first.startswith(self.magic) if first else None) if self.magic else False

    def refuse(self, flow: Flow) -> None:
        raise AssertionError

    async def carry(
        self,
        client: socket.socket,
        early: bytes,
        peer: socket.socket,
        flow: Flow,
        client_id: bytes,
    ) -> Untranslated | None:
        assert (flow.peer.host, client_id) == ("a.test", CLIENT)
        self.early = early
        return await self.outcome


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


async def test_what_is_not_v1_goes_on_in_the_one_relay() -> None:
    bitcoin = Carries()
    book = carried(bitcoin)
    bitcoin.outcome.set_result(First(b"SSH-2.0"))
    await turns()
    assert book.state is State.RELAYING
    assert book.dial.sock.take() == b"SSH-2.0"
    book.tor_says(b"answer", ending=True)
    assert book.client.take() == b"answer"
    book.leaves()
    assert book.is_over()
    assert book.services.counters.bytes_up == 7


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


# All of it


async def aborted_in_the_handshake() -> Playbook:
    return Playbook()


async def aborted_while_opening() -> Playbook:
    return opening(Playbook())


async def aborted_while_relaying() -> Playbook:
    book = opening(Playbook())
    book.tor_opens()
    return book


async def aborted_while_closing() -> Playbook:
    book = opening(Playbook())
    book.tor_refuses(ErrorKind.ONION_NOT_FOUND)
    return book


@pytest.mark.parametrize(
    "script",
    [
        aborted_in_the_handshake,
        aborted_while_opening,
        aborted_while_relaying,
        aborted_while_closing,
    ],
)
async def test_it_can_be_aborted_in_every_phase_once(
    script: Callable[[], Awaitable[Playbook]],
) -> None:
    book = await script()
    book.connection.abort()
    book.connection.abort()
    assert book.is_over()


async def test_a_stream_that_moves_nothing_for_the_idle_timeout_is_ended() -> None:
    book = opening(Playbook())
    book.tor_opens()
    book.time_passes()
    assert book.state is State.RELAYING, "it was opened meanwhile"
    book.time_passes()
    assert book.is_over()


def test_all_transitions_were_walked() -> None:
    """Runs last: a row of the table that no script walks is a row too many."""
    if len(WALKED) < 4:
        pytest.skip("the scripts did not run in this process")
    assert {(state, event) for state, row in TRANSITIONS.items() for event in row} == WALKED
