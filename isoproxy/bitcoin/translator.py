"""A v1 program on one side, a v2 peer on the other: bytes in, bytes out, no sockets.

Theory of operation
    `Translator` turns every whole message of a batch into its other form without copying
    the payload: towards the peer, header byte and type are written over the tail of the
    v1 header and encrypted from there into the outbox; towards the client, the packet is
    decrypted to where its payload belongs and the v1 header is written before it.  Only
    types without a short id, rare and small, are moved by 12 bytes.

    Specifications: BIP324, "Application layer specification" and its table of short ids; for
    when v1 is tried instead, Bitcoin Core's `ShouldReconnectV1` (`net.cpp`).

Invariants
    Nothing of the client's leaves before the peer's key came, and until then all of it
    can be taken back (`untranslated`) for a fallback.  A message is passed on whole and
    verified, or not at all; order is kept.  What an inbox may hold is bounded by the
    network's largest message.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from hashlib import sha256
from typing import Final

from isoproxy.bitcoin.bip324.cipher import HEADER_SIZE, OVERHEAD
from isoproxy.bitcoin.bip324.transport import State
from isoproxy.bitcoin.buffer import READ, ByteQueue
from isoproxy.bitcoin.converter import Ending, Side
from isoproxy.bitcoin.messages import KNOWN_TYPES, TYPE_LENGTH, Network, is_type
from isoproxy.bitcoin.options import Deadlines, TransportOptions
from isoproxy.bitcoin.traffic import Traffic
from isoproxy.bitcoin.v1 import HEADER, HEADER_LENGTH, VERSION, V1Receiver
from isoproxy.errors import LimitExceeded

_PACKET_AT: Final = HEADER_LENGTH - 1 - HEADER_SIZE
"""Where a packet is decrypted to, so that a short type's payload follows a v1 header."""


class Translator:
    """v1 with the client, v2 with the peer.

    `initiator` is False where the peer came to us.  `on_ready` is called once, when the
    peer's version packet has been authenticated.
    """

    def __init__(
        self,
        network: Network,
        options: TransportOptions,
        *,
        initiator: bool,
        now: float,
        deadlines: Deadlines | None = None,
        on_ready: Callable[[], None] = lambda: None,
    ) -> None:
        self.network = network
        self.transport = options.transport(network, initiator=initiator)
        self._receiver = V1Receiver(network)
        self.client = Side(self._receiver.queue, ByteQueue())
        self.peer = Side(self.transport.inbox, ByteQueue())
        self.to_peer = Traffic(network.ids)
        self.to_client = Traffic(network.ids)
        self.ready = False
        self._on_ready = on_ready
        self._options = options
        self._deadlines = deadlines or Deadlines()
        self._began = now
        self._last_byte = now
        self._first_byte_at = math.inf
        self._next_decoy = math.inf
        if initiator:
            self._send(self.transport.opening())

    @property
    def session_id(self) -> str:
        """In lower-case hex as Bitcoin Core shows it, "" until the peer is authenticated."""
        session_id = self.transport.session_id
        return session_id.hex() if self.ready and session_id is not None else ""

    @property
    def corrupt(self) -> int:
        """Messages of the client that were dropped for a wrong checksum."""
        return self._receiver.corrupt

    @property
    def peer_was_silent(self) -> bool:
        """True while not one byte came from the peer."""
        return self.to_client.wire == 0

    @property
    def peer_speaks_v1(self) -> bool:
        """True if the peer answered with exactly a VERSION header of this network."""
        return self.transport.state is State.V1

    @property
    def sent_to_peer(self) -> int:
        """Bytes that have left towards the peer."""
        return self.to_peer.wire - len(self.peer.outbox) - self.peer.lost

    def untranslated(self) -> bytes:
        """Take back what the client sent, none of which has left."""
        assert not self.transport.can_send
        return self.client.inbox.take()

    def accepts(self, side: Side) -> bool:
        """The client is not read further while its bytes cannot be translated yet."""
        return side is self.peer or self.transport.can_send or len(side.inbox) < READ

    def closed(self, side: Side) -> Ending:
        return Ending.CLIENT_CLOSED if side is self.client else Ending.PEER_CLOSED

    def received(self, side: Side, size: int, now: float) -> Ending | None:
        side.inbox.added(size)
        self._last_byte = now
        if side is self.client:
            self._client_to_peer()
            return None
        if not self.to_client.wire:
            self._first_byte_at = now
        self.to_client.wire += size
        if not self.ready:
            self._handshake()
            if self.peer_speaks_v1:
                return Ending.PEER_SPEAKS_V1
        try:
            self._peer_to_client()
        finally:  # what comes after a good version packet, and may be forged, takes nothing back
            if not self.ready and self.transport.state is State.READY:
                self._became_ready(now)
        return None

    def _became_ready(self, now: float) -> None:
        self.ready = True
        self._next_decoy = now + self._options.decoys.pause()
        self._on_ready()

    def _handshake(self) -> None:
        output = self.transport.advance()
        if output:
            self._send(output)
            self._client_to_peer()

    def _send(self, data: bytes) -> None:
        self.peer.outbox.append(data)
        self.to_peer.wire += len(data)

    def _client_to_peer(self) -> None:
        transport, receiver, out = self.transport, self._receiver, self.peer.outbox
        if not transport.can_send:
            return
        queue, traffic = receiver.queue, self.to_peer
        while (message := receiver.next_message()) is not None:
            kind, start, end = message
            row = traffic.tally(kind)
            row.messages += 1
            row.payload += end - start - HEADER_LENGTH
            prefix = row.prefix or b"\x00\x00" + kind
            if kind == VERSION and self._options.version:
                payload = queue.view[start + HEADER_LENGTH : end]
                plaintext = memoryview(prefix + self._options.version.apply(payload))
            else:
                begin = start + HEADER_LENGTH - len(prefix)
                queue.data[begin : start + HEADER_LENGTH] = prefix
                plaintext = queue.view[begin:end]
            transport.seal_onto(plaintext, out)
            traffic.wire += len(plaintext) + OVERHEAD - HEADER_SIZE
        traffic.dropped = receiver.untyped

    def _peer_to_client(self) -> None:
        transport, out = self.transport, self.client.outbox
        while (size := transport.open_next(out, _PACKET_AT)) is not None:
            self._to_v1(out, size)

    def _to_v1(self, out: ByteQueue, size: int) -> None:
        """Make the packet decrypted behind `out` a v1 message, or drop and count it."""
        data, at, network = out.data, out.end, self.network
        payload_at = at + HEADER_LENGTH
        number = data[payload_at - 1] if size else 0
        if number:
            kind, length = network.ids.received[number], size - 1
        else:
            kind, length = _long_type(out, payload_at, size), size - 1 - TYPE_LENGTH
        if kind is None:
            self.to_client.dropped += 1
            return
        if length > network.max_payload:
            raise LimitExceeded("a Bitcoin message is longer than its network allows")
        out.end = end = payload_at + length
        check = sha256(sha256(out.view[payload_at:end]).digest()).digest()  # cut by its field
        HEADER.pack_into(data, at, network.magic, kind, length, check)
        row = self.to_client.tally(kind)
        row.messages += 1
        row.payload += length

    def deadline(self) -> float:
        limits = self._deadlines
        if not self.ready:
            if self.peer_was_silent:
                return self._began + limits.first_byte
            return self._first_byte_at + limits.handshake
        return min(self._last_byte + limits.idle, self._client_deadline(), self._next_decoy)

    def _client_deadline(self) -> float:
        """The client must get its first message out as fast as the peer its version packet."""
        if self.to_peer.tallies:
            return math.inf
        return self._began + self._deadlines.first_byte + self._deadlines.handshake

    def on_deadline(self, now: float) -> Ending | None:
        if not self.ready:
            if now < self.deadline():
                return None
            return Ending.PEER_SILENT if self.peer_was_silent else Ending.HANDSHAKE_TIMEOUT
        if now >= self._client_deadline():
            return Ending.CLIENT_SILENT
        if now >= self._last_byte + self._deadlines.idle:
            return Ending.IDLE
        if now >= self._next_decoy:
            if not len(self.peer.outbox):
                self._send(self.transport.seal(bytes(self._options.decoys.size()), ignore=True))
            self._next_decoy = now + self._options.decoys.pause()
        return None

    def trim(self) -> None:
        for side in (self.client, self.peer):
            side.inbox.trim()
            side.outbox.trim()


def _long_type(out: ByteQueue, at: int, size: int) -> bytes | None:
    """Read the 12-byte type at `at` and move the payload into its place."""
    if size < 1 + TYPE_LENGTH:
        return None
    kind = bytes(out.data[at : at + TYPE_LENGTH])
    if kind not in KNOWN_TYPES and not is_type(kind):
        return None
    length = size - 1 - TYPE_LENGTH
    out.view[at : at + length] = out.view[at + TYPE_LENGTH : at + TYPE_LENGTH + length]
    return kind
