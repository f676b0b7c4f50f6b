"""A stream process: `python -m isoproxy.workers.worker FD`.

Theory of operation
    It accepts on listening sockets that the main process has opened, knows the same epoch
    secret, so it derives the same keys, and carries every stream by itself: from the
    handshake to the last byte.  What only the main process knows (an answer for a name,
    what peers have spoken) it asks over their channel (`remote`).  It obeys
    orders (`messages`) in the order they come.

Invariants
    It ends when the main process does, however that ended: the channel breaks.  It never
    decides about names, and has no other way out than its dialer.  No dial waits for the
    main process.  No signal stops it: who stops the service tells the main process.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Final

from isoproxy.bitcoin.carry import Carrier
from isoproxy.bitcoin.flow import ClosedBy, Flow
from isoproxy.bitcoin.flows import FlowRegistry
from isoproxy.front.frontend import FrontEnd
from isoproxy.front.timed_relay import relay_stream
from isoproxy.isolation import Isolator
from isoproxy.net.reactor import Handler, Reactor, ReactorLoop
from isoproxy.net.resolver_guard import ResolverGuard
from isoproxy.observe.log import configure
from isoproxy.tls.termination import Terminator
from isoproxy.tor.dialer import Dialer
from isoproxy.workers import questions, report
from isoproxy.workers.bitcoin import BitcoinSide, log_end
from isoproxy.workers.channel import Channel
from isoproxy.workers.messages import (
    Begin,
    Configure,
    Drain,
    Epoch,
    Inbox,
    NameReply,
    Order,
    PeerReply,
    Settings,
    StatsRequest,
)
from isoproxy.workers.remote import MainProcess
from isoproxy.workers.report import ToldFlows
from isoproxy.workers.transparent import TransparentSide

ANSWER_S: Final = 5.0
"""Seconds beyond those of a look-up that its reply may take."""
_IGNORED: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """What a stream process is made of, once it has begun."""

    main: MainProcess
    front: FrontEnd
    https: Terminator
    bitcoin: BitcoinSide
    transparent: TransparentSide


class Worker:
    """One stream process on the channel `sock`; `end(status)` ends the process."""

    def __init__(
        self, sock: socket.socket, guard: ResolverGuard, end: Callable[[int], None]
    ) -> None:
        self._guard = guard
        self._end = end
        self._parts: Parts | None = None
        self._safe = True
        self._inbox = Inbox()
        self._tasks: set[asyncio.Task[None]] = set()
        self._reactor = Reactor(asyncio.get_running_loop(), self._defect)
        self._channel = Channel(
            self._reactor,
            sock,
            self._on_packet,
            self._orphaned,
            takes_sockets=True,
            on_taken=self._taken,
        )

    def close(self) -> None:
        """End, and let go of everything."""
        self._channel.close()
        if self._parts is not None:
            self._parts.front.stop_listening()
            self._parts.transparent.close()
            self._parts.front.dialer.close()
        self._reactor.close()

    def _on_packet(self, packet: bytes, sockets: list[socket.socket]) -> None:
        whole = self._inbox.take(packet, sockets)
        if whole is None:
            return
        message, its = whole
        if isinstance(message, NameReply | PeerReply):
            if self._parts is not None:
                self._parts.main.take(message)
        else:
            self._obey(message, its)

    def _taken(self) -> None:
        if self._parts is not None:
            self._parts.main.send_waiting()

    def _obey(self, order: Order, sockets: list[socket.socket]) -> None:
        if isinstance(order, Begin):
            self._parts = self._begin(order)
            self._serve(self._parts, order.settings, sockets)
        parts = self._parts
        assert parts is not None, "the first order is to begin"
        if isinstance(order, Configure):
            self._serve(parts, order.settings, sockets)
            self._spawn(self._answer_settled(parts, order.ticket))
            return
        if isinstance(order, StatsRequest):
            self._spawn(self._report(parts, order.ticket))
            return
        if isinstance(order, Epoch):
            parts.front.isolator.import_state(order.epoch)
        elif isinstance(order, Drain):
            parts.front.stop_listening()
            parts.transparent.close()
            self._spawn(self._drain(parts, order))
            return
        self._answer(parts, order.ticket)

    async def _answer_settled(self, parts: Parts, ticket: int) -> None:
        """Answer once the addresses that are gone are free."""
        await parts.bitcoin.settled()
        self._answer(parts, ticket)

    def _answer(self, parts: Parts, ticket: int) -> None:
        """Say that an order is obeyed, and what has been counted."""
        told = report.sums_of(parts.front, parts.bitcoin.report(), self._guard.refused)
        for part in report.encode(told, ticket, parts.front.dialer.form, safe=self._safe):
            self._channel.send(part)

    async def _report(self, parts: Parts, ticket: int) -> None:
        """Tell of all flows, with as little at a time as streams do not notice."""
        for part in self._written(parts, ticket):
            self._channel.send(part)
            await self._channel.taken()

    def _written(self, parts: Parts, ticket: int) -> Iterator[bytes]:
        told, form = ToldFlows(parts.front), parts.front.dialer.form
        peers = parts.bitcoin.flows()
        yield from report.encode_flows(told, peers, ticket, form, safe=self._safe)
        rest = told.report(parts.bitcoin.report(), self._guard.refused)
        yield from report.encode(rest, ticket, form, safe=self._safe)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _begin(self, order: Begin) -> Parts:
        isolator = Isolator(verbatim=order.verbatim)
        isolator.import_state(order.epoch)
        dialer = Dialer(self._reactor, isolator, order.settings.dialer)
        main = MainProcess(isolator, self._ask, lambda: self._channel.backlog)
        registry = FlowRegistry(log_end)
        carrier = Carrier(dialer, self._relay_stream, registry, main)
        https = Terminator(dialer, isolator, main)
        front = FrontEnd(
            self._reactor,
            isolator,
            dialer,
            names=main,
            bitcoin=carrier,
            https=https,
            processes=order.processes,
        )
        bitcoin = BitcoinSide(main, carrier, registry, self._relay_stream)
        return Parts(main, front, https, bitcoin, TransparentSide(front))

    def _serve(self, parts: Parts, settings: Settings, sockets: list[socket.socket]) -> None:
        level, form, self._safe = settings.log
        configure(level=level, form=form, safe=self._safe)
        front, count = parts.front, len(settings.listeners)
        front.stop_listening()
        front.settings.limits = settings.limits
        front.dialer.follow(settings.dialer)
        parts.https.issuer = settings.tls
        parts.main.name_deadline_s = settings.name_deadline_s + ANSWER_S
        rest = count + sum(plan.sockets for plan in settings.transparent)
        for listener, sock in zip(settings.listeners, sockets[:count], strict=True):
            front.open(listener, sock)
        parts.transparent.serve(settings.transparent, sockets[count:rest])
        parts.bitcoin.serve(front, settings.bitcoin, sockets[rest:])

    async def _drain(self, parts: Parts, order: Drain) -> None:
        front, peers = parts.front, parts.bitcoin
        await peers.stop_accepting()
        self._answer(parts, order.ticket)  # which says that nobody is accepted any more
        await asyncio.gather(front.emptied(order.seconds), peers.drain(order.seconds))
        await front.drain(0)
        self._channel.close()

    def _ask(self, question: questions.Question) -> None:
        self._channel.send(questions.encode(question))

    async def _relay_stream(
        self, client: socket.socket, peer: socket.socket, first: bytes, flow: Flow
    ) -> ClosedBy:
        assert self._parts is not None, "a stream has a front end"
        return await relay_stream(self._parts.front.services, client, peer, first, flow.relayed)

    def _orphaned(self) -> None:
        """Nobody is left who could tell of a new epoch: end, and every stream with it."""
        sys.stdout.flush()
        self._end(0)

    def _defect(self, handler: Handler, error: Exception) -> None:
        if self._parts is None or handler is self._channel:
            self._end(1)
        else:
            self._parts.front.internal_error(handler, error)


async def _run(sock: socket.socket, guard: ResolverGuard) -> None:
    worker = Worker(sock, guard, os._exit)
    try:
        await asyncio.Event().wait()
    finally:
        worker.close()


def main() -> None:
    """Serve on the channel whose descriptor is the first argument."""
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    guard = ResolverGuard()
    guard.install()
    sock = socket.socket(fileno=int(sys.argv[1]))
    with asyncio.Runner(loop_factory=ReactorLoop) as runner:
        runner.run(_run(sock, guard))


if __name__ == "__main__":
    main()
