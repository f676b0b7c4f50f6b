"""Promise: whatever a client says first, on whatever port, v1 does not leave in plaintext.

A short run of `python -m tests.fire.plaintext`, which has thousands of streams and programs.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kit.tornet import TorNetwork
from tests.network.exit_capture import run

STREAMS = 250


@pytest.mark.parametrize("fallback", ["never", "onion-only"])
def test_no_v1_message_is_seen_at_the_exits(
    tmp_path: Path, tor_network: TorNetwork, fallback: str
) -> None:
    seen = run(tmp_path, tor_network, fallback, streams=STREAMS)
    assert seen.faults == []
    assert seen.mixed == 0
    assert seen.missing == []
    assert len(seen.whole) > STREAMS / 20
    assert seen.outcomes["v2"] == 0  # no sink speaks it
    assert sum(seen.outcomes.values()) > STREAMS / 5
