"""The consensus limits: what has exactly their length is on the chain, one byte more is not."""

from __future__ import annotations

import pytest

from isoproxy.errors import RemoteProtocolError
from isoproxy.namecoin.chain.name_script import NAME_TX_VERSION
from isoproxy.namecoin.limits import MAX_NAME_BYTES, MAX_VALUE_BYTES
from tests.kit.namecoin.at_once import name_update
from tests.kit.namecoin.chain import name_script
from tests.kit.namecoin.mining import NULL_OUTPOINT, serialise


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [(255, 1023, True), (256, 1023, False), (255, 1024, False)],
)
def test_lengths(name: int, value: int, allowed: bool) -> None:
    assert (name <= MAX_NAME_BYTES and value <= MAX_VALUE_BYTES) is allowed
    script = name_script(3, b"n" * name, b"v" * value)
    raw = serialise(NAME_TX_VERSION, [(NULL_OUTPOINT, b"")], [(0, script)])
    if allowed:
        assert len(name_update(raw, b"n" * name).value) == value
    else:
        with pytest.raises(RemoteProtocolError, match="longer"):
            name_update(raw, b"n" * name)
