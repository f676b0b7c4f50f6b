"""Two connected sockets, and a converter between them.

Theory of operation
    One read, one conversion of all that is complete, one write: a batch costs three
    system calls however many messages are in it.  Readiness callbacks of the event loop
    drive it, without a task or a transport for either socket; what the kernel does not
    take at once stays in the converter's outbox, and until that is empty the side it
    came from is not read.  So a connection holds one batch in each direction, no more.

    One timer serves all deadlines; it is not moved when bytes arrive, but asks the
    converter anew when it goes off, and at least every half minute, to give memory back.

    At the end of one side (closed, reset, or broke its protocol) nothing more is read;
    what was already converted is still delivered, within `linger` seconds.

    What conversion costs is metered for each side: beyond FAIR_S a byte it may cost SHARE of a
    processor.  A side that takes more, with decoys or messages of a byte, is read in smaller
    pieces, so that no turn of the loop takes much longer than TURN_S, and rests between them.

    Where the converter hands the flow on nothing may be lost: what is not delivered yet is
    waited for as long as an idle flow may last.
"""

from __future__ import annotations

import asyncio
import math
import socket
import sys
from time import thread_time
from typing import Final

from isoproxy.bitcoin.converter import Converter, Ending, Side
from isoproxy.errors import RemoteProtocolError

FAIR_S: Final = 2e-8
"""Seconds of processor time that a byte may always cost; messages of usual sizes cost less."""
SHARE: Final = 0.1
"""Seconds of processor time beyond that in a second."""
BURST_S: Final = 0.05
"""What may be spent at once."""
TURN_S: Final = 0.005
_FIRST: Final = 16 * 1024
_LEAST: Final = 2048
_TRIM_S: Final = 30.0


class _End:
    """A socket and the side of the converter it belongs to.

    `room` is how many bytes are read at a time, `spent` the processor time on account at `at`.
    """

    __slots__ = ("at", "broke", "reading", "resting", "room", "side", "sock", "spent", "writing")

    def __init__(self, sock: socket.socket, side: Side, broke: Ending) -> None:
        self.sock = sock
        self.side = side
        self.broke = broke
        self.reading = False
        self.writing = False
        self.resting: asyncio.TimerHandle | None = None
        self.room = _FIRST
        self.spent = 0.0
        self.at = 0.0


def no_delay(sock: socket.socket) -> None:
    """Have small writes leave at once, where that is a notion the socket knows."""
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class _Pump:
    def __init__(
        self, converter: Converter, client: socket.socket, peer: socket.socket, linger: float
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._converter = converter
        self._linger = linger
        self._client = _End(client, converter.client, Ending.CLIENT_BROKE_PROTOCOL)
        self._peer = _End(peer, converter.peer, Ending.PEER_BROKE_PROTOCOL)
        self._ending: Ending | None = None
        self._done: asyncio.Future[Ending] = self._loop.create_future()
        self._timer: asyncio.TimerHandle | None = None
        self._active = True

    async def run(self, from_client: bytes, from_peer: bytes) -> Ending:
        """Carry bytes until one side ends; both sockets stay open."""
        for end, data in ((self._client, from_client), (self._peer, from_peer)):
            if data:
                end.side.inbox.reserve(len(data))[:] = data
                self._converted(end, len(data))
        self._settle()
        self._on_timer()
        try:
            return await self._done
        finally:
            self._detach()

    def _detach(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for end in (self._client, self._peer):
            if end.reading:
                self._loop.remove_reader(end.sock)
            if end.writing:
                self._loop.remove_writer(end.sock)
            end.reading = end.writing = False
            if end.resting is not None:
                end.resting.cancel()

    def _on_readable(self, end: _End) -> None:
        try:
            size = end.sock.recv_into(end.side.inbox.space()[: end.room])
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            size = 0
        self._active = True
        if size:
            began = thread_time()
            self._converted(end, size)
            self._meter(end, size, thread_time() - began)
        else:
            self._finish(self._converter.closed(end.side))
        self._settle()

    def _meter(self, end: _End, size: int, took: float) -> None:
        """Count what the conversion of `size` bytes took, and have the side rest for it."""
        excess = took - size * FAIR_S
        if excess <= 0:
            end.room = min(2 * end.room, sys.maxsize)
            return
        if took > TURN_S:
            end.room = max(int(size * TURN_S / took), _LEAST)
        now = self._loop.time()
        end.spent = max(0.0, end.spent - (now - end.at) * SHARE) + excess
        end.at = now
        if end.spent > BURST_S and self._ending is None:
            rest = (end.spent - BURST_S) / SHARE
            end.resting = self._loop.call_later(rest, self._rested, end)

    def _rested(self, end: _End) -> None:
        end.resting = None
        self._settle()

    def _converted(self, end: _End, size: int) -> None:
        try:
            ending = self._converter.received(end.side, size, self._loop.time())
        except RemoteProtocolError:
            self._finish(end.broke)
        except Exception as error:  # a defect must end this flow, and be heard of
            if not self._done.done():
                self._done.set_exception(error)
        else:
            if ending is not None:
                self._finish(ending)

    def _settle(self) -> None:
        """Send what is to be sent, then read whoever may be read."""
        client, peer = self._client, self._peer
        self._flush(client)
        self._flush(peer)
        if self._ending is not None:
            if not client.writing and not peer.writing:
                self._conclude()
            return
        # pairs, because ends that knew each other would outlive the flow, with their buffers
        for end, other in ((client, peer), (peer, client)):
            wanted = not other.writing and end.resting is None and self._converter.accepts(end.side)
            if wanted != end.reading:
                end.reading = wanted
                if wanted:
                    self._loop.add_reader(end.sock, self._on_readable, end)
                else:
                    self._loop.remove_reader(end.sock)

    def _flush(self, end: _End) -> None:
        out = end.side.outbox
        if out.end == out.start or end.writing:
            return
        self._send(end)
        if out.end != out.start:
            end.writing = True
            self._loop.add_writer(end.sock, self._on_writable, end)

    def _send(self, end: _End) -> None:
        out = end.side.outbox
        try:
            out.drop(end.sock.send(out.peek()))
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            end.side.lost += len(out)
            out.drop(len(out))
            self._finish(self._converter.closed(end.side))

    def _on_writable(self, end: _End) -> None:
        self._active = True
        self._send(end)
        if not len(end.side.outbox):
            end.writing = False
            self._loop.remove_writer(end.sock)
        self._settle()

    def _finish(self, ending: Ending) -> None:
        """Stop reading; `_settle` delivers what is left."""
        if self._ending is not None:
            return
        self._ending = ending
        for end in (self._client, self._peer):
            if end.reading:
                end.reading = False
                self._loop.remove_reader(end.sock)
        if self._timer is not None:
            self._timer.cancel()
        seconds = self._linger
        if ending is Ending.HANDED_ON:
            seconds = max(self._converter.deadline() - self._loop.time(), seconds)
        self._timer = self._loop.call_later(seconds, self._conclude)

    def _conclude(self) -> None:
        if self._ending is Ending.HANDED_ON and (self._client.writing or self._peer.writing):
            self._ending = Ending.IDLE
        if not self._done.done() and self._ending is not None:
            self._done.set_result(self._ending)

    def _on_timer(self) -> None:
        if self._ending is not None:
            return
        now = self._loop.time()
        ending = self._converter.on_deadline(now)
        if ending is not None:
            self._finish(ending)
        self._settle()
        if self._ending is None:
            if not self._active:
                self._converter.trim()
            self._active = False
            pause = min(max(self._converter.deadline() - now, 0.001), _TRIM_S)
            self._timer = self._loop.call_later(pause, self._on_timer)


async def pump(
    converter: Converter,
    client: socket.socket,
    peer: socket.socket,
    *,
    linger: float,
    from_client: bytes = b"",
    from_peer: bytes = b"",
) -> Ending:
    """Carry bytes between two non-blocking sockets until one side ends, and say how.

    `from_client` and `from_peer` were read from the sockets before.  The sockets stay
    open.
    """
    no_delay(client)
    no_delay(peer)
    assert math.isfinite(linger)
    return await _Pump(converter, client, peer, linger).run(from_client, from_peer)
