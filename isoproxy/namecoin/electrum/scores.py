"""How far each server can be trusted to be of use: the order in which they are asked.

Theory of operation
    A server that cannot be reached is left alone for a time that doubles with every
    failure.  One that was slow or lagging ranks lower.  One that *lied* - anything that
    our own checks proved wrong - is left alone for a day, and asked before that only if
    nobody else is there.  Success forgives failures, never lies.

    Among equals the order is random, drawn anew each time, so that load spreads.

    Each key has its own experience and nothing else: a server that fails, or lies, to one
    key would else see by which others stay away whose else the client is.  What is known to
    all keys is only which servers are *down*: those that have refused, several times in a
    row, the connections that our own clocks open.  No server can tell those of one
    client from those of another, so it is down for all clients or for none it could name.

Invariants
    Nothing here depends on which names were asked for, and nothing that one key brings about
    shows in what another one does.  Times are seconds of any monotonic clock, passed in.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from isoproxy.isolation import IsolationKey
from isoproxy.namecoin.electrum.servers import NameServer

FIRST_RETRY_S: Final = 2.0
LAST_RETRY_S: Final = 1800.0
LIE_S: Final = 86400.0
SUSPICION_S: Final = 1800.0
MAX_KEYS: Final = 4096
_SMOOTHING: Final = 0.3
_DOWN: Final = 3
"""So many failures in a row, and a server counts as down."""


@dataclass(slots=True)
class ServerHealth:
    """What is known of one server.

    `latency` in s, smoothed, is also what we waited in vain; None if nothing was asked yet.
    `heard_at` and `failed_at` are when it last answered and last failed, None if never.
    """

    failures: int = 0
    lies: int = 0
    retry_at: float = 0.0
    liar_until: float = 0.0
    suspect_until: float = 0.0
    latency: float | None = None
    heard_at: float | None = None
    failed_at: float | None = None

    def is_due(self, now: float) -> bool:
        """True if it may be connected to now."""
        return now >= self.retry_at and now >= self.liar_until


@dataclass(slots=True)
class Scores:
    """The health of all servers as one party has found it: a key, the pool or the headers.

    For keys `common` is what the pool has found.
    """

    servers: Sequence[NameServer]
    rng: random.Random = field(default_factory=random.SystemRandom)
    common: Scores | None = None
    _health: dict[str, ServerHealth] = field(default_factory=dict)

    def of(self, server: NameServer) -> ServerHealth:
        return self._health.setdefault(server.label, ServerHealth())

    def answered(self, server: NameServer, seconds: float, now: float) -> None:
        """An honest answer came after `seconds`."""
        health = self.of(server)
        health.failures, health.retry_at, health.heard_at = 0, 0.0, now
        known = health.latency
        change = 0.0 if known is None else (1 - _SMOOTHING) * (known - seconds)
        health.latency = seconds + change

    def was_slow(self, server: NameServer, seconds: float) -> None:
        """No answer came for so long that others had to be asked."""
        health = self.of(server)
        health.latency = max(seconds, health.latency or 0.0)

    def failed(self, server: NameServer, now: float) -> None:
        """It could not be reached, closed the connection, or took too long."""
        health = self.of(server)
        health.failures += 1
        health.failed_at = now
        wait = min(FIRST_RETRY_S * 2 ** (health.failures - 1), LAST_RETRY_S)
        health.retry_at = now + wait * self.rng.uniform(0.75, 1.25)

    def record_invalid_proof(self, server: NameServer, now: float) -> None:
        """It said something that was proven wrong."""
        health = self.of(server)
        health.lies += 1
        health.liar_until = now + LIE_S

    def mark_lagging(self, server: NameServer, now: float) -> None:
        """It knew less than another server proved; it lags, or it withholds."""
        self.of(server).suspect_until = now + SUSPICION_S

    def reset_backoff(self) -> None:
        """Forget failures, which were not the servers' own; lies stay."""
        for health in self._health.values():
            health.failures, health.retry_at = 0, 0.0

    def is_due(self, server: NameServer, now: float) -> bool:
        """True if it may be connected to now."""
        return self.of(server).is_due(now)

    def _is_down(self, server: NameServer, bound: Collection[str]) -> bool:
        """True if nobody can connect to it, as far as our clocks can tell."""
        if self.common is None or server.label in bound:
            return False
        return self.common.of(server).failures >= _DOWN

    def ranked(self, now: float, bound: Collection[str] = ()) -> list[NameServer]:
        """All servers, the most useful first; those in `bound` before their equals."""

        def rank(server: NameServer) -> tuple[float, ...]:
            health = self.of(server)
            slow = 0 if health.latency is None else int(health.latency / 2.0)
            return (
                now < health.liar_until,
                now < health.retry_at,
                self._is_down(server, bound),
                now < health.suspect_until,
                min(slow, 10),
                server.label not in bound,
                not server.target.is_onion,
                self.rng.random(),
            )

        return sorted(self.servers, key=rank)

    def choose(self, now: float, bound: Collection[str] = ()) -> list[NameServer]:
        """`ranked`, with a second server of one operator moved behind other operators."""
        heard: set[str] = set()
        first: list[NameServer] = []
        later: list[NameServer] = []
        for server in self.ranked(now, bound):
            useful = self.is_due(server, now) and not self._is_down(server, bound)
            (later if not useful or server.operator in heard else first).append(server)
            heard.add(server.operator)
        return first + later


def is_up(*found: ServerHealth) -> bool:
    """Whether a server answered when it was last asked, as far as several parties `found`."""
    heard = max((one.heard_at for one in found if one.heard_at is not None), default=None)
    failed = max((one.failed_at for one in found if one.failed_at is not None), default=None)
    return heard is not None and (failed is None or heard >= failed)


class KeyScores:
    """What each key has found out by itself, beside what is `common`.

    Bounded: the keys not used for longest are forgotten first.  Forget all at a new epoch.
    """

    def __init__(self, common: Scores, max_keys: int = MAX_KEYS) -> None:
        self._common = common
        self._max_keys = max_keys
        self._keys: OrderedDict[IsolationKey, Scores] = OrderedDict()

    def of(self, key: IsolationKey) -> Scores:
        """What `key` knows."""
        scores = self._keys.get(key)
        if scores is None:
            common = self._common
            scores = self._keys[key] = Scores(common.servers, common.rng, common)
            if len(self._keys) > self._max_keys:
                self._keys.popitem(last=False)
        self._keys.move_to_end(key)
        return scores

    def __iter__(self) -> Iterator[Scores]:
        return iter(self._keys.values())

    def keep(self, wanted: Callable[[IsolationKey], bool]) -> None:
        """Forget what keys know that are not `wanted`."""
        for key in [key for key in self._keys if not wanted(key)]:
            del self._keys[key]

    def forget(self) -> None:
        """Forget what all keys know."""
        self._keys.clear()
