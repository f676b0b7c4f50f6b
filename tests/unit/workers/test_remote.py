"""A stream process's side: what it asks, what it is granted, and when it stops to wait."""

from __future__ import annotations

import asyncio

import pytest

from isoproxy.errors import ErrorKind, NamingError
from isoproxy.isolation import IsolationKey, Isolator
from isoproxy.namecoin.resolve.answer import Want
from isoproxy.net.target import Target
from isoproxy.workers import remote as module
from isoproxy.workers.messages import NameReply, ProvenReply
from isoproxy.workers.questions import (
    NameQuestion,
    ProvenNotice,
    ProvenQuestion,
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
    assert await world.main.is_proven(world.key, NAME)
    world.main.remember(world.key, NAME)
    assert world.sent == []


async def test_no_client_asks_more_than_is_granted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_UNDER_WAY", 3)
    monkeypatch.setattr(module, "MAX_PER_CLIENT", 2)
    world = World()
    tasks = [world.ask(client) for client in (b"u1", b"u1", b"u1", b"u2", b"u3")]
    done, pending = await asyncio.wait(tasks, timeout=0.1)
    assert done == {tasks[2], tasks[4]}
    for task in done:
        error = task.exception()
        assert isinstance(error, NamingError)
        assert error.kind is ErrorKind.BUSY
    assert len(world.sent) == 3
    assert await world.main.is_proven(world.key, NAME)
    for task in pending:
        task.cancel()
    await asyncio.wait(pending)
    again = world.ask(b"u1")
    await world.asked(7)
    again.cancel()


async def test_a_main_process_that_does_not_read_is_asked_no_more() -> None:
    world = World()
    world.backlog = module.MAX_BACKLOG
    with pytest.raises(NamingError) as failure:
        await world.ask()
    assert failure.value.kind is ErrorKind.BUSY
    assert world.sent == []


@pytest.mark.parametrize("proven", [False, True])
async def test_what_is_known_of_a_peer_is_told(proven: bool) -> None:
    world = World()
    asking = asyncio.create_task(world.main.is_proven(world.key, NAME))
    question = await world.asked()
    assert isinstance(question, ProvenQuestion)
    world.main.take(ProvenReply(question.number, proven))
    assert await asking is proven
    world.main.remember(world.key, NAME)
    assert isinstance(world.sent[1], ProvenNotice)
    assert world.sent[1].peer == NAME


async def test_without_a_reply_a_peer_counts_as_proven(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PROVEN_S", 0.01)
    assert await World().main.is_proven(World().key, NAME)
    world = World()
    assert await world.main.is_proven(world.key, NAME)
    assert isinstance(world.sent[1], Withdrawal)
