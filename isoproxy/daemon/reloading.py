"""What a reload applies, and what it has found changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_LIVE: Final = ("listener", "limits", "names", "bitcoin.", "observe.log_",
                "observe.safe_logging")  # fmt: skip
"""Beginnings of the keys that a reload applies; others wait for a restart."""
_SETTLED: Final = frozenset({"limits.workers"})
"""Keys among them that wait for a restart all the same."""


@dataclass(frozen=True, slots=True)
class Reloaded:
    """Keys whose values a reload found changed, and those of them that wait for a restart."""

    changed: tuple[str, ...]
    after_a_restart: tuple[str, ...]

    @classmethod
    def of(cls, changed: tuple[str, ...]) -> Reloaded:
        """What is to be told of `changed` keys."""
        waiting = (key for key in changed if key in _SETTLED or not key.startswith(_LIVE))
        return cls(changed, tuple(waiting))
