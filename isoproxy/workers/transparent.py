"""The programs that know no proxy, in a stream process: their listeners and their DNS.

Theory of operation
    One stream process has all sockets of one `TransparentPlan`, so what virtual addresses
    stand for is known where it is needed, and no dial waits for another process.

Invariants
    What virtual addresses stand for stays over new settings, and ends with its plan.
    A client that asks more than QUERIES_PER_S queries a second is not answered.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from typing import Final

from isoproxy.dns.rate_limit import RateLimit
from isoproxy.front.frontend import FrontEnd
from isoproxy.isolation import budget_of, client_of_address
from isoproxy.transparent.answer import VirtualZone, answer
from isoproxy.transparent.virtual_addresses import ClientMaps
from isoproxy.workers.messages import TransparentPlan

QUERIES_PER_S: Final = 200.0
_BATCH: Final = 64
_MAX_QUERY: Final = 4096


class VirtualDns:
    """Answers on one UDP socket by `plan`, which may be replaced; owns the socket."""

    def __init__(
        self, front: FrontEnd, sock: socket.socket, plan: TransparentPlan, maps: ClientMaps
    ) -> None:
        self.plan = plan
        self._front = front
        self._sock = sock
        self._maps = maps
        self._limit = RateLimit(QUERIES_PER_S)
        front.reactor.register_listener(sock.fileno(), self)

    def on_events(self, fd: int, events: int) -> None:
        for _ in range(_BATCH):
            try:
                packet, sender = self._sock.recvfrom(_MAX_QUERY, socket.MSG_DONTWAIT)
                self._answer(packet, sender)
            except OSError:  # no more, or a client that is gone
                return

    def close(self) -> None:
        self._front.reactor.unregister(self._sock.fileno())
        self._sock.close()

    def _answer(self, packet: bytes, sender: tuple[str, int]) -> None:
        program, now = self.plan.program, self._front.loop.time()
        client = client_of_address(sender[0], *sender[3:]) if program is None else program.client
        if not self._limit.allows(budget_of(client), now):
            return
        zone = VirtualZone(self.plan.listener.rule.top_levels, self.plan.families)
        response = answer(packet, zone, lambda name: self._maps.assign(client, name, now))
        if response is not None:
            self._sock.sendto(response, socket.MSG_DONTWAIT, sender)


class Transparent:
    """One plan that is served."""

    def __init__(
        self, front: FrontEnd, plan: TransparentPlan, sockets: Sequence[socket.socket]
    ) -> None:
        maps = ClientMaps(os.urandom)
        self._listeners = [
            front.transparent(plan.listener, sock, maps, plan.program)
            for sock in sockets[: plan.listeners]
        ]
        self._dns = [VirtualDns(front, sock, plan, maps) for sock in sockets[plan.listeners :]]

    def follow(self, plan: TransparentPlan) -> None:
        """Serve by another plan of the same place."""
        for listener in self._listeners:
            listener.follow(plan.listener)
        for dns in self._dns:
            dns.plan = plan

    def close(self) -> None:
        """Accept and answer no more; connections stay."""
        for listener in self._listeners:
            listener.close()
        for dns in self._dns:
            dns.close()


class TransparentSide:
    """All plans of a stream process."""

    def __init__(self, front: FrontEnd) -> None:
        self._front = front
        self._served: dict[str, Transparent] = {}

    def serve(self, plans: Sequence[TransparentPlan], sockets: Sequence[socket.socket]) -> None:
        """Follow `plans`; `sockets` are theirs, in their order."""
        before, self._served, left = self._served, {}, list(sockets)
        for plan in plans:
            its, left = left[: plan.sockets], left[plan.sockets :]
            served = before.pop(plan.place, None)
            if served is None:
                served = Transparent(self._front, plan, its)
            else:
                served.follow(plan)
                for sock in its:
                    sock.close()
            self._served[plan.place] = served
        for gone in before.values():
            gone.close()

    def close(self) -> None:
        """Serve none any more."""
        self.serve((), ())
