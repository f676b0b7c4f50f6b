"""The translation: every message whole, verified and in order, or not at all."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isoproxy.bitcoin.bip324.transport import State
from isoproxy.bitcoin.converter import Ending
from isoproxy.bitcoin.messages import MAINNET, NAMECOIN, REGTEST, padded
from isoproxy.bitcoin.options import Deadlines, DecoyPolicy, TransportOptions
from isoproxy.bitcoin.v1 import HEADER, VERSION, VersionRewrite, encode, parse_version
from isoproxy.errors import LimitExceeded, RemoteProtocolError
from tests.unit.bitcoin.peers import HELLO, LONG_VERSION, Session, established, long, short, v1
from tests.unit.bitcoin.test_v1 import version_payload

NAMES = ["tx", "inv", "verack", "sendheaders", "block", "addrv2", "unheardof"]
messages = st.lists(st.tuples(st.sampled_from(NAMES), st.binary(max_size=200)), max_size=15)


def encoded(name: str, payload: bytes) -> bytes:
    return short(name, payload) if padded(name) in MAINNET.ids.to_send else long(name, payload)


@given(messages, st.integers(1, 200))
@settings(max_examples=50)
def test_both_ways_under_every_cut(sent: list[tuple[str, bytes]], piece: int) -> None:
    session = established(piece=piece)
    session.from_client(b"".join(v1(name, payload) for name, payload in sent))
    for name, payload in sent:
        session.from_peer(b"decoy", ignore=True)
        session.from_peer(encoded(name, payload))
    assert session.peer_got == [LONG_VERSION] + [encoded(*message) for message in sent]
    assert session.client_got == [(padded(name), payload) for name, payload in sent]


def test_one_byte_at_a_time_from_the_first() -> None:
    session = Session(TransportOptions(garbage=(40, 40)), piece=1)
    session.from_client(HELLO + v1("ping", bytes(8)))
    session.from_peer(short("pong", bytes(8)))
    assert session.peer_got == [LONG_VERSION, short("ping", bytes(8))]
    assert session.client_got == [(padded("pong"), bytes(8))]


def test_the_clients_version_leaves_in_one_write_with_our_version_packet() -> None:
    session = Session(TransportOptions(garbage=(0, 0)))
    session.translator.client.inbox.append(HELLO)
    session.translator.received(session.translator.client, 0, 0.0)
    reply, _ = session.peer.receive(session.translator.peer.outbox.take())
    session.translator.peer.inbox.append(reply[:64])
    session.translator.received(session.translator.peer, 0, 0.0)
    assert session.peer.receive(session.translator.peer.outbox.take())[1] == [LONG_VERSION]


def test_session_id_is_shown_once_the_peer_is_authenticated() -> None:
    session = Session()
    assert session.translator.session_id == ""
    session.from_client(HELLO)
    assert session.peer.session_id is not None
    assert session.translator.session_id == session.peer.session_id.hex()
    assert session.ready == 1


def test_as_the_responder() -> None:
    session = Session(initiator=False)
    session.put(session.translator.peer, session.peer.opening())
    assert session.translator.ready
    session.from_peer(LONG_VERSION)
    session.from_client(HELLO)
    assert session.client_got == [(VERSION, version_payload())]
    assert session.peer_got == [LONG_VERSION]


@pytest.mark.parametrize("name", ["tx", "ping", "block"])
def test_long_encodings_of_short_types_are_understood(name: str) -> None:
    session = established()
    session.from_peer(long(name, b"payload"))
    assert session.client_got == [(padded(name), b"payload")]


@pytest.mark.parametrize(
    "contents",
    [b"", b"\x26", b"\xff payload", b"\x00short", b"\x00" + b"a\x00b" + bytes(9), b"\x00\x07" * 8],
)
def test_what_cannot_be_translated_is_dropped_and_counted(contents: bytes) -> None:
    session = established()
    session.from_peer(contents)
    session.from_peer(short("ping", bytes(8)))
    assert session.client_got == [(padded("ping"), bytes(8))]
    assert session.translator.to_client.dropped == 1


def test_a_feature_message_arrives_by_its_short_id_and_leaves_in_full() -> None:
    session = established()
    session.from_peer(b"\x25payload")
    session.from_client(v1("feature", b"payload"))
    assert session.client_got == [(padded("feature"), b"payload")]
    assert session.peer_got[-1] == long("feature", b"payload")


@pytest.mark.parametrize("network", [MAINNET, NAMECOIN])
def test_the_largest_messages(network: object) -> None:
    chosen = NAMECOIN if network is NAMECOIN else MAINNET
    size = min(chosen.max_payload, 2**24 - 14)
    session = Session(network=chosen, piece=1 << 20)
    payload = b"\xa5" * size
    session.from_client(encode(chosen, VERSION, version_payload()))
    session.from_client(encode(chosen, padded("block"), payload))
    assert session.peer_got[-1] == short("block", payload)
    session.from_peer(short("block", payload))
    assert session.client_got == [(padded("block"), payload)]


def test_a_payload_too_long_for_v1_ends_the_connection() -> None:
    session = established()
    with pytest.raises(LimitExceeded):
        session.from_peer(short("block", bytes(4_000_001)))


@pytest.mark.parametrize("length", [4_000_001, 0xFFFFFFFF])
def test_an_oversized_message_of_the_client_ends_the_connection(length: int) -> None:
    session = established()
    with pytest.raises(LimitExceeded):
        session.from_client(HEADER.pack(MAINNET.magic, padded("tx"), length, bytes(4)))


def test_a_foreign_magic_of_the_client_ends_the_connection() -> None:
    with pytest.raises(RemoteProtocolError):
        established().from_client(v1("tx", b"", REGTEST))


def test_a_bad_checksum_is_dropped_and_counted() -> None:
    session = established()
    bad = bytearray(v1("tx", b"payload"))
    bad[-1] ^= 1
    session.from_client(bytes(bad) + v1("tx", b"good"))
    assert session.peer_got == [LONG_VERSION, short("tx", b"good")]
    assert session.translator.corrupt == 1


def test_a_type_of_the_client_that_is_unprintable_is_dropped_and_counted() -> None:
    session = established()
    session.from_client(encode(MAINNET, b"\x01".ljust(12, b"\0"), b"") + v1("tx", b"good"))
    assert session.peer_got == [LONG_VERSION, short("tx", b"good")]
    assert (session.translator.to_peer.dropped, session.translator.corrupt) == (1, 0)


def test_what_was_decoded_before_a_forged_packet_is_still_delivered() -> None:
    session = established()
    first = session.peer.seal(short("ping", b"\x01" * 8))
    second = bytearray(session.peer.seal(short("ping", bytes(8))))
    second[-1] ^= 1
    with pytest.raises(RemoteProtocolError):
        session.put(session.translator.peer, first + bytes(second))
    session.collect()
    assert session.client_got == [(padded("ping"), b"\x01" * 8)]


def test_version_is_rewritten_only_as_asked() -> None:
    rewrite = VersionRewrite(scrub=True, suffix=b"/x:1/", advertise_v2=True)
    session = established(TransportOptions(version=rewrite))
    session.from_client(v1("ping", bytes(8)))
    sent = session.peer_got[0]
    assert sent[:13] == b"\x00" + VERSION
    assert sent[13:] == rewrite.apply(version_payload())
    assert parse_version(sent[13:]).user_agent == b"/test:1//x:1/"
    assert session.peer_got[1] == short("ping", bytes(8))


def test_traffic_is_counted_in_both_transports_bytes() -> None:
    session = established()
    session.from_client(v1("ping", bytes(8)) * 3 + v1("verack"))
    session.from_peer(short("inv", bytes(37)))
    out, back = session.translator.to_peer, session.translator.to_client
    assert out.by_type() == {
        "version": (1, len(version_payload())),
        "ping": (3, 24),
        "verack": (1, 0),
    }
    assert out.v1_bytes == len(HELLO) + 3 * 32 + 24
    assert out.v2_bytes == len(HELLO) + 9 + 3 * 29 + 33
    assert back.by_type() == {"inv": (1, 37)}
    assert (back.v1_bytes, back.v2_bytes) == (61, 58)
    assert out.wire > out.v2_bytes + 64


def test_deadlines() -> None:
    limits = Deadlines(first_byte=60, handshake=50, idle=1200)
    # the byte below makes nonsense of the key: our garbage would be endless to the peer
    session = Session(TransportOptions(garbage=(0, 0)), deadlines=limits)
    translator = session.translator
    assert translator.deadline() == 60
    assert translator.on_deadline(59.9) is None
    assert translator.on_deadline(60) is Ending.PEER_SILENT
    session.now = 30.0
    session.put(translator.peer, b"x")
    assert translator.deadline() == 80
    assert translator.on_deadline(80) is Ending.HANDSHAKE_TIMEOUT


def test_idle_and_a_client_that_says_nothing() -> None:
    session = Session(deadlines=Deadlines(first_byte=60, handshake=60, idle=1200))
    session.now = 1.0
    session.collect()
    assert session.translator.ready
    assert session.translator.deadline() == 120
    assert session.translator.on_deadline(120) is Ending.CLIENT_SILENT
    session.from_client(HELLO)
    assert session.translator.deadline() == 1201
    session.now = 900.0
    session.from_peer(b"", ignore=True)
    assert session.translator.on_deadline(1201) is None
    assert session.translator.on_deadline(2100) is Ending.IDLE


def test_decoys_leave_at_their_times() -> None:
    policy = DecoyPolicy(per_minute=60, smallest=10, largest=10)
    session = established(TransportOptions(decoys=policy))
    now = 0.0
    for _ in range(30):
        now = session.translator.deadline()
        assert session.translator.on_deadline(now) is None
        session.collect()
    assert session.peer.decoys_received == 30
    assert 5 < now < 120
    session.from_client(v1("ping", bytes(8)))
    assert session.peer_got[-1] == short("ping", bytes(8))


def test_a_decoy_waits_for_a_slow_peer() -> None:
    session = established(TransportOptions(decoys=DecoyPolicy(per_minute=60)))
    session.translator.peer.outbox.append(b"unsent")
    session.translator.on_deadline(session.translator.deadline())
    assert len(session.translator.peer.outbox) == 6


def test_the_client_is_not_read_without_end_before_the_keys() -> None:
    session = Session()
    translator = session.translator
    assert translator.accepts(translator.client)
    while translator.accepts(translator.client):
        room = translator.client.inbox.space()
        translator.received(translator.client, len(room), 0.0)
    assert len(translator.client.inbox) <= 128 * 1024
    assert translator.accepts(translator.peer)


def test_what_the_client_sent_can_be_taken_back_until_the_peer_speaks() -> None:
    session = Session()
    session.translator.client.inbox.append(HELLO)
    session.translator.received(session.translator.client, 0, 0.0)
    assert session.translator.sent_to_peer == 0
    opening = session.translator.peer.outbox.take()
    assert session.translator.sent_to_peer == len(opening)
    assert session.translator.untranslated() == HELLO


def test_memory_is_given_back() -> None:
    session = established()
    session.from_peer(short("block", bytes(1_000_000)))
    session.translator.trim()
    assert (
        sum(
            len(queue.data)
            for side in (session.translator.client, session.translator.peer)
            for queue in (side.inbox, side.outbox)
        )
        < 2000
    )
    session.from_peer(short("ping", bytes(8)))
    assert session.client_got[-1] == (padded("ping"), bytes(8))


@given(st.binary(max_size=600), st.booleans())
@settings(max_examples=50)
def test_any_bytes_from_either_side(data: bytes, from_client: bool) -> None:
    session = established()
    side = session.translator.client if from_client else session.translator.peer
    with contextlib.suppress(RemoteProtocolError):
        session.put(side, data)
    assert session.client_got == []
    assert session.peer_got == [LONG_VERSION]


def test_garbage_as_long_as_a_peer_may_send() -> None:
    session = Session()
    session.peer._garbage = b"\xaa" * 4095
    session.from_client(HELLO)
    assert session.peer.state is State.READY
    assert session.translator.ready
