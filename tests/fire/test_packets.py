"""The counters of the leak run count leaks; the run itself is `python -m tests.fire.leaks`."""

from __future__ import annotations

import pytest

from tests.fire import packets

pytestmark = pytest.mark.skipif(bool(packets.missing()), reason=packets.missing())


def test_every_leak_moves_the_counters_it_should() -> None:
    assert packets.enter("tests.fire.leaks", ["--controls", "--inside"]) == 0
