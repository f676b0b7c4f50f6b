"""Listener flags as tor(1) spells them."""

from __future__ import annotations

import pytest

from isoproxy.isolation import DEFAULT_ISOLATION, FLAG_NAMES, Isolate, parse_isolation


def test_flags_are_spelt_as_in_tor() -> None:
    assert parse_isolation(["ClientAddr", "socksauth"]) == DEFAULT_ISOLATION
    assert parse_isolation([f"Isolate{name}" for name in FLAG_NAMES]) == Isolate(31)
    assert parse_isolation([]) is Isolate.NOTHING
    with pytest.raises(ValueError, match="DestAdr"):
        parse_isolation(["DestAdr"])
