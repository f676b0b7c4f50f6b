"""The main process's side: what it answers, and what it does not put up with."""

from __future__ import annotations

import asyncio
import time

import pytest

from isoproxy.bitcoin.known_peers import PeerMemory, Spoken
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
from isoproxy.workers import answering as module
from isoproxy.workers.answering import Answering, MainServices
from isoproxy.workers.messages import NameReply, PeerReply, Reply
from isoproxy.workers.questions import NameQuestion, PeerNotice, PeerQuestion, Withdrawal
from tests.kit.waiting import until

NAME = Target.parse("d.bit", 80)
PEER = Target.parse("peer.example", 8333)
FOUND = Target.parse("192.0.2.1", 80)


class Names:
    """Answers once `open` is set, or raises `error`."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.asked: list[tuple[Target, IsolationKey, Want, bytes | None]] = []
        self.cancelled = 0
        self.error: Exception | None = None

    async def address_of(
        self, target: Target, key: IsolationKey, want: Want, client: bytes | None
    ) -> Target:
        self.asked.append((target, key, want, client))
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.error is not None:
            raise self.error
        return FOUND

    async def site_of(self, target: Target, key: IsolationKey, client: bytes | None) -> Site:
        return Site(await self.address_of(target, key, Want.SITE, client), (b"record",))


class World:
    def __init__(self, *, named: bool = True) -> None:
        self.isolator = Isolator()
        self.key = self.isolator.own_key("a client's")
        self.names = Names()
        self.known = PeerMemory(time.monotonic)
        self.replies: list[Reply] = []
        names = self.names if named else None
        services = MainServices(self.isolator, lambda: names, self.known)
        self.answering = Answering(services, self.replies.append)

    def ask(self, number: int, client: bytes | None = None) -> None:
        key = self.isolator.export_key(self.key)
        self.answering.take(NameQuestion(number, NAME, Want.STREAM, key, client))


async def test_a_name_is_looked_up_under_the_very_key_for_the_very_client() -> None:
    world = World()
    world.names.open.set()
    world.ask(7, b"u1")
    await until(lambda: world.replies)
    assert world.replies == [NameReply(7, FOUND)]
    assert world.names.asked == [(NAME, world.key, Want.STREAM, b"u1")]
    assert len(world.answering) == 0


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (NamingError(kind=ErrorKind.NAME_EXPIRED), ErrorKind.NAME_EXPIRED),
        (RuntimeError("a defect"), ErrorKind.INTERNAL),
    ],
)
async def test_a_failure_is_a_reply_too(error: Exception, kind: ErrorKind) -> None:
    world = World()
    world.names.error = error
    world.names.open.set()
    world.ask(1)
    await until(lambda: world.replies)
    assert world.replies == [NameReply(1, kind=kind)]


async def test_a_key_of_an_older_epoch_looks_nothing_up_and_lets_nothing_fall_back() -> None:
    world = World()
    key = world.isolator.export_key(world.key)
    world.isolator.new_epoch()
    world.answering.take(NameQuestion(1, NAME, Want.STREAM, key, None))
    world.answering.take(PeerNotice(PEER, key, Spoken.V1))
    world.answering.take(PeerQuestion(2, PEER, key))
    await until(lambda: len(world.replies) == 2)
    assert world.replies == [NameReply(1, kind=ErrorKind.STALE_KEY), PeerReply(2, Spoken.V2)]
    assert world.names.asked == []


async def test_without_names_the_name_goes_nowhere() -> None:
    world = World(named=False)
    world.ask(1)
    await until(lambda: world.replies)
    assert world.replies == [NameReply(1, kind=ErrorKind.NAME_NEVER_SENT_TO_TOR)]


async def test_what_is_withdrawn_is_looked_up_no_longer_and_has_no_reply() -> None:
    world = World()
    world.ask(1)
    world.ask(2)
    await until(lambda: len(world.names.asked) == 2)
    world.answering.take(Withdrawal(1))
    world.answering.take(Withdrawal(99))
    await until(lambda: world.names.cancelled == 1)
    world.names.open.set()
    await until(lambda: world.replies)
    assert world.replies == [NameReply(2, FOUND)]


async def test_with_its_process_every_question_ends() -> None:
    world = World()
    world.ask(1)
    world.ask(2, b"u1")
    await until(lambda: len(world.names.asked) == 2)
    world.answering.close()
    await until(lambda: world.names.cancelled == 2)
    assert len(world.answering) == 0
    assert world.replies == []


async def test_more_questions_than_agreed_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the stream process holds back by (`remote`) is what is put up with here."""
    monkeypatch.setattr(module, "MAX_UNDER_WAY", 4)
    world = World()
    other = world.isolator.key_for(
        ListenerRule(own_group("a")),
        IsolationTuple(client_of_address("192.0.2.7"), ClientProtocol.SOCKS5),
    )
    world.ask(1)
    with pytest.raises(ValueError, match="one number"):
        world.ask(1)
    world.ask(2)
    with pytest.raises(ValueError, match="agreed"):
        world.ask(3)
    with pytest.raises(ValueError, match="agreed"):
        world.answering.take(PeerQuestion(4, PEER, world.isolator.export_key(world.key)))
    theirs = world.isolator.export_key(other)
    world.answering.take(NameQuestion(5, NAME, Want.STREAM, theirs, None))
    world.answering.take(Withdrawal(1))
    world.answering.take(Withdrawal(2))
    world.ask(6)
    world.answering.close()


async def test_peers_are_remembered_under_their_key_alone() -> None:
    world = World()
    key = world.isolator.export_key(world.key)
    other = world.isolator.export_key(world.isolator.own_key("another's"))
    world.answering.take(PeerQuestion(1, PEER, key))
    await until(lambda: world.replies)
    world.answering.take(PeerNotice(PEER, key, Spoken.V1))
    world.answering.take(PeerQuestion(2, PEER, key))
    await until(lambda: len(world.replies) == 2)
    world.answering.take(PeerNotice(PEER, key, Spoken.V2))
    world.answering.take(PeerQuestion(3, PEER, key))
    world.answering.take(PeerQuestion(4, PEER, other))
    await until(lambda: len(world.replies) == 4)
    assert world.replies == [
        PeerReply(1, Spoken.NOTHING),
        PeerReply(2, Spoken.V1),
        PeerReply(3, Spoken.V2),
        PeerReply(4, Spoken.NOTHING),
    ]


async def test_a_key_whose_identity_was_renewed_looks_nothing_up() -> None:
    world = World()
    key = world.isolator.export_key(world.key)
    world.isolator.renew(world.key.label)
    world.answering.take(NameQuestion(1, NAME, Want.STREAM, key, None))
    await until(lambda: world.replies)
    assert world.replies == [NameReply(1, kind=ErrorKind.STALE_KEY)]
    assert world.names.asked == []


async def test_a_site_is_asked_for_with_what_its_name_says_of_it() -> None:
    world = World()
    world.names.open.set()
    key = world.isolator.export_key(world.key)
    world.answering.take(NameQuestion(3, NAME, Want.SITE, key, b"u1"))
    await until(lambda: world.replies)
    assert world.replies == [NameReply(3, FOUND, tlsa=(b"record",))]
    assert world.names.asked == [(NAME, world.key, Want.SITE, b"u1")]
