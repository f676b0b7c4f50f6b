"""First bytes are held until they can be judged; the peer's pass."""

from __future__ import annotations

from isoproxy.bitcoin.converter import MAX_HELD, Ending, FirstBytes, Rewriting, Side
from isoproxy.bitcoin.options import Deadlines


def stage() -> FirstBytes[str]:
    def judge(held: bytes) -> str | None:
        return held.decode() if len(held) >= 4 else None

    return FirstBytes(judge, now=0.0, deadlines=Deadlines(handshake=60, idle=1200))


def put(first: FirstBytes[str], side: Side, data: bytes, now: float = 0.0) -> Ending | None:
    side.inbox.reserve(len(data))[:] = data
    return first.received(side, len(data), now)


def test_the_clients_bytes_are_held_and_the_peers_pass() -> None:
    first = stage()
    assert put(first, first.client, b"abc") is None
    assert put(first, first.peer, b"hello, this is a server") is None
    assert first.client.outbox.take() == b"hello, this is a server"
    assert first.peer_said == b"hello, this is a"
    assert put(first, first.client, b"d") is Ending.HANDED_ON
    assert (first.verdict, first.held) == ("abcd", b"abcd")
    assert len(first.peer.outbox) == 0


def test_what_the_peer_said_is_remembered_byte_by_byte() -> None:
    first = stage()
    for byte in b"0123456789abcdefgh":
        put(first, first.peer, bytes([byte]))
    assert first.peer_said == b"0123456789abcdef"


def test_a_client_that_ended_may_be_answered_and_a_peer_that_ended_ends_it() -> None:
    first = stage()
    assert first.closed(first.client) is Ending.HANDED_ON
    assert first.closed(first.peer) is Ending.PEER_CLOSED
    assert first.verdict is None


def test_time_is_up_sooner_for_one_that_has_begun() -> None:
    first = stage()
    assert first.on_deadline(1199) is None
    assert first.on_deadline(1200) is Ending.IDLE
    put(first, first.peer, b"x", 1000)
    assert first.on_deadline(2199) is None
    put(first, first.client, b"x", 2000)
    assert first.on_deadline(2059) is None
    assert first.on_deadline(2060) is Ending.HANDSHAKE_TIMEOUT


def test_what_is_held_is_bounded() -> None:
    first: FirstBytes[str] = FirstBytes(lambda held: None, now=0.0, deadlines=Deadlines())
    assert first.accepts(first.client)
    first.client.inbox.append(bytes(MAX_HELD))
    assert not first.accepts(first.client)
    assert first.accepts(first.peer)
    first.trim()


def test_what_is_rewritten_goes_to_the_peer_once() -> None:
    first = Rewriting(
        lambda held: held.upper() if len(held) >= 4 else None, now=0.0, deadlines=Deadlines()
    )
    first.client.inbox.append(b"abcd")
    assert first.received(first.client, 0, 0.0) is Ending.HANDED_ON
    assert (first.peer.outbox.take(), first.held) == (b"ABCD", b"")
    first.peer.inbox.append(b"x")
    first.received(first.peer, 0, 0.0)
    assert len(first.peer.outbox) == 0
