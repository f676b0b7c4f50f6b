"""Names are looked up, Tor is dialled, and a client that leaves takes both with it."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address

import pytest

from isoproxy.errors import ErrorKind, NamingError
from isoproxy.front.states import State
from isoproxy.isolation import IsolationKey
from isoproxy.namecoin.resolve.answer import Want
from isoproxy.net.reactor import READABLE
from isoproxy.net.target import Target
from isoproxy.socks import encode_reply
from tests.unit.front.playbook import (
    CLIENT,
    OK,
    OUR_NAME,
    RESOLVE,
    RESOLVE_PTR,
    Playbook,
    opening,
    turns,
)


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
    assert book.client.take() == encode_reply(4)
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
