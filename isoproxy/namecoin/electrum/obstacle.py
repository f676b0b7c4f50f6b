"""Why the light client cannot answer look-ups now, in a sentence for a person.

Theory of operation
    A look-up needs headers up to the tip, and a clock that agrees with them.  What is
    missing is told by its nearest cause: no Tor before no servers, no servers before
    headers that do not come.  Some obstacles do not go away while a look-up waits.

Invariants
    The sentences hold heights and numbers of servers, nothing of any look-up.
"""

from __future__ import annotations

from dataclasses import dataclass

from isoproxy.errors import ErrorKind
from isoproxy.namecoin.backend import TemporaryFailure
from isoproxy.namecoin.electrum.progress import Progress


@dataclass(frozen=True, slots=True)
class Obstacle:
    """What is in the way; a look-up need not wait if it is `lasting`."""

    failure: TemporaryFailure
    lasting: bool = False


@dataclass(frozen=True, slots=True)
class Standing:
    """How the light client stands.

    `connected` of `servers` give headers now; `untried` are those that did not fail yet.
    `last_failure` is why the newest connection for headers was not opened, None if it was.
    `tip_age` is the age of our newest block in s, `is_future` whether servers have blocks
    that are in the future by our clock.
    """

    started: bool
    ready: bool
    progress: Progress
    servers: int
    connected: int
    untried: int
    last_failure: ErrorKind | None
    tip_age: float
    max_tip_age: float | None
    is_future: bool

    def obstacle(self) -> Obstacle | None:
        """What keeps look-ups from being answered; None if nothing is known to."""
        if self.ready:
            return self._stale()
        if not self.started:
            return Obstacle(TemporaryFailure(kind=ErrorKind.TOR_UNREACHABLE))
        if not self.connected and self.last_failure is ErrorKind.TOR_UNREACHABLE:
            return Obstacle(TemporaryFailure(kind=ErrorKind.TOR_UNREACHABLE), lasting=True)
        if self.is_future:
            return Obstacle(
                TemporaryFailure(
                    "Name servers have blocks that are in the future by this computer's clock, "
                    "so it is slow; set it.",
                    kind=ErrorKind.NAME_WRONG_CLOCK,
                )
            )
        if not self.connected:
            return self._unreachable()
        fetched, target = self.progress.fetched, self.progress.target
        return Obstacle(
            TemporaryFailure(
                f"Block headers are still being fetched, {fetched} of {target}; "
                "try again in a moment.",
                kind=ErrorKind.NAME_SYNCHRONISING,
            )
        )

    def _stale(self) -> Obstacle | None:
        if self.max_tip_age is None or self.tip_age <= self.max_tip_age:
            return None
        days = self.tip_age / 86_400
        return Obstacle(
            TemporaryFailure(
                f"The newest block known is {days:.1f} days old by this computer's clock: the "
                "clock is fast, or newer blocks are kept from us; set the clock, or name other "
                "servers in names.electrum.servers.",
                kind=ErrorKind.NAME_WRONG_CLOCK,
            ),
            lasting=True,
        )

    def _unreachable(self) -> Obstacle:
        tried = self.servers - self.untried
        return Obstacle(
            TemporaryFailure(
                f"None of the {tried} name servers that were tried, of {self.servers}, can be "
                "reached through Tor; see 'isoproxy doctor'."
            ),
            lasting=not self.untried,
        )
