"""What a stream process asks of the main one, as if it were its own.

Theory of operation
    A question goes out over the channel and has a future until its reply comes.  When the
    one who asked is cancelled (its client left), the question is withdrawn.

Invariants
    The questions under way are bounded, for the process and for each client, by what the
    main process grants (`questions.UnderWay`).  Without a reply in time a name has no answer, and a
    peer counts as proven: nothing goes out in plaintext because somebody was slow.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from isoproxy.errors import ErrorKind, NamingError, PolicyRefusal
from isoproxy.isolation import IsolationKey, Isolator
from isoproxy.namecoin.resolve.answer import Want
from isoproxy.net.target import Target
from isoproxy.workers.messages import NameReply, ProvenReply, Reply
from isoproxy.workers.questions import (
    MAX_UNDER_WAY,
    NameQuestion,
    ProvenNotice,
    ProvenQuestion,
    Question,
    UnderWay,
    Withdrawal,
)

MAX_BACKLOG: Final = 1024
"""Messages that the main process has not read yet, beyond which it is asked no more."""
PROVEN_S: Final = 10.0
"""Seconds in which the main process must have said what it knows of a peer."""


class MainProcess:
    """The main process, seen from a stream process: names, and peers proven to speak v2.

    `send` sends a question; `backlog()` is how many messages have not been taken yet.
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

    def take(self, reply: Reply) -> None:
        """A reply came; one to a question that was withdrawn says nothing any more."""
        future = self._waiting.get(reply.number)
        if future is not None and not future.done():
            future.set_result(reply)

    async def address_of(
        self, target: Target, key: IsolationKey, want: Want, client: bytes | None
    ) -> Target:
        """The main process's answer for a name; raises NamingError."""
        try:
            exported = self._isolator.export_key(key)
        except PolicyRefusal as refusal:
            raise NamingError(kind=refusal.kind) from None
        if not self._may_ask(key):
            raise NamingError(kind=ErrorKind.BUSY)
        with self._question(key) as (number, future):
            self._send(NameQuestion(number, target, want, exported, client))
            try:
                async with asyncio.timeout(self.name_deadline_s):
                    reply = await future
            except TimeoutError:
                raise NamingError(kind=ErrorKind.NAME_TIMEOUT) from None
        assert isinstance(reply, NameReply)
        if reply.target is None:
            raise NamingError(kind=reply.kind)
        return reply.target

    async def is_proven(self, key: IsolationKey, peer: Target) -> bool:
        """Whether `peer` has proven under `key` that it speaks v2."""
        try:
            exported = self._isolator.export_key(key)
        except PolicyRefusal:
            return True
        if not self._may_ask(key):
            return True
        with self._question(key) as (number, future):
            self._send(ProvenQuestion(number, peer, exported))
            try:
                async with asyncio.timeout(PROVEN_S):
                    reply = await future
            except TimeoutError:
                return True
        assert isinstance(reply, ProvenReply)
        return reply.proven

    def remember(self, key: IsolationKey, peer: Target) -> None:
        """`peer` has proven under `key` that it speaks v2."""
        if self._isolator.is_current(key):
            self._send(ProvenNotice(peer, self._isolator.export_key(key)))

    def _may_ask(self, key: IsolationKey) -> bool:
        return self._under_way.has_room(key.client) and self._backlog() < MAX_BACKLOG

    @contextmanager
    def _question(self, key: IsolationKey) -> Iterator[tuple[int, asyncio.Future[Reply]]]:
        """A question, until it has its reply or is withdrawn."""
        number, future = next(self._numbers), asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        self._under_way.begin(key.client)
        try:
            yield number, future
        finally:
            del self._waiting[number]
            self._under_way.end(key.client)
            if not future.done() or future.cancelled():
                self._send(Withdrawal(number))
