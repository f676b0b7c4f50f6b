"""All parts together are the whole."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoproxy.front.services import Limits
from isoproxy.workers.budgets import (
    FEWEST_CIRCUITS,
    SMALLEST_PART,
    circuits_for_lookups,
    circuits_for_streams,
    limits_of,
    part,
    processes_for,
)


@given(st.integers(0, 1_000_000), st.integers(1, 64))
def test_parts_are_the_whole_and_differ_by_one_at_most(total: int, count: int) -> None:
    parts = [part(total, index, count) for index in range(count)]
    assert sum(parts) == total
    assert max(parts) - min(parts) <= 1


@given(st.integers(2, 32), st.integers(1, 8))
def test_lookups_and_streams_share_the_circuits(total: int, count: int) -> None:
    streams = [circuits_for_streams(total, index, count) for index in range(count)]
    lookups = circuits_for_lookups(total)
    assert sum(streams) + lookups == total
    assert lookups >= 1
    assert streams[0] >= 1


@given(st.integers(1, 1_000_000), st.integers(1, 1_000_000), st.integers(1, 64))
def test_connections_are_divided_in_total_and_per_client(total: int, each: int, count: int) -> None:
    whole = Limits(max_connections=total, max_connections_per_client=each)
    parts = [limits_of(whole, index, count) for index in range(count)]
    assert sum(limits.max_connections for limits in parts) == total
    assert sum(limits.max_connections_per_client for limits in parts) == each


@given(
    st.integers(1, 64),
    st.integers(1, 64),
    st.integers(1, 100_000),
    st.integers(1, 100_000),
    st.integers(2, 32),
)
def test_no_process_has_too_little_where_there_are_several(
    wanted: int, cores: int, total: int, each: int, circuits: int
) -> None:
    limits = Limits(max_connections=total, max_connections_per_client=each)
    count = processes_for(wanted, cores, limits, circuits)
    assert 1 <= count <= max(1, min(wanted, cores))
    if count > 1:
        last = limits_of(limits, count - 1, count)
        assert min(last.max_connections, last.max_connections_per_client) >= SMALLEST_PART
        assert circuits_for_streams(circuits, count - 1, count) >= FEWEST_CIRCUITS


@pytest.mark.parametrize(("cores", "count"), [(1, 1), (2, 2), (8, 2)])
def test_by_default_there_are_two_or_one_on_one_core(cores: int, count: int) -> None:
    limits = Limits(max_connections=8192, max_connections_per_client=4096)
    assert processes_for(2, cores, limits, 24) == count
