"""A scripted v2 peer and v1 client for tests of the translation, in memory."""

from __future__ import annotations

from isoproxy.bitcoin.bip324.transport import Transport
from isoproxy.bitcoin.converter import Side
from isoproxy.bitcoin.messages import MAINNET, Network, padded
from isoproxy.bitcoin.options import Deadlines, TransportOptions
from isoproxy.bitcoin.translator import Translator
from isoproxy.bitcoin.v1 import HEADER_LENGTH, VERSION, V1Receiver, encode
from tests.unit.bitcoin.test_v1 import version_payload

HELLO = encode(MAINNET, VERSION, version_payload())
LONG_VERSION = b"\x00" + VERSION + version_payload()


def short(name: str, payload: bytes = b"", network: Network = MAINNET) -> bytes:
    """Contents of a v2 message with a short id."""
    return bytes([network.ids.to_send[padded(name)]]) + payload


def long(name: str, payload: bytes = b"") -> bytes:
    """Contents of a v2 message with its type in full."""
    return b"\x00" + padded(name) + payload


def v1(name: str, payload: bytes = b"", network: Network = MAINNET) -> bytes:
    """A v1 message."""
    return encode(network, padded(name), payload)


class Session:
    """A translator with a v1 client (bytes) and a v2 peer (contents) of our own."""

    def __init__(
        self,
        options: TransportOptions | None = None,
        *,
        initiator: bool = True,
        network: Network = MAINNET,
        deadlines: Deadlines | None = None,
        piece: int = 1 << 30,
    ) -> None:
        self.now = 0.0
        self.ready = 0
        self.piece = piece
        self.translator = Translator(
            network,
            options or TransportOptions(),
            initiator=initiator,
            now=0.0,
            deadlines=deadlines,
            on_ready=self._on_ready,
        )
        self.peer: Transport = TransportOptions().transport(network, initiator=not initiator)
        self.peer_got: list[bytes] = []
        self._client = V1Receiver(network)
        self.client_got: list[tuple[bytes, bytes]] = []

    def _on_ready(self) -> None:
        self.ready += 1

    def put(self, side: Side, data: bytes) -> None:
        """Have `side` receive `data` in pieces."""
        while data:
            room = side.inbox.space()
            size = min(len(room), len(data), self.piece)
            room[:size] = data[:size]
            self.translator.received(side, size, self.now)
            data = data[size:]
            self.collect()

    def collect(self) -> None:
        """Take what the translator has for both sides; the peer answers its handshake."""
        to_client = self.translator.client.outbox.take()
        self._client.queue.append(to_client)
        while (message := self._client.next_message()) is not None:
            kind, start, end = message
            payload = bytes(self._client.queue.data[start + HEADER_LENGTH : end])
            self.client_got.append((kind, payload))
        output, contents = self.peer.receive(self.translator.peer.outbox.take())
        self.peer_got += contents
        if output:
            self.put(self.translator.peer, output)

    def from_client(self, data: bytes) -> None:
        self.put(self.translator.client, data)

    def from_peer(self, contents: bytes, *, ignore: bool = False) -> None:
        self.put(self.translator.peer, self.peer.seal(contents, ignore=ignore))


def established(options: TransportOptions | None = None, *, piece: int = 1 << 30) -> Session:
    """A session after the handshake, the client's VERSION delivered."""
    session = Session(options, piece=piece)
    session.from_client(HELLO)
    assert session.translator.ready
    return session
