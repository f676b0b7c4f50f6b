"""The cache is bounded, forgets in time, and knows nothing across keys."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from isoproxy.isolation import (
    ClientProtocol,
    IsolationKey,
    IsolationTuple,
    Isolator,
    ListenerRule,
    shared_group,
)
from isoproxy.namecoin.resolve.cache import KeyedCache

ISOLATOR = Isolator()


def key(number: int) -> IsolationKey:
    stream = IsolationTuple(None, ClientProtocol.SOCKS5, username=b"%d" % number)
    return ISOLATOR.key_for(ListenerRule(shared_group(1)), stream)


A, B, C = key(1), key(2), key(3)


def test_an_entry_is_found_under_its_key_until_its_end() -> None:
    cache: KeyedCache[str, int] = KeyedCache()
    cache.put(A, "x", 1, 10.0)
    entry = cache.get(A, "x", 9.9)
    assert entry is not None
    assert (entry.value, entry.ends) == (1, 10.0)
    assert cache.get(B, "x", 0.0) is None
    assert cache.get(A, "y", 0.0) is None
    assert cache.get(A, "x", 10.0) is None
    assert len(cache) == 0


def test_a_key_loses_what_it_used_least_recently() -> None:
    cache: KeyedCache[str, int] = KeyedCache(per_key=2)
    cache.put(A, "x", 1, 9.0)
    cache.put(A, "y", 2, 9.0)
    cache.put(B, "x", 3, 9.0)
    assert cache.get(A, "x", 0.0)
    cache.put(A, "z", 4, 9.0)
    assert cache.get(A, "y", 0.0) is None
    assert cache.get(A, "x", 0.0)
    assert cache.get(A, "z", 0.0)
    assert cache.get(B, "x", 0.0)
    assert len(cache) == 3


def test_beyond_the_total_the_least_recently_used_key_goes() -> None:
    evicted: list[None] = []
    cache: KeyedCache[str, int] = KeyedCache(
        per_key=2, total=3, on_evicted=lambda: evicted.append(None)
    )
    cache.put(A, "x", 1, 9.0)
    cache.put(A, "y", 1, 9.0)
    cache.put(B, "x", 1, 9.0)
    assert not evicted
    assert cache.get(A, "x", 0.0)
    cache.put(C, "x", 1, 9.0)
    assert cache.get(B, "x", 0.0) is None
    assert cache.get(A, "x", 0.0)
    assert len(cache) == 3
    assert len(evicted) == 1


def test_forgetting() -> None:
    cache: KeyedCache[str, int] = KeyedCache()
    for one in (A, B):
        cache.put(one, "x", 1, 9.0)
    cache.put(A, "x", 2, 9.0)
    cache.forget(A)
    cache.forget(C)
    assert cache.get(A, "x", 0.0) is None
    assert len(cache) == 1
    cache.clear()
    assert cache.get(B, "x", 0.0) is None
    assert len(cache) == 0


def test_a_block_brings_ends_nearer_and_never_further() -> None:
    cache: KeyedCache[str, int] = KeyedCache()
    cache.put(A, "x", 1, 100.0)
    cache.put(A, "y", 1, 12.0)
    delays = iter([5.0, 7.0])
    cache.end_early(10.0, lambda: next(delays))
    ends = {subject: cache.get(A, subject, 10.0) for subject in "xy"}
    assert ends["x"] is not None
    assert ends["x"].ends == 15.0
    assert ends["y"] is not None
    assert ends["y"].ends == 12.0


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["put", "get", "forget"]),
            st.integers(0, 3),
            st.integers(0, 4),
            st.integers(0, 9),
        )
    )
)
def test_it_agrees_with_a_table_and_keeps_its_bounds(
    moves: list[tuple[str, int, int, int]],
) -> None:
    cache: KeyedCache[int, int] = KeyedCache(per_key=3, total=7)
    stored: dict[tuple[int, int], tuple[int, float]] = {}
    for now, (move, owner, subject, value) in enumerate(moves):
        if move == "put":
            cache.put(key(owner), subject, value, now + value)
            stored[owner, subject] = (value, now + value)
        elif move == "forget":
            cache.forget(key(owner))
        else:
            found = cache.get(key(owner), subject, now)
            if found is not None:
                assert (found.value, found.ends) == stored[owner, subject]
                assert found.ends > now
        assert len(cache) <= 7
        assert len(cache) == sum(map(len, cache._keys.values()))
