"""What is known of peers from earlier flows, for each isolation key apart.

Theory of operation
    A peer that has spoken v2 is never spoken to in v1 again while it is remembered, or a
    hostile exit could bring that about.  One that turned out to speak v1 is remembered for
    an hour, so as not to trouble it with v2 each time: some ban after ten tries.  The
    processes that carry streams ask for both: `KnownPeers` is what they ask, `PeerMemory`
    what answers, for all of them.

Invariants
    Nothing learned under one key shows under another.  What speaks v2 is never taken for
    what speaks v1.  Memory is bounded: of a key's peers, and of the keys, those not used for
    longest are forgotten first.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from enum import Enum
from typing import Final, Protocol

from isoproxy.isolation import IsolationKey
from isoproxy.net.target import Target

MAX_KEYS: Final = 4096
MAX_PEERS_PER_KEY: Final = 256
V1_REMEMBERED_S: Final = 3600.0


class Spoken(Enum):
    """What a peer has spoken: v1 also if it has not answered in v2."""

    NOTHING = "nothing"
    V1 = "v1"
    V2 = "v2"


class KnownPeers(Protocol):
    """What peers have spoken."""

    async def spoken(self, key: IsolationKey, peer: Target) -> Spoken:
        """What `peer` has spoken under `key`."""

    def note(self, key: IsolationKey, peer: Target, spoken: Spoken) -> None:
        """`peer` has spoken so under `key`; NOTHING: it has not answered in v1 either.

        To be told that, nobody waits.
        """


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


class PeerMemory:
    """What peers have spoken; `clock` is in seconds.  Forget everything at a new epoch:
    `isolator.on_new_epoch(peers.forget)`.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        max_keys: int = MAX_KEYS,
        max_peers: int = MAX_PEERS_PER_KEY,
    ) -> None:
        self._peers = _PerKey(max_keys, max_peers)
        self._clock = clock

    def has(self, key: IsolationKey, peer: Target) -> Spoken:
        """What `peer` has spoken under `key`."""
        until = self._peers.get(key, peer)
        if until is None or self._clock() >= until:
            return Spoken.NOTHING
        return Spoken.V2 if until == math.inf else Spoken.V1

    async def spoken(self, key: IsolationKey, peer: Target) -> Spoken:
        return self.has(key, peer)

    def note(self, key: IsolationKey, peer: Target, spoken: Spoken) -> None:
        """`peer` has spoken so under `key`."""
        if spoken is Spoken.V2:
            self._peers.add(key, peer, math.inf)
        elif self.has(key, peer) is Spoken.V2:
            return
        elif spoken is Spoken.V1:
            self._peers.add(key, peer, self._clock() + V1_REMEMBERED_S)
        else:
            self._peers.discard(key, peer)

    def keep(self, wanted: Callable[[IsolationKey], bool]) -> None:
        """Forget the peers of keys that are not `wanted`."""
        self._peers.keep(wanted)

    def forget(self) -> None:
        """Forget all peers of all keys."""
        self._peers.clear()
