"""One look-up for equal questions of one key, bounds, and the end of what is under way."""

from __future__ import annotations

import asyncio

import pytest

from isoproxy.errors import ErrorKind, NamingError
from isoproxy.isolation import IsolationKey, Isolator
from isoproxy.namecoin.backend import Absent, Found
from isoproxy.namecoin.limits import MAX_VALUE_BYTES
from isoproxy.namecoin.resolve.cache import KeyedCache
from isoproxy.namecoin.resolve.cached_backend import (
    MAX_IN_FLIGHT,
    NEGATIVE_S,
    POSITIVE_S,
    CachedBackend,
    Fetched,
)
from tests.unit.namecoin.kit import CountingBackend, key_of

pytestmark = pytest.mark.virtual_clock


class Bench:
    """A cached backend on the running loop's clock, and some keys."""

    def __init__(self, delay: float = 0.0) -> None:
        self.backend = CountingBackend({"d/example": {"ip": "192.0.2.1"}}, delay)
        self.isolator = Isolator()
        clock = asyncio.get_running_loop().time
        self.cached = CachedBackend(self.backend, self.isolator, KeyedCache(), clock)

    def key(self, who: str = "a") -> IsolationKey:
        return key_of(self.isolator, who)

    def lookup(self, name: bytes = b"d/example", who: str = "a") -> asyncio.Task[Fetched]:
        return asyncio.create_task(self.cached.lookup(name, self.key(who)))


async def kind_of(lookup: asyncio.Task[Fetched]) -> ErrorKind:
    with pytest.raises(NamingError) as caught:
        await lookup
    return caught.value.kind


@pytest.mark.parametrize(
    ("name", "outcome", "lifetime"),
    [(b"d/example", Found, POSITIVE_S), (b"d/gone", Absent, NEGATIVE_S)],
)
async def test_values_and_absence_are_kept_for_their_time(
    name: bytes, outcome: type, lifetime: float
) -> None:
    bench = Bench()
    first = await bench.lookup(name)
    assert isinstance(first.outcome, outcome)
    assert first.ends == pytest.approx(lifetime, abs=0.1)
    assert not first.cached
    await asyncio.sleep(lifetime / 2)
    assert await bench.lookup(name) == Fetched(first.outcome, first.ends, True)
    assert not (await bench.lookup(name, "b")).cached
    await asyncio.sleep(lifetime / 2)
    assert not (await bench.lookup(name)).cached
    assert len(bench.backend.asked) == 3


async def test_equal_questions_at_once_are_one_look_up() -> None:
    bench = Bench(delay=5.0)
    answers = await asyncio.gather(*(bench.lookup() for _ in range(3)))
    assert len(set(map(id, answers))) == 1
    assert bench.backend.names() == ["d/example"]


async def test_one_waiter_gone_does_not_disturb_the_other() -> None:
    bench = Bench(delay=5.0)
    first, second = bench.lookup(), bench.lookup()
    await asyncio.sleep(1)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert isinstance((await second).outcome, Found)
    assert len(bench.backend.asked) == 1


async def test_a_look_up_without_waiters_ends_and_a_later_one_starts_afresh() -> None:
    bench = Bench(delay=5.0)
    first = bench.lookup()
    await asyncio.sleep(1)
    first.cancel()
    later = bench.lookup()
    with pytest.raises(asyncio.CancelledError):
        await first
    await asyncio.sleep(0.1)
    assert bench.backend.under_way == 1
    assert isinstance((await later).outcome, Found)
    assert len(bench.backend.asked) == 2
    assert bench.cached._in_flight == {}


async def test_one_key_has_so_many_look_ups_under_way_and_no_more() -> None:
    bench = Bench(delay=5.0)
    *rest, last = (bench.lookup(b"d/n%d" % number) for number in range(MAX_IN_FLIGHT + 1))
    assert await kind_of(last) is ErrorKind.BUSY
    (other,) = await asyncio.gather(bench.lookup(who="b"), return_exceptions=True)
    assert isinstance(other, Fetched)
    assert isinstance(other.outcome, Found)
    for answer in await asyncio.gather(*rest):
        assert isinstance(answer.outcome, Absent)


async def test_a_value_that_no_chain_has_is_refused_and_not_kept() -> None:
    bench = Bench()
    bench.backend.values["d/example"] = b"x" * MAX_VALUE_BYTES
    await bench.lookup()
    bench.backend.values["d/big"] = b"x" * (MAX_VALUE_BYTES + 1)
    assert await kind_of(bench.lookup(b"d/big")) is ErrorKind.NAME_UNVERIFIABLE
    assert len(bench.cached) == 1


async def test_a_new_epoch_ends_what_is_under_way_and_its_key_is_stale() -> None:
    bench = Bench()
    await bench.lookup()
    old, bench.backend.delay = bench.key(), 5.0
    waiting = bench.lookup(b"d/other")
    await asyncio.sleep(1)
    bench.isolator.new_epoch()
    assert await kind_of(waiting) is ErrorKind.STALE_KEY
    assert (len(bench.cached), bench.backend.under_way) == (0, 0)
    with pytest.raises(NamingError) as caught:
        await bench.cached.lookup(b"d/example", old)
    assert caught.value.kind is ErrorKind.STALE_KEY
    assert len(bench.backend.asked) == 2


async def test_closing_ends_everything() -> None:
    bench = Bench(delay=5.0)
    waiting = bench.lookup()
    await asyncio.sleep(1)
    await bench.cached.close()
    assert await kind_of(waiting) is ErrorKind.NAME_BACKEND_DOWN
    assert bench.backend.closed
    assert bench.backend.under_way == 0


async def test_a_renewal_ends_what_is_of_one_key_and_nothing_of_another() -> None:
    bench = Bench()
    for who in ("a", "b"):
        await bench.lookup(who=who)
    old, bench.backend.delay = bench.key(), 5.0
    ended, other = bench.lookup(b"d/other"), bench.lookup(b"d/other", "b")
    await asyncio.sleep(1)
    bench.isolator.renew(old.label)
    assert await kind_of(ended) is ErrorKind.STALE_KEY
    assert (len(bench.cached), bench.backend.under_way) == (1, 1)
    assert isinstance((await other).outcome, Absent)
    with pytest.raises(NamingError) as caught:
        await bench.cached.lookup(b"d/example", old)
    assert caught.value.kind is ErrorKind.STALE_KEY
    assert (await bench.lookup(who="b")).cached
    assert not (await bench.lookup()).cached
