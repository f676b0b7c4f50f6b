"""What nftables redirects to us, `[[transparent]]`: sockets opened at the start.

Theory of operation
    All sockets of one section are served by one stream process, which knows what its virtual
    addresses stand for.  A reload changes none of them: they wait for a restart.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, TextIO

from isoproxy.config import Config, TransparentConfig
from isoproxy.daemon.announce import announce, announce_transparent
from isoproxy.daemon.settings.front import transparent_listener
from isoproxy.daemon.status.snapshot import ListenerView
from isoproxy.errors import OperationError
from isoproxy.net.endpoint import Endpoint
from isoproxy.net.listening import ListeningSocket
from isoproxy.transparent.answer import IPV4_ONLY, IPV6_ONLY
from isoproxy.workers.messages import TransparentPlan

_MODE: Final = 0o600


@dataclass(frozen=True, slots=True, eq=False)
class Redirected:
    """One section, its sockets, and the number of the stream process that serves it."""

    config: TransparentConfig
    sockets: list[socket.socket]
    index: int

    @property
    def place(self) -> str:
        return f"transparent {self.config.name}"

    def address(self) -> str:
        """Where it listens."""
        return str(Endpoint.tcp(*self.sockets[0].getsockname()[:2]))


class TransparentSockets:
    """Those of all sections, for `processes` stream processes."""

    def __init__(self, processes: int) -> None:
        self._processes: Final = processes
        self._open: Final[dict[str, Redirected]] = {}

    def open(self, config: Config, out: TextIO) -> None:
        """Listen, and say where; raises OperationError."""
        for number, its in enumerate(config.transparent):
            sockets = [ListeningSocket.open(its.address, _MODE).socket]
            opened = Redirected(its, sockets, number % self._processes)
            self._open[opened.place] = opened
            announce_transparent(its.name, opened.address(), its.isolate, out)
            if its.dns is not None:
                sockets.append(_udp(its.dns))
                announce(
                    f"listening dns {Endpoint.tcp(*sockets[1].getsockname()[:2])} virtual", out
                )

    def plans(self, config: Config, index: int) -> Iterator[TransparentPlan]:
        """What the stream process of that number serves."""
        for place, its in self._open.items():
            if its.index == index:
                families = IPV4_ONLY if its.config.address.family == socket.AF_INET else IPV6_ONLY
                listener = transparent_listener(config, its.config)
                yield TransparentPlan(place, listener, 1, len(its.sockets), families)

    def sockets_of(self, plan: TransparentPlan) -> list[socket.socket]:
        """Those that go with a plan of ours; none for another one."""
        return self._open[plan.place].sockets if plan.place in self._open else []

    def views(self) -> list[ListenerView]:
        """Those that are open as a status shows them."""
        return [
            ListenerView(its.config.name, its.address(), its.config.isolate)
            for its in self._open.values()
        ]

    def close(self) -> None:
        """Close all."""
        for its in self._open.values():
            for sock in its.sockets:
                sock.close()
        self._open.clear()


def _udp(endpoint: Endpoint) -> socket.socket:
    with contextlib.ExitStack() as undo:
        sock = undo.enter_context(socket.socket(endpoint.family, socket.SOCK_DGRAM))
        try:
            if sock.family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(endpoint.address)
        except OSError as error:
            raise OperationError(
                f"cannot answer DNS at {endpoint}: {error.strerror}; set transparent.dns to an "
                "address and port that are free and allowed"
            ) from None
        undo.pop_all()
    return sock
