"""Tor's rule of sharing for two streams, as it stands in tor(1): the oracle of `SharingTable`."""

from __future__ import annotations

from isoproxy.sharing import FIELD_NAMES, StreamFields, mask_of

_ALWAYS = mask_of(["SESSION_GROUP", "NYM_EPOCH"])


def may_share(one: StreamFields, fields: int, other: StreamFields, other_fields: int) -> bool:
    """Whether they agree in every field that isolates one of them, by the masks of both."""
    mask = fields | other_fields | _ALWAYS
    return all(one[place] == other[place] for place in range(len(FIELD_NAMES)) if mask >> place & 1)
