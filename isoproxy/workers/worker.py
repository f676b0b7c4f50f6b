"""A process that serves clients beside the main one: `python -m isoproxy.workers.worker FD`.

Theory of operation
    A worker accepts on the same listening sockets as the main process and knows the same
    epoch secret, so it derives the same keys, and carries plain streams by itself: from
    the handshake to the last byte.  What is not plain (a name of ours, a Bitcoin peer)
    it hands over as soon as it knows the request: the client's socket and all bytes the
    client has said.  It obeys orders (`orders`) in the order they come.

Invariants
    It ends when the main process does, however that ended: the channel breaks.  It never
    decides about names, and has no other way out than the same dialer.  No signal stops
    it: who stops the service tells the main process.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import socket
import sys
from typing import Final

from isoproxy.front.frontend import FrontEnd
from isoproxy.front.judgement import ProxyRequest
from isoproxy.isolation import Isolator
from isoproxy.net.reactor import Handler, Reactor, ReactorLoop
from isoproxy.net.resolver_guard import ResolverGuard
from isoproxy.observe.log import configure
from isoproxy.socks import Command
from isoproxy.tor.dialer import Dialer
from isoproxy.workers import messages as orders
from isoproxy.workers import report
from isoproxy.workers.channel import Channel
from isoproxy.workers.messages import Begin, Configure, Drain, Epoch, Settings

MAX_BACKLOG: Final = 256
"""Clients that wait to be handed over while the main process is busy; more are refused."""
_IGNORED: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Worker:
    """One worker on the channel `sock`; it ends the process when the channel does."""

    def __init__(self, sock: socket.socket, guard: ResolverGuard) -> None:
        self._guard = guard
        self._front: FrontEnd | None = None
        self._ports_of_main: frozenset[int] = frozenset()
        self._safe = True
        self._draining: asyncio.Task[None] | None = None
        self._reactor = Reactor(asyncio.get_running_loop(), self._defect)
        self._channel = Channel(self._reactor, sock, self._obey, self._orphaned)

    # What the front end asks of the main process.

    def takes(self, request: ProxyRequest) -> bool:
        """Whether a request is for the main process to fulfil."""
        if request.resolve_first:
            return True
        return request.command is Command.CONNECT and request.target.port in self._ports_of_main

    def take(self, name: str, at: str, heard: bytes, client: socket.socket) -> None:
        """Hand a client over; `heard` is all it has said."""
        if self._channel.backlog >= MAX_BACKLOG:
            client.close()
            return
        words = base64.b64encode(heard).decode()
        message = json.dumps({"client": [name, at], "heard": words}).encode()
        self._channel.send(message, [client], give=True)

    def _obey(self, message: bytes, sockets: list[socket.socket]) -> None:
        order = orders.decode(message)
        if isinstance(order, Begin):
            self._front = self._begin(order)
            self._serve(self._front, order.settings, sockets)
        front = self._front
        assert front is not None
        if isinstance(order, Configure):
            self._serve(front, order.settings, sockets)
        elif isinstance(order, Epoch):
            front.isolator.import_state(order.epoch)
        elif isinstance(order, Drain):
            for name in list(front.listeners):  # before the answer, which says so
                front.close(name)
            self._draining = asyncio.create_task(self._drain(front, order.seconds))
        told = report.report_of(front, self._guard.refused)
        for part in report.encode(told, order.ticket, front.dialer.form, safe=self._safe):
            self._channel.send(part)

    def _begin(self, order: Begin) -> FrontEnd:
        isolator = Isolator(verbatim=order.verbatim)
        isolator.import_state(order.epoch)
        dialer = Dialer(self._reactor, isolator, order.settings.dialer)
        return FrontEnd(self._reactor, isolator, dialer, main=self, processes=order.workers)

    def _serve(self, front: FrontEnd, settings: Settings, sockets: list[socket.socket]) -> None:
        level, form, self._safe = settings.log
        configure(level=level, form=form, safe=self._safe)
        for name in list(front.listeners):
            front.close(name)
        front.settings.limits = settings.limits
        front.dialer.settings = settings.dialer
        self._ports_of_main = settings.ports_of_main
        for listener, sock in zip(settings.listeners, sockets, strict=True):
            front.open(listener, sock)

    async def _drain(self, front: FrontEnd, seconds: float) -> None:
        await front.drain(seconds)
        self._channel.close()

    def _orphaned(self) -> None:
        """Nobody is left who could tell of a new epoch: end, and every stream with it."""
        sys.stdout.flush()
        os._exit(0)

    def _defect(self, handler: Handler, error: Exception) -> None:
        if self._front is None or handler is self._channel:
            os._exit(1)
        self._front.internal_error(handler, error)


async def _run(sock: socket.socket, guard: ResolverGuard) -> None:
    worker = Worker(sock, guard)
    await asyncio.Event().wait()
    del worker


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
