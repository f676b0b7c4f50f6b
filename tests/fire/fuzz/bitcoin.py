"""What Bitcoin programs say: v1 messages, v2 handshakes and packets, and both through us."""

from __future__ import annotations

from typing import Final

from isoproxy.bitcoin.bip324.ellswift import KeyPair
from isoproxy.bitcoin.bip324.transport import State, Transport
from isoproxy.bitcoin.converter import Side
from isoproxy.bitcoin.messages import KNOWN_NETWORKS, REGTEST
from isoproxy.bitcoin.options import TransportOptions
from isoproxy.bitcoin.sniff import begins_proxy_protocol, detect, read_version, rewrite_version
from isoproxy.bitcoin.translator import Translator
from isoproxy.bitcoin.v1 import (
    HEADER_LENGTH,
    VERSION,
    V1Receiver,
    VersionRewrite,
    encode,
    parse_version,
)
from isoproxy.errors import LimitExceeded, RemoteProtocolError
from tests.fire.fuzz.target import FuzzTarget, pieces
from tests.network.bitcoin_ends import message, version

_REMOTE: Final = (RemoteProtocolError, LimitExceeded)
_V1: Final = version() + message("verack") + message("ping", b"12345678") + message("getaddr")
_REWRITE: Final = VersionRewrite(scrub=True, suffix=b"(a)", advertise_v2=True)
_PLAIN: Final = TransportOptions(garbage=(0, 0))


def _receiver(data: bytes) -> None:
    receiver = V1Receiver(REGTEST)
    detect(data[1:17])
    for part in pieces(data):
        receiver.queue.append(part)
        while (found := receiver.next_message()) is not None:
            kind, start, end = found
            payload = bytes(receiver.queue.data[start + HEADER_LENGTH : end])
            assert encode(REGTEST, kind, payload) == bytes(receiver.queue.data[start:end])
            if kind == VERSION:
                parse_version(payload)


def _version(data: bytes) -> None:
    parse_version(data)
    changed = _REWRITE.apply(data)
    parse_version(changed)
    assert len(changed) <= len(data) + 2 + len(_REWRITE.suffix)


def _put(side: Side, data: bytes) -> int:
    side.inbox.reserve(len(data))[:] = data
    return len(data)


def _transport(data: bytes) -> None:
    """A responder hears anything; an initiator, too."""
    for initiator in (False, True):
        transport = _PLAIN.transport(REGTEST, initiator=initiator)
        for part in pieces(data):
            transport.receive(part)
            if transport.state is State.V1:
                break


def _sealed(data: bytes) -> None:
    """A peer that has the keys, and says anything inside of authentic packets."""
    ours, theirs = _shaken()
    packets = data.split(b"\xff\xfe")
    stream = b"".join(
        theirs.seal(packet, ignore=bool(n % 5 == 4)) for n, packet in enumerate(packets)
    )
    _, contents = ours.receive(stream)
    assert contents == [packet for n, packet in enumerate(packets) if n % 5 != 4]


def _shaken() -> tuple[Transport, Transport]:
    ours = Transport(REGTEST, KeyPair.fresh(), initiator=True)
    theirs = Transport(REGTEST, KeyPair.fresh(), initiator=False)
    answer, _ = theirs.receive(ours.opening())
    back, _ = ours.receive(answer)
    theirs.receive(back)
    return ours, theirs


def _translator(data: bytes) -> None:
    """Byte 0: which side says the rest, whether the peer has shaken hands before."""
    kind = data[0] if data else 0
    translator = Translator(REGTEST, _PLAIN, initiator=True, now=0.0)
    peer = Transport(REGTEST, KeyPair.fresh(), initiator=False)
    side = translator.client if kind & 1 else translator.peer
    if kind & 2:
        answer, _ = peer.receive(bytes(translator.peer.outbox.take()))
        translator.received(translator.peer, _put(translator.peer, answer), 0.0)
        if not kind & 1:
            data = data[:2] + b"".join(map(peer.seal, data[2:].split(b"\xff\xfe")))
    for part in pieces(data[1:]):
        translator.received(side, _put(side, part), 1.0)
    translator.on_deadline(1.0)


def _first(data: bytes) -> None:
    for networks in (KNOWN_NETWORKS, KNOWN_NETWORKS.as_all()):
        detect(data, networks)
    begins_proxy_protocol(data)
    rewrite_version(data, REGTEST, _REWRITE)
    read_version(data, REGTEST)


TARGETS: Final = [
    FuzzTarget("v1", _receiver, _REMOTE, [bytes([n]) + _V1 for n in (0, 30, 255)]),
    FuzzTarget("v1-version", _version, (RemoteProtocolError,), [version()[HEADER_LENGTH:]]),
    FuzzTarget("bip324", _transport, _REMOTE, [b"\xff" + bytes(range(64)) * 3, b"\x0f" + _V1]),
    FuzzTarget("bip324-packets", _sealed, (), [b"ping\xff\xfe\x12" + bytes(8), b"\xff\xfe" * 9]),
    FuzzTarget(
        "translator",
        _translator,
        _REMOTE,
        [b"\x01\x50" + _V1, b"\x03\xff" + _V1, b"\x02\x30\x12" + bytes(8) + b"\xff\xfe\x00" + _V1],
    ),
    FuzzTarget("first-bytes", _first, _REMOTE, [_V1, b"\x04\x01\x20\x8d" + bytes(6)]),
]
