"""What a stream process asks of the main one, as if it were its own.

Theory of operation
    A question goes out over the channel and has a future until its reply comes.  When the
    one who asked is cancelled (its client left), the question is withdrawn.

    Where the main process has not taken what was said before, questions wait here, and go
    out client by client in turn as it takes them.  One that is withdrawn before its turn was
    never asked: who opens and leaves as fast as it can has others wait for a question, not
    for its flood.

Invariants
    The questions under way are bounded, for the process and for each client, by what the
    main process grants (`questions.UnderWay`).  Without a reply in time a name has no answer, and a
    peer counts as one of v2: nothing goes out in plaintext because somebody was slow.  What
    the main process is too slow to be told of a peer is remembered here, in bounded memory.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable
from typing import Final

from isoproxy.bitcoin.known_peers import PeerMemory, Spoken
from isoproxy.errors import ErrorKind, NamingError, PolicyRefusal
from isoproxy.isolation import IsolationKey, Isolator
from isoproxy.namecoin.resolve.answer import Site, Want
from isoproxy.net.target import Target
from isoproxy.workers.messages import NameReply, PeerReply, Reply
from isoproxy.workers.questions import (
    MAX_UNDER_WAY,
    NameQuestion,
    PeerNotice,
    PeerQuestion,
    Question,
    UnderWay,
    UnsentQuestions,
    Withdrawal,
)

MAX_BACKLOG: Final = 1024
"""Messages that the main process has not taken yet, beyond which it is told of no more peers."""
PEER_S: Final = 10.0
"""Seconds in which the main process must have said what it knows of a peer."""


class MainProcess:
    """The main process, seen from a stream process: names, and what peers have spoken.

    `send` sends a question; `backlog()` is how many messages have not been taken yet, and
    `send_waiting` is to be called when that has come to 0.
    `name_deadline_s` may be replaced at any time.
    """

    def __init__(
        self, isolator: Isolator, send: Callable[[Question], None], backlog: Callable[[], int]
    ) -> None:
        self.name_deadline_s = 60.0
        self._isolator = isolator
        self._send = send
        self._backlog = backlog
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Reply]] = {}
        self._under_way = UnderWay(MAX_UNDER_WAY)
        self._unsent = UnsentQuestions()
        self._untold = PeerMemory(time.monotonic)
        isolator.on_new_epoch(self._untold.forget)
        isolator.on_renewal(lambda: self._untold.keep(isolator.is_current))

    def take(self, reply: Reply) -> None:
        """A reply came; one to a question that was withdrawn says nothing any more."""
        future = self._waiting.get(reply.number)
        if future is not None and not future.done():
            future.set_result(reply)

    def send_waiting(self) -> None:
        """Ask what waits, as long as the main process takes it."""
        while not self._backlog() and (question := self._unsent.take()) is not None:
            self._send(question)

    async def address_of(
        self, target: Target, key: IsolationKey, want: Want, client: bytes | None
    ) -> Target:
        """The main process's answer for a name; raises NamingError."""

        def question(number: int, exported: bytes) -> Question:
            return NameQuestion(number, target, want, exported, client)

        return (await self._site(key, question)).target

    async def site_of(self, target: Target, key: IsolationKey, client: bytes | None) -> Site:
        """The main process's answer for the HTTPS server of a name; raises NamingError."""

        def question(number: int, exported: bytes) -> Question:
            return NameQuestion(number, target, Want.SITE, exported, client)

        return await self._site(key, question)

    async def _site(self, key: IsolationKey, question: Callable[[int, bytes], Question]) -> Site:
        reply = await self._ask(key, question, self.name_deadline_s)
        assert isinstance(reply, NameReply)
        if reply.target is None:
            raise NamingError(kind=reply.kind)
        return Site(reply.target, reply.tlsa)

    async def spoken(self, key: IsolationKey, peer: Target) -> Spoken:
        """What `peer` has spoken under `key`."""

        def question(number: int, exported: bytes) -> Question:
            return PeerQuestion(number, peer, exported)

        if self._untold.has(key, peer) is Spoken.V2:
            return Spoken.V2
        try:
            reply = await self._ask(key, question, PEER_S)
        except NamingError:
            return Spoken.V2
        assert isinstance(reply, PeerReply)
        return reply.spoken

    def note(self, key: IsolationKey, peer: Target, spoken: Spoken) -> None:
        """`peer` has spoken so under `key`."""
        if not self._isolator.is_current(key):
            return
        if self._backlog() >= MAX_BACKLOG:
            self._untold.note(key, peer, spoken)
        else:
            self._send(PeerNotice(peer, self._isolator.export_key(key), spoken))

    async def _ask(
        self, key: IsolationKey, question: Callable[[int, bytes], Question], seconds: float
    ) -> Reply:
        """The reply to `question(number, exported key)`; NamingError where there is none."""
        try:
            exported = self._isolator.export_key(key)
        except PolicyRefusal as refusal:
            raise NamingError(kind=refusal.kind) from None
        if not self._under_way.has_room(key.client):
            raise NamingError(kind=ErrorKind.BUSY)
        number, future = next(self._numbers), asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        self._under_way.begin(key.client)
        self._unsent.add(key.client, number, question(number, exported))
        self.send_waiting()
        try:
            async with asyncio.timeout(seconds):
                reply: Reply = await future
                return reply
        except TimeoutError:
            raise NamingError(kind=ErrorKind.NAME_TIMEOUT) from None
        finally:
            del self._waiting[number]
            self._under_way.end(key.client)
            was_sent = not self._unsent.discard(key.client, number)
            if was_sent and (not future.done() or future.cancelled()):
                self._send(Withdrawal(number))
