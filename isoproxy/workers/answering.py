"""The main process's answers to the questions of one stream process.

Theory of operation
    A question is a task under the key that `Isolator.import_key` has judged, for as long
    as nobody withdraws it.

Invariants
    The questions under way are bounded, for the process and for each client; a process
    that asks more does not keep to what was agreed (ValueError).  Every question that is not
    withdrawn has one reply.  Nothing is looked up under a key of an older epoch.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from isoproxy.bitcoin.known_peers import ProvenPeers
from isoproxy.errors import ErrorKind, IsoproxyError, NamingError, PolicyRefusal
from isoproxy.front.services import Names
from isoproxy.isolation import IsolationKey, Isolator
from isoproxy.net.target import Target
from isoproxy.observe.log import logger
from isoproxy.workers.messages import NameReply, ProvenReply, Reply
from isoproxy.workers.questions import (
    MAX_PER_CLIENT,
    MAX_UNDER_WAY,
    NameQuestion,
    ProvenNotice,
    ProvenQuestion,
    Question,
    Withdrawal,
)

_log: Final = logger("workers")

_Work = Callable[[], Awaitable[Reply]]


@dataclass(frozen=True, slots=True, eq=False)
class MainServices:
    """What only the main process knows; `names()` is the name service of now, if any."""

    isolator: Isolator
    names: Callable[[], Names | None]
    proven: ProvenPeers


class Answering:
    """Answers one process through `send`, until `close`."""

    def __init__(self, services: MainServices, send: Callable[[Reply], None]) -> None:
        self._services = services
        self._send = send
        self._under_way: dict[int, tuple[asyncio.Task[None], bytes | None]] = {}
        self._per_client: Counter[bytes | None] = Counter()

    def __len__(self) -> int:
        """How many questions are under way."""
        return len(self._under_way)

    def take(self, question: Question) -> None:
        """Begin to answer; raises ValueError for what was not agreed."""
        match question:
            case NameQuestion(number, client=client):
                self._begin(number, client, partial(self._look_up, question))
            case ProvenQuestion(number):
                self._begin(number, None, partial(self._look_back, question))
            case ProvenNotice(peer, exported):
                if (key := self._key(exported)) is not None:
                    self._services.proven.remember(key, peer)
            case Withdrawal(number):
                self._forget(number, cancel=True)

    def close(self) -> None:
        """Withdraw all questions."""
        for number in list(self._under_way):
            self._forget(number, cancel=True)

    def _begin(self, number: int, client: bytes | None, work: _Work) -> None:
        if number in self._under_way:
            raise ValueError("two questions of one number")
        if len(self._under_way) >= MAX_UNDER_WAY or self._per_client[client] >= MAX_PER_CLIENT:
            raise ValueError("more questions than agreed")
        task = asyncio.get_running_loop().create_task(self._answer(number, work))
        self._under_way[number] = task, client
        self._per_client[client] += 1

    async def _answer(self, number: int, work: _Work) -> None:
        reply = await work()
        if self._forget(number):
            self._send(reply)

    async def _look_up(self, question: NameQuestion) -> Reply:
        number = question.number
        try:
            return NameReply(number, await self._address_of(question))
        except IsoproxyError as error:
            return NameReply(number, kind=error.kind)
        except Exception as error:
            _log.err("internal_error", error=error)
            return NameReply(number, kind=ErrorKind.INTERNAL)

    async def _address_of(self, question: NameQuestion) -> Target:
        key, names = self._key(question.key), self._services.names()
        if key is None:
            raise NamingError(kind=ErrorKind.STALE_KEY)
        if names is None:
            raise NamingError(kind=ErrorKind.NAME_NEVER_SENT_TO_TOR)
        return await names.address_of(question.name, key, question.want, question.client)

    async def _look_back(self, question: ProvenQuestion) -> Reply:
        """With a key of an older epoch nothing may fall back."""
        key = self._key(question.key)
        proven = key is None or await self._services.proven.is_proven(key, question.peer)
        return ProvenReply(question.number, proven)

    def _key(self, exported: bytes) -> IsolationKey | None:
        try:
            return self._services.isolator.import_key(exported)
        except PolicyRefusal:
            return None

    def _forget(self, number: int, *, cancel: bool = False) -> bool:
        """Whether the question was under way until now."""
        task, client = self._under_way.pop(number, (None, None))
        if task is None:
            return False
        self._per_client[client] -= 1
        if not self._per_client[client]:
            del self._per_client[client]
        if cancel:
            task.cancel()
        return True
