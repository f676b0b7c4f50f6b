"""How many look-ups each identity asked for, for whoever looks at the status.

Invariants
    At most `MAX_IDENTITIES` are counted, others not.  An identity that has ended is forgotten:
    its successor begins at nothing.
"""

from __future__ import annotations

from typing import Final

from isoproxy.isolation import IsolationKey, Isolator

MAX_IDENTITIES: Final = 4096


class LookupCounts:
    """Counts by key, told by label; `close` it when its isolator goes on without it."""

    def __init__(self, isolator: Isolator) -> None:
        self._isolator: Final = isolator
        self._counts: dict[IsolationKey, int] = {}
        self._leave: Final = (
            isolator.on_new_epoch(self._counts.clear),
            isolator.on_renewal(self._forget),
        )

    def add(self, key: IsolationKey) -> None:
        """One more under `key`."""
        if key in self._counts:
            self._counts[key] += 1
        elif len(self._counts) < MAX_IDENTITIES:
            self._counts[key] = 1

    def _forget(self) -> None:
        for key in [key for key in self._counts if not self._isolator.is_current(key)]:
            del self._counts[key]

    def by_label(self) -> dict[str, int]:
        """What is known, by the keys' labels."""
        return {key.label: count for key, count in self._counts.items()}

    def close(self) -> None:
        """Follow the isolator no more."""
        for leave in self._leave:
            leave()
