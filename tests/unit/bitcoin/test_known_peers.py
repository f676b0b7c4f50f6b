"""What is known of peers: per key, bounded, and forgotten."""

from __future__ import annotations

import time

from isoproxy.bitcoin.known_peers import V1_REMEMBERED_S, PeerMemory, Spoken
from isoproxy.isolation import Isolator
from isoproxy.net.target import Target
from tests.unit.bitcoin.ends import key

ONION = Target.parse("a" * 56 + ".onion", 8333)
CLEARNET = Target.parse("peer.example", 8333)


async def test_peers_are_kept_per_key_bounded_and_forgotten() -> None:
    isolator = Isolator()
    one, two, three = (key(user, isolator) for user in (b"one", b"two", b"three"))
    peers = PeerMemory(time.monotonic, max_keys=2, max_peers=2)
    isolator.on_new_epoch(peers.forget)
    peers.note(one, ONION, Spoken.V2)
    assert peers.has(one, ONION) is Spoken.V2
    assert await peers.spoken(one, ONION) is Spoken.V2
    assert await peers.spoken(two, ONION) is Spoken.NOTHING
    assert peers.has(one, CLEARNET) is Spoken.NOTHING
    for number in range(5):
        peers.note(one, Target.parse("peer.example", number + 1), Spoken.V1)
    assert peers.has(one, ONION) is Spoken.NOTHING
    assert peers.has(one, Target.parse("peer.example", 5)) is Spoken.V1
    peers.note(two, ONION, Spoken.V2)
    peers.note(three, ONION, Spoken.V2)
    assert peers.has(one, Target.parse("peer.example", 5)) is Spoken.NOTHING
    isolator.renew(two.label)
    peers.keep(isolator.is_current)
    assert peers.has(two, ONION) is Spoken.NOTHING
    assert peers.has(three, ONION) is Spoken.V2
    isolator.new_epoch()
    assert peers.has(three, ONION) is Spoken.NOTHING


def test_what_is_not_used_for_longest_is_forgotten_first() -> None:
    """A peer that is dialled again and again is no idler for having proven itself first."""
    one, two = key(b"one"), key(b"two")
    peers = [Target.parse("peer.example", number) for number in (1, 2, 3)]
    known = PeerMemory(time.monotonic, max_keys=2, max_peers=2)
    for peer in peers[:2]:
        known.note(one, peer, Spoken.V2)
    assert known.has(one, peers[0]) is Spoken.V2
    known.note(one, peers[2], Spoken.V2)
    spoken = [known.has(one, peer) for peer in peers]
    assert spoken == [Spoken.V2, Spoken.NOTHING, Spoken.V2]
    known.note(two, ONION, Spoken.V2)
    assert known.has(one, peers[0]) is Spoken.V2
    known.note(key(b"three"), ONION, Spoken.V2)
    assert known.has(one, peers[0]) is Spoken.V2
    assert known.has(two, ONION) is Spoken.NOTHING


def test_v1_is_remembered_for_an_hour() -> None:
    now = 0.0
    peers, one = PeerMemory(lambda: now), key(b"one")
    peers.note(one, ONION, Spoken.V1)
    assert peers.has(one, ONION) is Spoken.V1
    assert peers.has(key(b"two"), ONION) is Spoken.NOTHING
    now = V1_REMEMBERED_S
    assert peers.has(one, ONION) is Spoken.NOTHING
    peers.note(one, ONION, Spoken.V1)
    peers.note(one, ONION, Spoken.NOTHING)
    assert peers.has(one, ONION) is Spoken.NOTHING
    peers.note(one, ONION, Spoken.NOTHING)


def test_what_speaks_v2_is_never_taken_for_what_speaks_v1() -> None:
    now = 0.0
    peers, one = PeerMemory(lambda: now), key(b"one")
    peers.note(one, ONION, Spoken.V1)
    for spoken in (Spoken.V2, Spoken.V1, Spoken.NOTHING):
        peers.note(one, ONION, spoken)
        assert peers.has(one, ONION) is Spoken.V2
    now = 100 * V1_REMEMBERED_S
    assert peers.has(one, ONION) is Spoken.V2
