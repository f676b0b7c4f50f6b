from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from isoproxy.dns.rate_limit import MAX_CLIENTS, RateLimit


def test_a_seconds_worth_at_once_and_then_the_rate() -> None:
    limit = RateLimit(10.0)
    assert [limit.allows(b"a", 0.0) for _ in range(12)] == [True] * 10 + [False] * 2
    assert limit.allows(b"b", 0.0)
    assert [limit.allows(b"a", 0.25) for _ in range(3)] == [True, True, False]


@given(st.lists(st.floats(0.1, 5.0), min_size=1, max_size=60))
def test_who_keeps_to_the_rate_is_always_served(pauses: list[float]) -> None:
    limit, now = RateLimit(10.0), 0.0
    for pause in pauses:
        now += pause
        assert limit.allows(b"a", now)


@example([0.0] * 20)
@given(st.lists(st.floats(0.0, 0.5), min_size=1, max_size=200))
def test_nobody_gets_more_than_the_rate_and_one_seconds_worth(pauses: list[float]) -> None:
    limit, now, served = RateLimit(5.0), 0.0, 0
    for pause in pauses:
        now += pause
        served += limit.allows(b"a", now)
    assert served <= 5 + 5 * now + 1e-6


def test_memory_is_bounded() -> None:
    limit = RateLimit(1.0)
    for number in range(MAX_CLIENTS + 100):
        assert limit.allows(b"%d" % number, 0.0)
    assert not limit.allows(b"%d" % (MAX_CLIENTS + 99), 0.0)
    assert limit.allows(b"0", 0.0)
