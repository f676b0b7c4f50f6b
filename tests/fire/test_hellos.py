"""The classifier of TLS finds its faults, and nothing in the product."""

from __future__ import annotations

import pytest

from tests.fire import hellos


def test_nothing_in_tls_tells_whose_a_connection_is() -> None:
    assert hellos.judged(2, seed=1, connections=40) == 1.0


@pytest.mark.parametrize("fault", list(hellos.FAULTS))
def test_a_build_with_a_fault_is_found(fault: str) -> None:
    assert hellos.judged_with(fault, 2, seed=1, connections=40) < 0.001
