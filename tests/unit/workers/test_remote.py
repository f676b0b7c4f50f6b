"""A stream process's side: what it asks, what it is granted, and when it stops to wait."""

from __future__ import annotations

import asyncio

import pytest

from isoproxy.bitcoin.known_peers import Spoken
from isoproxy.errors import ErrorKind, NamingError
from isoproxy.isolation import (
    ClientProtocol,
    IsolationKey,
    IsolationTuple,
    Isolator,
    ListenerRule,
    client_of_address,
    own_group,
)
from isoproxy.namecoin.resolve.answer import Site, Want
from isoproxy.net.target import Target
from isoproxy.workers import remote as module
from isoproxy.workers.messages import NameReply, PeerReply
from isoproxy.workers.questions import (
    NameQuestion,
    PeerNotice,
    PeerQuestion,
    Question,
    Withdrawal,
)
from isoproxy.workers.remote import MainProcess
from tests.kit.waiting import until

NAME = Target.parse("d.bit", 80)
FOUND = Target.parse("192.0.2.1", 80)


class World:
    def __init__(self) -> None:
        self.isolator = Isolator()
        self.key = self.isolator.own_key("a client's")
        self.sent: list[Question] = []
        self.backlog = 0
        self.main = MainProcess(self.isolator, self.sent.append, lambda: self.backlog)

    def key_of(self, address: str) -> IsolationKey:
        client = client_of_address(address)
        rule = ListenerRule(own_group("a"))
        return self.isolator.key_for(rule, IsolationTuple(client, ClientProtocol.SOCKS5))

    def ask(
        self, client: bytes | None = None, key: IsolationKey | None = None
    ) -> asyncio.Task[Target]:
        asking = self.main.address_of(NAME, key or self.key, Want.STREAM, client)
        return asyncio.create_task(asking)

    async def asked(self, count: int = 1) -> Question:
        await until(lambda: len(self.sent) >= count)
        return self.sent[count - 1]


async def test_the_reply_is_that_to_the_question() -> None:
    world = World()
    one, two = world.ask(b"u1"), world.ask(b"u2")
    await world.asked(2)
    first, second = world.sent
    assert isinstance(first, NameQuestion)
    assert isinstance(second, NameQuestion)
    assert (first.name, first.want, first.client) == (NAME, Want.STREAM, b"u1")
    assert world.isolator.import_key(first.key) == world.key
    world.main.take(NameReply(second.number, kind=ErrorKind.NAME_ABSENT))
    world.main.take(NameReply(first.number, FOUND))
    assert await one == FOUND
    with pytest.raises(NamingError) as failure:
        await two
    assert failure.value.kind is ErrorKind.NAME_ABSENT
    assert len(world.sent) == 2


async def test_a_client_that_leaves_takes_its_question_with_it() -> None:
    world = World()
    asking = world.ask()
    question = await world.asked()
    assert isinstance(question, NameQuestion)
    asking.cancel()
    await asyncio.wait([asking])
    assert world.sent[1:] == [Withdrawal(question.number)]
    world.main.take(NameReply(question.number, FOUND))


async def test_a_question_has_a_deadline() -> None:
    world = World()
    world.main.name_deadline_s = 0.01
    with pytest.raises(NamingError) as failure:
        await world.ask()
    assert failure.value.kind is ErrorKind.NAME_TIMEOUT
    assert isinstance(world.sent[1], Withdrawal)


async def test_a_key_of_an_older_epoch_asks_nothing() -> None:
    world = World()
    world.isolator.new_epoch()
    with pytest.raises(NamingError) as failure:
        await world.ask()
    assert failure.value.kind is ErrorKind.STALE_KEY
    assert await world.main.spoken(world.key, NAME) is Spoken.V2
    world.main.note(world.key, NAME, Spoken.V2)
    assert world.sent == []


async def test_no_client_asks_more_than_is_granted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of many addresses and many user names is one client."""
    monkeypatch.setattr(module, "MAX_UNDER_WAY", 8)
    world = World()
    machine = [world.key_of(f"127.0.0.{host}") for host in range(1, 7)]
    tasks = [world.ask(key=key) for key in machine]
    done, pending = await asyncio.wait(tasks, timeout=0.1)
    assert done == set(tasks[4:])
    for task in done:
        error = task.exception()
        assert isinstance(error, NamingError)
        assert error.kind is ErrorKind.BUSY
    assert len(world.sent) == 4
    assert await world.main.spoken(machine[0], NAME) is Spoken.V2
    other = world.ask(key=world.key_of("2001:db8::1"))
    await world.asked(5)
    for task in (*pending, other):
        task.cancel()
    await asyncio.wait([*pending, other])
    again = world.ask(key=machine[0])
    await world.asked(11)
    again.cancel()


async def test_questions_wait_for_the_main_process_client_by_client_in_turn() -> None:
    world = World()
    busy, other = world.key_of("192.0.2.1"), world.key_of("192.0.2.2")
    world.backlog = 1
    tasks = [world.ask(b"u%d" % number, busy) for number in range(3)]
    tasks.append(world.ask(b"u9", other))
    await asyncio.sleep(0.01)
    assert world.sent == []
    world.backlog = 0
    world.main.send_waiting()
    assert [asked.client for asked in world.sent if isinstance(asked, NameQuestion)] == [
        b"u0",
        b"u9",
        b"u1",
        b"u2",
    ]
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def test_what_is_withdrawn_before_its_turn_is_not_asked() -> None:
    world = World()
    world.backlog = 1
    for _ in range(5000):  # more than may be under way
        task = world.ask()
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
    world.backlog = 0
    world.main.send_waiting()
    assert world.sent == []
    question = world.ask()
    await world.asked()
    question.cancel()


@pytest.mark.parametrize("spoken", list(Spoken))
async def test_what_is_known_of_a_peer_is_told(spoken: Spoken) -> None:
    world = World()
    asking = asyncio.create_task(world.main.spoken(world.key, NAME))
    question = await world.asked()
    assert isinstance(question, PeerQuestion)
    world.main.take(PeerReply(question.number, spoken))
    assert await asking is spoken
    world.main.note(world.key, NAME, spoken)
    assert isinstance(world.sent[1], PeerNotice)
    assert (world.sent[1].peer, world.sent[1].spoken) == (NAME, spoken)


async def test_what_a_main_process_that_does_not_read_is_not_told_is_known_here() -> None:
    world = World()
    world.backlog = module.MAX_BACKLOG
    world.main.note(world.key, NAME, Spoken.V2)
    assert not world.sent
    world.backlog = 0
    assert await world.main.spoken(world.key, NAME) is Spoken.V2
    assert not world.sent


async def test_what_was_not_told_ends_with_its_key() -> None:
    world = World()
    world.backlog = module.MAX_BACKLOG
    other = world.isolator.own_key("another's")
    for key in (world.key, other):
        world.main.note(key, NAME, Spoken.V2)
    world.isolator.renew(world.key.label)
    assert world.main._untold.has(world.key, NAME) is Spoken.NOTHING
    assert world.main._untold.has(other, NAME) is Spoken.V2
    world.isolator.new_epoch()
    assert world.main._untold.has(other, NAME) is Spoken.NOTHING


async def test_without_a_reply_a_peer_counts_as_one_of_v2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PEER_S", 0.01)
    assert await World().main.spoken(World().key, NAME) is Spoken.V2
    world = World()
    assert await world.main.spoken(world.key, NAME) is Spoken.V2
    assert isinstance(world.sent[1], Withdrawal)


async def test_a_site_is_asked_for_as_a_name_is() -> None:
    world = World()
    asking = asyncio.create_task(world.main.site_of(NAME, world.key, b"u1"))
    question = await world.asked()
    assert isinstance(question, NameQuestion)
    assert (question.name, question.want, question.client) == (NAME, Want.SITE, b"u1")
    world.main.take(NameReply(question.number, FOUND, tlsa=(b"record",)))
    assert await asking == Site(FOUND, (b"record",))
