"""Which of Tor's own streams may share a circuit: Tor's rule, at the same cost per stream always.

Theory of operation
    A STREAM event names the fields that separate its stream from others (`ISO_FIELDS`).
    Two streams may share exactly when every field in the *union* of both sets is equal;
    a group's constraint is that of *all* its members.  Keeping the members would cost a
    scan per stream.  Three things say as much:

        V  the values of the group's first stream
        U  the union of its members' isolated fields
        M  the fields in which some member differs from V     (U and M never meet)

    A stream with isolated fields F may join when F and M do not meet and it agrees with
    V on F | U; then U grows by F, and M by the fields in which it differs from V.

    Groups are found through an index per (session group, U): from the values of the
    fields U to the group.  A look-up asks each U that occurs in the stream's session
    group, normally one, and never more than 64, however many groups there are.

    The index holds at most one group per entry, because two groups with the same U differ
    on U: the first stream of the younger one could not join the older.  Either its F met
    the older one's M, or it disagreed on the older one's U | F.  The first would now make
    U and M of one of them meet; so they disagree on a field that is in U of both.

Invariants
    A stream of a new NYM_EPOCH makes the table forget everything; a straggler of an old
    epoch shares with nobody.  Forgetting (also of the least recently used group, beyond
    `capacity`) only ever splits.  IDs begin with a random prefix and are never used twice.

    Tor itself asks only whether the *newcomer* is isolated, so listeners of one session
    group with different flags get, in that order, a circuit that this rule would refuse.
    We are stricter: whoever wanted to be apart, came first, and stays apart.

Specification: tor(1), SocksPort isolation flags; control-spec §4.1.2 (ISO_FIELDS).
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterable
from operator import itemgetter
from typing import Any, Final, NamedTuple

DEFAULT_CAPACITY: Final = 65536

FIELD_NAMES: Final = (
    "CLIENTADDR",
    "SOCKS_USERNAME",
    "SOCKS_PASSWORD",
    "CLIENT_PROTOCOL",
    "DESTADDR",
    "DESTPORT",
    "SESSION_GROUP",
    "NYM_EPOCH",
)
"""What `ISO_FIELDS` may list; bit i of a mask stands for name i and for field i of a stream."""

_BIT: Final = {name: 1 << place for place, name in enumerate(FIELD_NAMES)}
_ALWAYS: Final = _BIT["SESSION_GROUP"] | _BIT["NYM_EPOCH"]
_PLACES: Final = tuple(enumerate(1 << place for place in range(len(FIELD_NAMES))))


class StreamFields(NamedTuple):
    """The values that may separate a stream; None where Tor reports none.

    `dest_addr` is in lower case, for Tor compares it without regard to case.
    """

    client_addr: bytes | None
    username: bytes | None
    password: bytes | None
    protocol: bytes
    dest_addr: bytes
    dest_port: int
    session_group: int
    nym_epoch: int


def mask_of(names: Iterable[str]) -> int:
    """The mask for the names of an `ISO_FIELDS` list; KeyError for an unknown name."""
    mask = 0
    for name in names:
        mask |= _BIT[name]
    return mask


def _fields_of(mask: int) -> Callable[[StreamFields], Any]:
    places = [place for place, bit in _PLACES if mask & bit]
    return itemgetter(*places) if places else lambda stream: ()


_PROJECTIONS: Final = tuple(_fields_of(mask) for mask in range(1 << len(FIELD_NAMES)))
"""For each mask, what takes its fields out of a stream."""

_OTHERS: Final = tuple(
    tuple((place, bit) for place, bit in _PLACES if not mask & bit)
    for mask in range(1 << len(FIELD_NAMES))
)
"""For each mask, the fields that are not in it."""


class _Group:
    """Streams that may share; `serial` counts the groups in the order of their birth."""

    __slots__ = ("first", "id", "mixed", "serial", "united")

    def __init__(self, serial: int, identity: bytes, first: StreamFields, united: int) -> None:
        self.serial = serial
        self.id = identity
        self.first = first
        self.united = united
        self.mixed = 0


class SharingTable:
    """Gives each stream the ID of the group it may share with.

    capacity       groups remembered; the least recently used one is forgotten first
    random_bytes   `random_bytes(n)` is where the prefix of the IDs comes from
    """

    def __init__(
        self,
        *,
        capacity: int = DEFAULT_CAPACITY,
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self._capacity = capacity
        self._prefix = random_bytes(16).hex().encode() + b"-"
        self._serial = 0
        self._epoch: int | None = None
        self._groups: OrderedDict[int, _Group] = OrderedDict()
        self._index: dict[int, dict[int, dict[Any, _Group]]] = {}

    def __len__(self) -> int:
        return len(self._groups)

    def forget(self) -> None:
        """Forget every group: Tor was started anew, and its epochs begin again."""
        self._epoch = None
        self._groups.clear()
        self._index.clear()

    def own_id(self) -> bytes:
        """An ID that no other stream gets."""
        self._serial += 1
        return self._prefix + b"%d" % self._serial

    def assign(self, stream: StreamFields, isolated: int) -> bytes:
        """The ID for a stream whose `isolated` fields (a mask) separate it from others."""
        epoch = stream.nym_epoch
        if epoch != self._epoch:
            if self._epoch is not None and epoch < self._epoch:
                return self.own_id()
            self.forget()
            self._epoch = epoch
        isolated |= _ALWAYS
        group = self._find(stream, isolated)
        if group is None:
            return self._found(stream, isolated).id
        self._groups.move_to_end(group.serial)
        first = group.first
        for place, bit in _OTHERS[group.united | group.mixed]:  # the only ones that may differ
            if stream[place] != first[place]:
                group.mixed |= bit
        if isolated & ~group.united:
            self._unite(group, isolated)
        return group.id

    def _find(self, stream: StreamFields, isolated: int) -> _Group | None:
        """The oldest group that `stream` may join."""
        best = None
        for united, groups in self._index.get(stream.session_group, {}).items():
            group = groups.get(_PROJECTIONS[united](stream))
            if group is None or group.mixed & isolated:
                continue
            rest = isolated & ~united
            if rest and _PROJECTIONS[rest](stream) != _PROJECTIONS[rest](group.first):
                continue
            if best is None or group.serial < best.serial:
                best = group
        return best

    def _found(self, stream: StreamFields, isolated: int) -> _Group:
        identity = self.own_id()
        group = _Group(self._serial, identity, stream, isolated)
        self._groups[group.serial] = group
        self._enter(group)
        if len(self._groups) > self._capacity:
            self._leave(self._groups.popitem(last=False)[1])
        return group

    def _unite(self, group: _Group, isolated: int) -> None:
        self._leave(group)
        group.united |= isolated
        self._enter(group)

    def _enter(self, group: _Group) -> None:
        per_union = self._index.setdefault(group.first.session_group, {})
        per_union.setdefault(group.united, {})[_PROJECTIONS[group.united](group.first)] = group

    def _leave(self, group: _Group) -> None:
        per_union = self._index[group.first.session_group]
        groups = per_union[group.united]
        del groups[_PROJECTIONS[group.united](group.first)]
        if not groups:
            del per_union[group.united]
            if not per_union:
                del self._index[group.first.session_group]
