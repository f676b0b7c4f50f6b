"""What was learned under an isolation key, for that key alone.

Theory of operation
    A table of tables: isolation key, then subject (a name).  Each key has room for
    `per_key` entries and loses its least recently used one beyond that; all keys together
    have room for `total` entries, beyond which the least recently used *key* is dropped
    whole.  Entries end at a moment fixed when they are stored; a new block brings the end
    nearer, by a random delay for each entry, so that keys do not all ask again at once
    and show a server that they belong to one user.

Invariants
    What is stored under a key is found under that key only.  Below the total bound no
    key's entries depend on what another key does.  Entries past their end are never
    returned.  Nothing here reads a clock: the caller says what time it is, in seconds.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from isoproxy.isolation import IsolationKey

S = TypeVar("S")
V = TypeVar("V")

PER_KEY: Final = 64
TOTAL: Final = 16_384


@dataclass(slots=True)
class Entry(Generic[V]):
    """A stored value and the moment (s) from which on it no longer counts."""

    value: V
    ends: float


class KeyedCache(Generic[S, V]):
    """Bounded, least recently used first out, separate for every isolation key.

    `on_evicted()` is called for each key that is dropped because all keys together have
    no more room.
    """

    def __init__(
        self,
        *,
        per_key: int = PER_KEY,
        total: int = TOTAL,
        on_evicted: Callable[[], None] = lambda: None,
    ) -> None:
        self._per_key: Final = per_key
        self._total: Final = total
        self._on_evicted: Final = on_evicted
        self._keys: Final[OrderedDict[IsolationKey, OrderedDict[S, Entry[V]]]] = OrderedDict()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def get(self, key: IsolationKey, subject: S, now: float) -> Entry[V] | None:
        """What is stored for `subject` under `key` and still counts at `now`."""
        entries = self._keys.get(key)
        if entries is None:
            return None
        entry = entries.get(subject)
        if entry is None:
            return None
        if entry.ends <= now:
            self._remove(key, entries, subject)
            return None
        entries.move_to_end(subject)
        self._keys.move_to_end(key)
        return entry

    def put(self, key: IsolationKey, subject: S, value: V, ends: float) -> None:
        """Store `value` until `ends`; may push out what was used least recently."""
        entries = self._keys.setdefault(key, OrderedDict())
        self._keys.move_to_end(key)
        if subject not in entries:
            self._size += 1
        entries[subject] = Entry(value, ends)
        entries.move_to_end(subject)
        if len(entries) > self._per_key:
            entries.popitem(last=False)
            self._size -= 1
        while self._size > self._total:
            self.forget(next(iter(self._keys)))
            self._on_evicted()

    def forget(self, key: IsolationKey) -> None:
        """Drop all that is stored under `key`."""
        self._size -= len(self._keys.pop(key, ()))

    def keep(self, wanted: Callable[[IsolationKey], bool]) -> None:
        """Drop all that is stored under keys that are not `wanted`."""
        for key in [key for key in self._keys if not wanted(key)]:
            self.forget(key)

    def clear(self) -> None:
        """Drop everything."""
        self._keys.clear()
        self._size = 0

    def end_early(self, now: float, delay: Callable[[], float]) -> None:
        """Let every entry end at most `delay()` seconds after `now`, drawn for each."""
        for entries in self._keys.values():
            for entry in entries.values():
                entry.ends = min(entry.ends, now + delay())

    def _remove(self, key: IsolationKey, entries: OrderedDict[S, Entry[V]], subject: S) -> None:
        del entries[subject]
        self._size -= 1
        if not entries:
            del self._keys[key]
