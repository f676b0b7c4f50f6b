"""What is known of peers from earlier flows, for each isolation key apart.

Theory of operation
    A peer that has spoken v2 is never spoken to in v1 again while it is remembered, or a
    hostile exit could bring that about.  The processes that carry streams ask for this:
    `ProvenPeers` is what they ask, `ProvenV2` what answers.

    A peer that turned out to speak v1 is remembered for an hour (`V1Peers`), by each
    process for itself: not to trouble it with v2 each time is a courtesy, no claim.

Invariants
    Nothing learned under one key shows under another.  Memory is bounded: of a key's peers,
    and of the keys, those not used for longest are forgotten first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Protocol

from isoproxy.isolation import IsolationKey
from isoproxy.net.target import Target

MAX_KEYS: Final = 4096
MAX_PEERS_PER_KEY: Final = 256
V1_REMEMBERED_S: Final = 3600.0


class ProvenPeers(Protocol):
    """Which peers have spoken v2."""

    async def is_proven(self, key: IsolationKey, peer: Target) -> bool:
        """Whether `peer` has spoken v2 under `key`."""

    def remember(self, key: IsolationKey, peer: Target) -> None:
        """`peer` has spoken v2 under `key`; to be told that, nobody waits."""


class _PerKey:
    """Peers, each with a time, by key; bounded."""

    def __init__(self, max_keys: int, max_peers: int) -> None:
        self._max_keys = max_keys
        self._max_peers = max_peers
        self._keys: OrderedDict[IsolationKey, OrderedDict[Target, float]] = OrderedDict()

    def add(self, key: IsolationKey, peer: Target, until: float) -> None:
        peers = self._keys.setdefault(key, OrderedDict())
        self._keys.move_to_end(key)
        peers[peer] = until
        peers.move_to_end(peer)
        if len(peers) > self._max_peers:
            peers.popitem(last=False)
        if len(self._keys) > self._max_keys:
            self._keys.popitem(last=False)

    def get(self, key: IsolationKey, peer: Target) -> float | None:
        peers = self._keys.get(key)
        if peers is None or peer not in peers:
            return None
        self._keys.move_to_end(key)
        peers.move_to_end(peer)
        return peers[peer]

    def discard(self, key: IsolationKey, peer: Target) -> None:
        peers = self._keys.get(key)
        if peers is not None and peers.pop(peer, None) is not None and not peers:
            del self._keys[key]

    def keep(self, wanted: Callable[[IsolationKey], bool]) -> None:
        for key in [key for key in self._keys if not wanted(key)]:
            del self._keys[key]

    def clear(self) -> None:
        self._keys.clear()


class ProvenV2:
    """Peers that have spoken v2.  Forget everything at a new epoch, and at a renewal what is
    of keys that are over: `isolator.on_new_epoch(proven.forget)`, `isolator.on_renewal`.
    """

    def __init__(self, max_keys: int = MAX_KEYS, max_peers: int = MAX_PEERS_PER_KEY) -> None:
        self._peers = _PerKey(max_keys, max_peers)

    def has(self, key: IsolationKey, peer: Target) -> bool:
        """Whether `peer` has spoken v2 under `key`."""
        return self._peers.get(key, peer) is not None

    def remember(self, key: IsolationKey, peer: Target) -> None:
        """`peer` has spoken v2 under `key`."""
        self._peers.add(key, peer, 0.0)

    async def is_proven(self, key: IsolationKey, peer: Target) -> bool:
        return self.has(key, peer)

    def keep(self, wanted: Callable[[IsolationKey], bool]) -> None:
        """Forget the peers of keys that are not `wanted`."""
        self._peers.keep(wanted)

    def forget(self) -> None:
        """Forget all peers of all keys."""
        self._peers.clear()


class V1Peers:
    """Peers that speak v1, or have not answered in v2, for an hour; `clock` is in seconds."""

    def __init__(
        self,
        clock: Callable[[], float],
        max_keys: int = MAX_KEYS,
        max_peers: int = MAX_PEERS_PER_KEY,
    ) -> None:
        self._clock = clock
        self._peers = _PerKey(max_keys, max_peers)

    def add(self, key: IsolationKey, peer: Target) -> None:
        self._peers.add(key, peer, self._clock() + V1_REMEMBERED_S)

    def has(self, key: IsolationKey, peer: Target) -> bool:
        until = self._peers.get(key, peer)
        return until is not None and self._clock() < until

    def discard(self, key: IsolationKey, peer: Target) -> None:
        """It has spoken v2, or has not answered in v1 either."""
        self._peers.discard(key, peer)

    def forget(self) -> None:
        """Forget all peers of all keys."""
        self._peers.clear()
