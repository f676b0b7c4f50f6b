"""How far our headers are.

Invariants
    Numbers alone: what is made of them is the reader's.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """Heights held (`base`...`tip`), claimed by servers (`target`), and `wanted_base`,
    down to which a name can live; `fetched` is above `tip` while what is there is not proven
    enough, `unproven` counts the blocks of which the work was not checked."""

    base: int
    tip: int
    target: int
    wanted_base: int
    fetched: int
    unproven: int

    @property
    def is_complete(self) -> bool:
        return self.tip >= self.target and self.base <= self.wanted_base
