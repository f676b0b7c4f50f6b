"""How far each server can be trusted to be of use: the order in which they are asked.

Theory of operation
    A server that cannot be reached is left alone for a time that doubles with every
    failure.  One that was slow or lagging ranks lower.  One that *lied* - anything that
    our own checks proved wrong - is left alone for a day, and asked before that only if
    nobody else is there.  Success forgives failures, never lies.

    Among equals the order is random, drawn anew each time, so that load spreads.

Invariants
    Nothing here depends on which names were asked for.  Times are seconds of any
    monotonic clock, passed in.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from isoproxy.names.servers import Server

FIRST_RETRY_S: Final = 2.0
LAST_RETRY_S: Final = 1800.0
LIE_S: Final = 86400.0
SUSPICION_S: Final = 1800.0
_SMOOTHING: Final = 0.3


@dataclass(slots=True)
class ServerHealth:
    """What is known of one server; `latency` in s, smoothed, None before the first answer."""

    failures: int = 0
    lies: int = 0
    retry_at: float = 0.0
    liar_until: float = 0.0
    suspect_until: float = 0.0
    latency: float | None = None


@dataclass(slots=True)
class Scores:
    """The health of all servers."""

    servers: Sequence[Server]
    rng: random.Random = field(default_factory=random.SystemRandom)
    _health: dict[str, ServerHealth] = field(default_factory=dict)

    def of(self, server: Server) -> ServerHealth:
        return self._health.setdefault(server.label, ServerHealth())

    def answered(self, server: Server, seconds: float) -> None:
        """An honest answer came after `seconds`."""
        health = self.of(server)
        health.failures, health.retry_at = 0, 0.0
        known = health.latency
        health.latency = seconds if known is None else known + _SMOOTHING * (seconds - known)

    def was_slow(self, server: Server, seconds: float) -> None:
        """No answer came for so long that others had to be asked."""
        health = self.of(server)
        health.latency = max(seconds, health.latency or 0.0)

    def failed(self, server: Server, now: float) -> None:
        """It could not be reached, closed the connection, or took too long."""
        health = self.of(server)
        health.failures += 1
        wait = min(FIRST_RETRY_S * 2 ** (health.failures - 1), LAST_RETRY_S)
        health.retry_at = now + wait * self.rng.uniform(0.75, 1.25)

    def lied(self, server: Server, now: float) -> None:
        """It said something that was proven wrong."""
        health = self.of(server)
        health.lies += 1
        health.liar_until = now + LIE_S

    def forgive(self) -> None:
        """Forget failures, which were not the servers' own; lies stay."""
        for health in self._health.values():
            health.failures, health.retry_at = 0, 0.0

    def is_suspect(self, server: Server, now: float) -> None:
        """It knew less than another server proved; it lags, or it withholds."""
        self.of(server).suspect_until = now + SUSPICION_S

    def is_due(self, server: Server, now: float) -> bool:
        """True if it may be connected to now."""
        health = self.of(server)
        return now >= health.retry_at and now >= health.liar_until

    def ranked(self, now: float, prefer: Iterable[str] = ()) -> list[Server]:
        """All servers, the most useful first; labels in `prefer` before their equals."""
        preferred = frozenset(prefer)

        def rank(server: Server) -> tuple[float, ...]:
            health = self.of(server)
            slow = 0 if health.latency is None else int(health.latency / 2.0)
            return (
                now < health.liar_until,
                now < health.retry_at,
                now < health.suspect_until,
                min(slow, 10),
                server.label not in preferred,
                not server.target.is_onion,
                self.rng.random(),
            )

        return sorted(self.servers, key=rank)

    def choose(self, now: float, prefer: Iterable[str] = ()) -> list[Server]:
        """`ranked`, with a second server of one operator moved behind other operators."""
        heard: set[str] = set()
        first: list[Server] = []
        later: list[Server] = []
        for server in self.ranked(now, prefer):
            useful = self.is_due(server, now)
            (later if not useful or server.voice in heard else first).append(server)
            heard.add(server.voice)
        return first + later
