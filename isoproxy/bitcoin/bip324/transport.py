"""The v2 transport of Bitcoin's P2P protocol (BIP324): one side of one connection.

Specification: BIP324, "Transport layer specification" (handshake, garbage, version
negotiation) and "Overall handshake pseudocode".

Theory of operation
    Both sides send a 64-byte key and up to 4095 bytes of garbage; from the two keys come
    all others, and after its garbage each side sends a 16-byte terminator that only the
    other can recognise.  From there on there are packets: any number of decoys, the
    version packet (whose contents mean nothing yet), then application messages mixed with
    decoys.  The first packet of a direction, decoy or not, authenticates that direction's
    garbage.

    `TRANSITIONS` holds the states and what leads from one to the next.  A responder begins
    in V1_CHECK, an initiator in KEY.

    The responder sends nothing until the first byte that no v1 client would have sent.  A
    peer that was dialled and speaks v1 of its own accord is told by the same 16 bytes.
    Either side sends its terminator and version packet as soon as it has the other's key,
    and may send messages at once: it does not wait for the other's version packet.

    The owner puts what it received into `inbox`, calls `advance`, sends what that returns,
    and reads messages with `open_next`.

Invariants
    The 3 length bytes go through their cipher exactly once, however the stream is cut
    (the size is remembered).  The size is checked before any memory is set aside.  Our own
    garbage stays below 4095 bytes: a widespread peer never looks at the last position.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Final

from isoproxy.bitcoin.bip324 import ellswift
from isoproxy.bitcoin.bip324.cipher import (
    HEADER_SIZE,
    IGNORE,
    LENGTH_SIZE,
    OVERHEAD,
    PacketOpener,
    PacketSealer,
    SessionKeys,
)
from isoproxy.bitcoin.bip324.ellswift import ENCODED_LENGTH, KeyPair
from isoproxy.bitcoin.buffer import ByteQueue
from isoproxy.bitcoin.messages import MAINNET, Network
from isoproxy.bitcoin.v1 import PREFIX_LENGTH, VERSION
from isoproxy.errors import (
    LimitExceeded,
    LocalProtocolError,
    OperationError,
    RemoteProtocolError,
)

MAX_GARBAGE: Final = 4095
MAX_SENT_GARBAGE: Final = 4094
TERMINATOR_LENGTH: Final = 16


class State(Enum):
    """How far a connection is."""

    V1_CHECK = "v1 check"
    V1 = "v1"
    KEY = "key"
    GARBAGE = "garbage"
    VERSION = "version"
    READY = "ready"


class Event(Enum):
    """What came in."""

    __hash__ = object.__hash__  # a member is itself alone; Enum hashes its name, in Python

    V1_PREFIX = 'magic and "version"'
    NO_V1_PREFIX = "a byte that v1 would not begin with"
    KEY = "64 bytes of key"
    TERMINATOR = "garbage terminator"
    PACKET = "first packet that is no decoy"


TRANSITIONS: Final[Mapping[State, Mapping[Event, State]]] = {
    State.V1_CHECK: {
        Event.V1_PREFIX: State.V1,
        Event.NO_V1_PREFIX: State.KEY,
    },
    State.V1: {},
    State.KEY: {
        Event.V1_PREFIX: State.V1,
        Event.KEY: State.GARBAGE,
    },
    State.GARBAGE: {
        Event.TERMINATOR: State.VERSION,
    },
    State.VERSION: {
        Event.PACKET: State.READY,
    },
    State.READY: {},
}
"""V1, GARBAGE and READY have no way back; from KEY to V1 goes an initiator alone."""

_READY: Final = State.READY

# A handshake whose outcome is known: the first of tests/data/bip324/packets.csv.
_PRIVATE: Final = "308bf34f8440985cf2fb98e51721e33ece2dae9419ed5462280e14d4bdaf824b"
_OURS: Final = (
    "441dedb81d97787753283f7375c0904419232be8e1f8f539e1a9e0c96473f470"
    "af0959c804ad62dd9008f9602cc4826d542089ea363abc96d070cf14794f6437"
)
_THEIRS: Final = (
    "644bb4ba1700cc75f6fb821700fd65fc356d42d7a59a76c75b9f07a35fa4df44"
    "b29aeff960539e76cfd7a2e32d5e9e94236e10c4a5f99b0018dfb6e9a9108e96"
)
_SESSION: Final = "7efd78433f7698c617397d3bb16ccac782974bd3c88a34bd8166b6fc492659e5"
_PACKET: Final = "7c08562621d947c123755a784811a2dfb85019d0"


@functools.cache
def self_test() -> None:
    """Make sure that the libraries compute what BIP324 says; raises OperationError if not."""
    ellswift.self_test()
    ours = KeyPair(bytes.fromhex(_PRIVATE), bytes.fromhex(_OURS))
    secret = ours.exchange(bytes.fromhex(_THEIRS), initiator=True)
    keys = SessionKeys.derive(secret, MAINNET.magic)
    packet = PacketSealer(keys.initiator_length, keys.initiator_packet, b"").seal(b"")
    if (keys.session_id.hex(), packet.hex()) != (_SESSION, _PACKET):
        raise OperationError("coincurve and cryptography do not compute what BIP324 says")


class Transport:
    """One side of a v2 connection.

    `keys` is used up; `garbage` (at most 4094 bytes) follows our key; `decoys` are the
    contents of decoy packets to send before our version packet.
    """

    __slots__ = (
        "_awaited",
        "_decoys",
        "_garbage",
        "_initiator",
        "_keys",
        "_magic",
        "_max_contents",
        "_opener",
        "_reading",
        "_recv_terminator",
        "_scanned",
        "_sealer",
        "decoys_received",
        "inbox",
        "session_id",
        "state",
    )

    def __init__(
        self,
        network: Network,
        keys: KeyPair,
        *,
        initiator: bool,
        garbage: bytes = b"",
        decoys: Sequence[bytes] = (),
    ) -> None:
        if len(garbage) > MAX_GARBAGE:
            raise LocalProtocolError("BIP324 garbage is at most 4095 bytes long")
        self._keys = keys
        self._initiator = initiator
        self._magic = network.magic
        self._max_contents = network.max_contents
        self._garbage = garbage
        self._decoys = decoys
        self._sealer: PacketSealer | None = None
        self._opener: PacketOpener | None = None
        self._recv_terminator = b""
        self._scanned = 0
        self._awaited = -1
        self._reading = False
        self.inbox = ByteQueue()
        self.state = State.KEY if initiator else State.V1_CHECK
        self.session_id: bytes | None = None
        self.decoys_received = 0

    def opening(self) -> bytes:
        """Our key and garbage; the initiator begins the connection with it."""
        return self._keys.encoded + self._garbage

    def advance(self) -> bytes:
        """Carry the handshake on with what is in `inbox`; returns bytes to be sent.

        Raises RemoteProtocolError if the other side cannot be a v2 peer of this network.
        """
        output = b""
        if self.state is State.V1_CHECK and self._is_v2():
            output = self.opening()
        if self.state is State.KEY:
            self._notice_v1()
        if self.state is State.KEY and len(self.inbox) >= ENCODED_LENGTH:
            output += self._derive()
        if self.state is State.GARBAGE:
            self._find_terminator()
        return output

    def _is_v2(self) -> bool:
        """Leave V1_CHECK as soon as the bytes received decide it."""
        first = bytes(self.inbox.peek()[:PREFIX_LENGTH])
        if not (self._magic + VERSION).startswith(first):
            self._on(Event.NO_V1_PREFIX)
            return True
        if len(first) == PREFIX_LENGTH:
            self._on(Event.V1_PREFIX)
        return False

    def _notice_v1(self) -> None:
        """Tell a key from a VERSION header, as BIP324 has responders do it."""
        first = bytes(self.inbox.peek()[:PREFIX_LENGTH])
        if self._initiator and first == self._magic + VERSION:
            self._on(Event.V1_PREFIX)
        elif not self._initiator and first[4:] == VERSION:
            raise RemoteProtocolError("the other side is a v1 peer of another network")

    def _on(self, event: Event) -> None:
        self.state = TRANSITIONS[self.state][event]

    def _derive(self) -> bytes:
        """Take the other side's key; our terminator, decoys and version packet come out."""
        theirs = bytes(self.inbox.peek()[:ENCODED_LENGTH])
        self.inbox.drop(ENCODED_LENGTH)
        secret = self._keys.exchange(theirs, initiator=self._initiator)
        keys = SessionKeys.derive(secret, self._magic)
        sending = (keys.initiator_length, keys.initiator_packet)
        receiving = (keys.responder_length, keys.responder_packet)
        terminator = keys.garbage_terminators[:TERMINATOR_LENGTH]
        self._recv_terminator = keys.garbage_terminators[TERMINATOR_LENGTH:]
        if not self._initiator:
            sending, receiving = receiving, sending
            terminator, self._recv_terminator = self._recv_terminator, terminator
        self._sealer = PacketSealer(*sending, self._garbage)
        self._opener = PacketOpener(*receiving)
        self.session_id = keys.session_id
        self._on(Event.KEY)
        decoys = b"".join(self._sealer.seal(decoy, ignore=True) for decoy in self._decoys)
        self._garbage, self._decoys = b"", ()
        return terminator + decoys + self._sealer.seal(b"")

    def _find_terminator(self) -> None:
        inbox, opener = self.inbox, self._opener
        assert opener is not None
        limit = inbox.start + min(len(inbox), MAX_GARBAGE + TERMINATOR_LENGTH)
        found = inbox.data.find(self._recv_terminator, inbox.start + self._scanned, limit)
        if found >= 0:
            opener.authenticate(bytes(inbox.data[inbox.start : found]))
            inbox.start = found + TERMINATOR_LENGTH
            self._on(Event.TERMINATOR)
            self._reading = True
        elif len(inbox) >= MAX_GARBAGE + TERMINATOR_LENGTH:
            raise LimitExceeded("the BIP324 garbage has no end, or the peer is on another network")
        else:
            self._scanned = max(0, len(inbox) - TERMINATOR_LENGTH + 1)

    @property
    def can_send(self) -> bool:
        """True once messages may be sealed: from the other side's key on."""
        return self._sealer is not None

    def open_next(self, out: ByteQueue, offset: int) -> int | None:
        """Open the next message; returns the size of its contents, None if none is complete.

        Its header byte is written `offset` bytes behind the end of `out`, its contents
        follow, and `out` does not count them as its own yet.  Packets that carry nothing
        for the application, decoys and the version packet, are passed over.

        Raises LimitExceeded if a packet is longer than the network allows and
        RemoteProtocolError if it is not authentic.
        """
        if not self._reading:
            return None
        inbox, opener = self.inbox, self._opener
        assert opener is not None
        while True:
            start, end, size = inbox.start, inbox.end, self._awaited
            if size < 0:
                if end - start < LENGTH_SIZE:
                    return None
                data = inbox.data
                masked = data[start] | data[start + 1] << 8 | data[start + 2] << 16
                size = opener.open_length(masked)
                if size > self._max_contents:
                    raise LimitExceeded("a BIP324 packet is longer than its network allows")
                self._awaited = size
            if end - start < size + OVERHEAD:
                inbox.expect(size + OVERHEAD)
                return None
            end = start + size + OVERHEAD
            room = out.reserve(HEADER_SIZE + size, offset)
            opener.open_into(inbox.view[start + LENGTH_SIZE : end], room)
            inbox.start = end
            self._awaited = -1
            if room[0] & IGNORE:
                self.decoys_received += 1
            elif self.state is _READY:
                return size
            else:
                self._on(Event.PACKET)

    def seal_onto(self, plaintext: bytes | bytearray | memoryview, out: ByteQueue) -> None:
        """Queue the packet of a header byte and contents; see PacketSealer."""
        if self._sealer is None:
            raise LocalProtocolError("nothing can be sealed before the other side's key came")
        self._sealer.seal_onto(plaintext, out)

    def seal(self, contents: bytes, *, ignore: bool = False) -> bytes:
        """One packet; a decoy if `ignore`."""
        if self._sealer is None:
            raise LocalProtocolError("nothing can be sealed before the other side's key came")
        return self._sealer.seal(contents, ignore=ignore)

    def receive(self, data: bytes) -> tuple[bytes, list[bytes]]:
        """Take `data`; returns bytes to be sent and the contents of the packets completed.

        For owners to whom one more copy does not matter.
        """
        self.inbox.append(data)
        output = self.advance()
        contents, room = [], ByteQueue()
        while (size := self.open_next(room, 0)) is not None:
            contents.append(bytes(room.data[HEADER_SIZE : HEADER_SIZE + size]))
        return output, contents
