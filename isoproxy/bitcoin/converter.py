"""What stands between a client's socket and its peer's, without knowing either.

Theory of operation
    A converter has two sides, each with an inbox (bytes received there) and an outbox
    (bytes to be sent there).  Its owner (`pump`) fills an inbox, calls `received`, and
    sends what the outboxes hold.  Time is told to it: `deadline` says when it wants
    `on_deadline`.

    `FirstBytes` comes before the others: it holds what the client says until that can be
    judged, and passes on what the peer says meanwhile, so that a protocol in which the
    server speaks first waits for nothing.

Invariants
    The owner stops reading a side while the other side's outbox is not empty.  Of the
    client's first bytes none leaves before the verdict; they are bounded.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Final, Generic, Protocol, TypeVar

from isoproxy.bitcoin.buffer import ByteQueue
from isoproxy.bitcoin.options import Deadlines

V = TypeVar("V")
PEER_PREFIX: Final = 16
"""Bytes of the peer's that are remembered."""
MAX_HELD: Final = 1 << 16


class Ending(Enum):
    """How a flow ended; the value is the metric label.

    HANDED_ON: what remains is not for a translator; both sockets are open.  STOPPED: it was
    cancelled, or an internal error ended it.
    """

    CLIENT_CLOSED = "client_closed"
    PEER_CLOSED = "peer_closed"
    CLIENT_BROKE_PROTOCOL = "client_broke_protocol"
    PEER_BROKE_PROTOCOL = "peer_broke_protocol"
    CLIENT_SILENT = "client_silent"
    PEER_SILENT = "peer_silent"
    PEER_SPEAKS_V1 = "peer_speaks_v1"
    HANDSHAKE_TIMEOUT = "handshake_timeout"
    IDLE = "idle"
    V2_REQUIRED = "v2_required"
    DIAL_FAILED = "dial_failed"
    HANDED_ON = "handed_on"
    STOPPED = "stopped"


class Side:
    """One side of a converter; `lost` bytes of its outbox could not be delivered."""

    __slots__ = ("inbox", "lost", "outbox")

    def __init__(self, inbox: ByteQueue, outbox: ByteQueue) -> None:
        self.inbox = inbox
        self.outbox = outbox
        self.lost = 0


class Converter(Protocol):
    """What stands between two sockets."""

    client: Side
    peer: Side

    def accepts(self, side: Side) -> bool:
        """False while `side` is not to be read, whatever its outboxes say."""

    def received(self, side: Side, size: int, now: float) -> Ending | None:
        """`size` bytes were put into the inbox of `side`; an Ending if that is the end.

        Raises RemoteProtocolError.
        """

    def closed(self, side: Side) -> Ending:
        """`side` has ended, and how that ends the flow."""

    def deadline(self) -> float:
        """When `on_deadline` is due, in the clock of `now`."""

    def on_deadline(self, now: float) -> Ending | None:
        """Do what is due; an Ending if the time is up."""

    def trim(self) -> None:
        """Give back memory that is not in use."""


class FirstBytes(Generic[V]):
    """Holds the client's first bytes until `judge` has a verdict on them.

    `judge(held)` returns None while more is needed.  With the verdict, or at the client's
    end, the flow is HANDED_ON; `verdict` is None in the latter case.  `peer_said` is what
    the peer began with, at most 16 bytes of the `passed` ones.
    """

    def __init__(
        self, judge: Callable[[bytes], V | None], *, now: float, deadlines: Deadlines
    ) -> None:
        self._judge = judge
        self._deadlines = deadlines
        self._last_byte = now
        self._began: float | None = None
        self._held, to_client = ByteQueue(), ByteQueue()
        self.client = Side(self._held, to_client)
        self.peer = Side(to_client, ByteQueue())
        self.verdict: V | None = None
        self.peer_said = b""
        self.passed = 0

    @property
    def held(self) -> bytes:
        """What the client has said."""
        return bytes(self._held.peek())

    def accepts(self, side: Side) -> bool:
        return side is self.peer or len(self._held) < MAX_HELD

    def received(self, side: Side, size: int, now: float) -> Ending | None:
        side.inbox.added(size)
        self._last_byte = now
        if side is self.peer:
            self.passed += size
            if len(self.peer_said) < PEER_PREFIX:
                said = bytes(side.inbox.peek()[-size:])
                self.peer_said += said[: PEER_PREFIX - len(self.peer_said)]
            return None
        if self._began is None:
            self._began = now
        self.verdict = self._judge(self.held)
        return None if self.verdict is None else Ending.HANDED_ON

    def closed(self, side: Side) -> Ending:
        """A client that has ended may still be answered; nothing it says follows."""
        return Ending.HANDED_ON if side is self.client else Ending.PEER_CLOSED

    def deadline(self) -> float:
        if self._began is not None:
            return self._began + self._deadlines.handshake
        return self._last_byte + self._deadlines.idle

    def on_deadline(self, now: float) -> Ending | None:
        if now < self.deadline():
            return None
        return Ending.IDLE if self._began is None else Ending.HANDSHAKE_TIMEOUT

    def trim(self) -> None:
        self.client.outbox.trim()


class Rewriting(FirstBytes[bytes]):
    """First bytes in whose place the verdict goes to the peer, before the flow is handed on."""

    def received(self, side: Side, size: int, now: float) -> Ending | None:
        ending = super().received(side, size, now)
        if self.verdict is not None and len(self._held):
            self._held.take()
            self.peer.outbox.append(self.verdict)
        return ending
