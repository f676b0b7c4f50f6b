"""The UDP side of the DNS server: datagrams in and out.

Theory of operation
    asyncio's own transport takes one datagram for each turn of the event loop, which costs
    more than to answer one that is asked again.  Here as many as have come are taken at
    once, up to `MOST_PER_TURN`, so that a flood leaves the loop's other work its turn.

Invariants
    Nothing waits: an answer that the kernel has no room for is dropped, as UDP may.

Specification: RFC 1035 §4.2.1.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Any, Final

MOST_PER_TURN: Final = 32
_MOST_BYTES: Final = 65535


class UdpSocket:
    """Calls `received(packet, sender)` for each datagram that comes to `sock`, which is bound and
    does not block, until it is closed."""

    def __init__(
        self, sock: socket.socket, received: Callable[[bytes, tuple[Any, ...]], None]
    ) -> None:
        self._sock = sock
        self._received = received
        self._loop = asyncio.get_running_loop()
        self._is_open = True
        self._loop.add_reader(sock, self._read)

    def send(self, packet: bytes, receiver: tuple[Any, ...]) -> None:
        """Send a datagram, if that can be done now."""
        if self._is_open:
            with contextlib.suppress(OSError):
                self._sock.sendto(packet, receiver)

    def close(self) -> None:
        """Stop; what is sent from now on is dropped."""
        if self._is_open:
            self._is_open = False
            self._loop.remove_reader(self._sock)
            self._sock.close()

    def _read(self) -> None:
        for _ in range(MOST_PER_TURN):
            if not self._is_open:
                return
            try:
                packet, sender = self._sock.recvfrom(_MOST_BYTES)
            except BlockingIOError:
                return
            except OSError:
                continue  # what became of an answer of ours, whose receiver is gone
            self._received(packet, sender)
