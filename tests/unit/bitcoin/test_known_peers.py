"""What is known of peers: per key, bounded, and forgotten."""

from __future__ import annotations

from isoproxy.bitcoin.known_peers import V1_REMEMBERED_S, ProvenV2, V1Peers
from isoproxy.isolation import Isolator
from isoproxy.net.target import Target
from tests.unit.bitcoin.ends import key

ONION = Target.parse("a" * 56 + ".onion", 8333)
CLEARNET = Target.parse("peer.example", 8333)


async def test_proven_peers_are_kept_per_key_bounded_and_forgotten() -> None:
    isolator = Isolator()
    one, two = key(b"one", isolator), key(b"two", isolator)
    proven = ProvenV2(max_keys=2, max_peers=2)
    isolator.on_new_epoch(proven.forget)
    proven.remember(one, ONION)
    assert proven.has(one, ONION)
    assert await proven.is_proven(one, ONION)
    assert not await proven.is_proven(two, ONION)
    assert not proven.has(one, CLEARNET)
    for number in range(5):
        proven.remember(one, Target.parse("peer.example", number + 1))
    assert not proven.has(one, ONION)
    assert proven.has(one, Target.parse("peer.example", 5))
    proven.remember(two, ONION)
    proven.remember(key(b"three", isolator), ONION)
    assert not proven.has(one, Target.parse("peer.example", 5))
    isolator.renew(two.label)
    proven.keep(isolator.is_current)
    assert not proven.has(two, ONION)
    assert proven.has(key(b"three", isolator), ONION)
    isolator.new_epoch()
    assert not proven.has(key(b"three", isolator), ONION)


def test_what_is_not_used_for_longest_is_forgotten_first() -> None:
    """A peer that is dialled again and again is no idler for having proven itself first."""
    one, two = key(b"one"), key(b"two")
    peers = [Target.parse("peer.example", number) for number in (1, 2, 3)]
    proven = ProvenV2(max_keys=2, max_peers=2)
    for peer in peers[:2]:
        proven.remember(one, peer)
    assert proven.has(one, peers[0])
    proven.remember(one, peers[2])
    assert [proven.has(one, peer) for peer in peers] == [True, False, True]
    proven.remember(two, ONION)
    assert proven.has(one, peers[0])
    proven.remember(key(b"three"), ONION)
    assert (proven.has(one, peers[0]), proven.has(two, ONION)) == (True, False)


def test_v1_peers_are_remembered_for_an_hour() -> None:
    now = 0.0
    peers, one = V1Peers(lambda: now), key(b"one")
    peers.add(one, ONION)
    assert peers.has(one, ONION)
    assert not peers.has(key(b"two"), ONION)
    now = V1_REMEMBERED_S
    assert not peers.has(one, ONION)
    peers.add(one, ONION)
    peers.discard(one, ONION)
    assert not peers.has(one, ONION)
    peers.discard(one, ONION)
