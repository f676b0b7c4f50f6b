"""Back-off: doubling, bounded, jittered, begun anew after a success."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from isoproxy.net.backoff import Backoff


def test_the_ceiling_doubles_up_to_the_maximum() -> None:
    backoff = Backoff(1.0, 5.0, jitter=lambda low, high: high)
    assert [backoff.next() for _ in range(5)] == [1.0, 2.0, 4.0, 5.0, 5.0]


def test_reset_begins_anew() -> None:
    backoff = Backoff(1.0, 60.0, jitter=lambda low, high: high)
    backoff.next()
    backoff.next()
    backoff.reset()
    assert backoff.next() == 1.0


@given(st.integers(0, 40))
def test_a_wait_is_in_the_upper_half_of_what_is_due(failures: int) -> None:
    backoff = Backoff(0.5, 30.0)
    for _ in range(failures):
        backoff.next()
    due = min(30.0, 0.5 * 2**failures)
    assert due / 2 <= backoff.next() <= due


def test_two_programs_do_not_come_back_together() -> None:
    assert len({Backoff(1.0, 60.0).next() for _ in range(20)}) > 1
