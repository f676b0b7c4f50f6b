"""Counts of what a connection carried, in v1's bytes and in v2's, by message type.

BIP324 says that v2 needs less bandwidth than v1; these counts show whether it does.
Types are counted by name only if they are well known, so a hostile peer cannot make the
table grow; all others share one row.
"""

from __future__ import annotations

from typing import Final

from isoproxy.bitcoin.bip324.cipher import OVERHEAD
from isoproxy.bitcoin.messages import KNOWN_TYPES, TYPE_LENGTH, ShortIds

OTHER: Final = b"(other)"
_V1_OVERHEAD: Final = 24


class Tally:
    """Messages of one type: how many, and how many bytes their payloads had.

    `prefix` is what precedes the payload in a v2 packet: header byte and encoded type;
    empty for the row of all other types.
    """

    __slots__ = ("messages", "payload", "prefix")

    def __init__(self, prefix: bytes) -> None:
        self.prefix = prefix
        self.messages = 0
        self.payload = 0


class Traffic:
    """What went one way.  `wire` is the number of bytes on the v2 side, all included."""

    __slots__ = ("_ids", "dropped", "tallies", "wire")

    def __init__(self, ids: ShortIds) -> None:
        self._ids = ids
        self.tallies: dict[bytes, Tally] = {}
        self.dropped = 0
        self.wire = 0

    def tally(self, kind: bytes) -> Tally:
        """The row of a padded type."""
        row = self.tallies.get(kind)
        if row is None:
            row = self._new_row(kind)
        return row

    def _new_row(self, kind: bytes) -> Tally:
        if kind not in KNOWN_TYPES and kind not in self._ids.to_send:
            return self.tallies.setdefault(OTHER, Tally(b""))
        number = self._ids.to_send.get(kind)
        encoded = bytes([number]) if number is not None else b"\x00" + kind
        return self.tallies.setdefault(kind, Tally(b"\x00" + encoded))

    @property
    def v1_bytes(self) -> int:
        """Bytes of these messages in v1."""
        return sum(row.payload + _V1_OVERHEAD * row.messages for row in self.tallies.values())

    @property
    def v2_bytes(self) -> int:
        """Bytes of these messages in v2; handshake and decoys are in `wire` alone."""
        return sum(
            row.payload + row.messages * (OVERHEAD - 1 + (len(row.prefix) or 2 + TYPE_LENGTH))
            for row in self.tallies.values()
        )

    def by_type(self) -> dict[str, tuple[int, int]]:
        """Type to (messages, payload bytes)."""
        return {
            kind.rstrip(b"\x00").decode("ascii"): (row.messages, row.payload)
            for kind, row in self.tallies.items()
        }
