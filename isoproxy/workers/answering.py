"""The main process's answers to the questions of one stream process.

Theory of operation
    A question is a task under the key that `Isolator.import_key` has judged, for as long
    as nobody withdraws it.  With a key of an older epoch it has its reply at once.

Invariants
    The questions under way are bounded, for the process and for each client (`UnderWay`); a process
    that asks more does not keep to what was agreed (ValueError).  Every question that is not
    withdrawn has one reply.  Nothing is looked up under a key of an older epoch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

from isoproxy.bitcoin.known_peers import KnownPeers, Spoken
from isoproxy.errors import ErrorKind, IsoproxyError, NamingError, PolicyRefusal
from isoproxy.front.services import Names
from isoproxy.isolation import IsolationKey, Isolator
from isoproxy.namecoin.resolve.answer import Site, Want
from isoproxy.net.target import Target
from isoproxy.observe.log import logger
from isoproxy.tls.termination import Sites
from isoproxy.workers.messages import NameReply, PeerReply, Reply
from isoproxy.workers.questions import (
    MAX_UNDER_WAY,
    NameQuestion,
    PeerNotice,
    PeerQuestion,
    Question,
    UnderWay,
    Withdrawal,
)

_log: Final = logger("workers")

_Work = Callable[[], Awaitable[Reply]]


class NameAnswers(Names, Sites, Protocol):
    """A name service that is asked for places, and for sites."""


@dataclass(frozen=True, slots=True, eq=False)
class MainServices:
    """What only the main process knows; `names()` is the name service of now, if any."""

    isolator: Isolator
    names: Callable[[], NameAnswers | None]
    peers: KnownPeers


class Answering:
    """Answers one process through `send`, until `close`."""

    def __init__(self, services: MainServices, send: Callable[[Reply], None]) -> None:
        self._services = services
        self._send = send
        self._tasks: dict[int, tuple[asyncio.Task[None], bytes]] = {}
        self._under_way = UnderWay(MAX_UNDER_WAY)

    def __len__(self) -> int:
        """How many questions are under way."""
        return len(self._under_way)

    def take(self, question: Question) -> None:
        """Begin to answer; raises ValueError for what was not agreed."""
        match question:
            case NameQuestion(number):
                if (key := self._key(question.key)) is None:
                    self._send(NameReply(number, kind=ErrorKind.STALE_KEY))
                else:
                    self._begin(number, key, partial(self._look_up, question, key))
            case PeerQuestion(number, peer):
                if (key := self._key(question.key)) is None:
                    self._send(PeerReply(number, Spoken.V2))  # nothing may fall back
                else:
                    self._begin(number, key, partial(self._look_back, number, peer, key))
            case PeerNotice(peer, exported, spoken):
                if (key := self._key(exported)) is not None:
                    self._services.peers.note(key, peer, spoken)
            case Withdrawal(number):
                self._forget(number, cancel=True)

    def close(self) -> None:
        """Withdraw all questions."""
        for number in list(self._tasks):
            self._forget(number, cancel=True)

    def _begin(self, number: int, key: IsolationKey, work: _Work) -> None:
        if number in self._tasks:
            raise ValueError("two questions of one number")
        if not self._under_way.has_room(key.client):
            raise ValueError("more questions than agreed")
        task = asyncio.get_running_loop().create_task(self._answer(number, work))
        self._tasks[number] = task, key.client
        self._under_way.begin(key.client)

    async def _answer(self, number: int, work: _Work) -> None:
        reply = await work()
        if self._forget(number):
            self._send(reply)

    async def _look_up(self, question: NameQuestion, key: IsolationKey) -> Reply:
        number = question.number
        try:
            site = await self._site_of(question, key)
            return NameReply(number, site.target, tlsa=site.tlsa)
        except IsoproxyError as error:
            return NameReply(number, kind=error.kind)
        except Exception as error:
            _log.err("internal_error", error=error)
            return NameReply(number, kind=ErrorKind.INTERNAL)

    async def _site_of(self, question: NameQuestion, key: IsolationKey) -> Site:
        names, want, client = self._services.names(), question.want, question.client
        if names is None:
            raise NamingError(kind=ErrorKind.NAME_NEVER_SENT_TO_TOR)
        if want is Want.SITE:
            return await names.site_of(question.name, key, client)
        return Site(await names.address_of(question.name, key, want, client))

    async def _look_back(self, number: int, peer: Target, key: IsolationKey) -> Reply:
        return PeerReply(number, await self._services.peers.spoken(key, peer))

    def _key(self, exported: bytes) -> IsolationKey | None:
        try:
            return self._services.isolator.import_key(exported)
        except PolicyRefusal:
            return None

    def _forget(self, number: int, *, cancel: bool = False) -> bool:
        """Whether the question was under way until now."""
        if number not in self._tasks:
            return False
        task, client = self._tasks.pop(number)
        self._under_way.end(client)
        if cancel:
            task.cancel()
        return True
