"""The resolver's laws: nothing crosses keys, look-ups are shared within one, bounds hold."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isoproxy.errors import ErrorKind, NamingError
from isoproxy.isolation import IsolationKey, Isolator
from isoproxy.namecoin.backend import TemporaryFailure
from isoproxy.namecoin.resolve.answer import NameAnswer, Status, Want
from isoproxy.namecoin.resolve.cached_backend import BLOCK_DELAY_S, NEGATIVE_S, POSITIVE_S
from isoproxy.namecoin.resolve.resolver import DEADLINE_S, Resolver
from isoproxy.namecoin.value.name import BitName
from tests.kit.clock import VirtualClockLoop
from tests.unit.namecoin.kit import ONION, CountingBackend, key_of

VALUES: dict[str, Any] = {
    "d/example": {"ip": "192.0.2.1", "map": {"www": {"tor": ONION}, "x": {"import": "dd/x"}}},
    "d/other": {"alias": "example.bit."},
    "d/down": TemporaryFailure(),
    "d/broken": b"{",
    "dd/x": {"ip": "192.0.2.9"},
}

bit = BitName.parse
pytestmark = pytest.mark.virtual_clock


class Bench:
    """A resolver on the running loop's clock, its backend and some keys."""

    def __init__(self, delay: float = 0.0, **options: Any) -> None:
        loop = asyncio.get_running_loop()
        self.backend = CountingBackend(VALUES, delay)
        self.isolator = Isolator()
        self.resolver = Resolver(self.backend, self.isolator, clock=loop.time, **options)

    def key(self, who: str = "a") -> IsolationKey:
        return key_of(self.isolator, who)


async def test_an_answer_is_cached_for_ten_minutes_under_its_key_alone() -> None:
    bench = Bench()
    a, b = bench.key("a"), bench.key("b")
    first = await bench.resolver.resolve(bit("example.bit"), a)
    assert (first.target, first.cached) == ("192.0.2.1", False)
    again = await bench.resolver.resolve(bit("EXAMPLE.bit."), a)
    assert (again.target, again.cached) == ("192.0.2.1", True)
    assert bench.resolver.lookup_cached(bit("example.bit"), a) == again
    assert bench.resolver.lookup_cached(bit("example.bit"), b) is None
    other = await bench.resolver.resolve(bit("example.bit"), b)
    assert not other.cached
    assert bench.backend.asked == [("d/example", a), ("d/example", b)]
    await asyncio.sleep(POSITIVE_S - 1)
    assert bench.resolver.lookup_cached(bit("example.bit"), a) is not None
    await asyncio.sleep(1)
    assert bench.resolver.lookup_cached(bit("example.bit"), a) is None
    assert not (await bench.resolver.resolve(bit("example.bit"), a)).cached
    assert len(bench.backend.asked) == 3


async def test_names_with_one_value_share_it_within_a_key() -> None:
    bench = Bench()
    await bench.resolver.resolve(bit("example.bit"), bench.key())
    www = await bench.resolver.resolve(bit("www.example.bit"), bench.key())
    assert (www.target, www.cached) == (ONION, True)
    assert (await bench.resolver.resolve(bit("example.bit"), bench.key(), Want.ADDRESS)).cached
    assert bench.backend.names() == ["d/example"]


async def test_absence_is_cached_for_a_minute() -> None:
    bench = Bench()
    for _ in range(2):
        resolution = await bench.resolver.resolve(bit("gone.bit"), bench.key())
        assert resolution.reason is ErrorKind.NAME_ABSENT
        assert resolution.status is Status.ABSENT
    assert bench.backend.names() == ["d/gone"]
    await asyncio.sleep(NEGATIVE_S)
    await bench.resolver.resolve(bit("gone.bit"), bench.key())
    assert bench.backend.names() == ["d/gone"] * 2


async def test_an_answer_ends_with_the_first_of_what_it_rests_on() -> None:
    bench = Bench()
    await bench.resolver.resolve(bit("example.bit"), bench.key())
    await asyncio.sleep(POSITIVE_S - 10)
    assert (await bench.resolver.resolve(bit("other.bit"), bench.key())).target == "192.0.2.1"
    await asyncio.sleep(10)
    assert bench.resolver.lookup_cached(bit("other.bit"), bench.key()) is None


async def test_what_may_pass_is_not_cached() -> None:
    bench = Bench()
    for _ in range(2):
        resolution = await bench.resolver.resolve(bit("down.bit"), bench.key())
        assert resolution.reason is ErrorKind.NAME_BACKEND_DOWN
        assert resolution.status is Status.FAILED
    assert len(bench.backend.asked) == 2


async def test_a_new_block_ends_what_is_cached_within_a_minute() -> None:
    bench = Bench()
    keys = [bench.key(str(number)) for number in range(40)]
    for key in keys:
        await bench.resolver.resolve(bit("example.bit"), key)
    bench.resolver.block_arrived()
    await asyncio.sleep(BLOCK_DELAY_S / 2)
    left = sum(bench.resolver.lookup_cached(bit("example.bit"), key) is not None for key in keys)
    assert 4 <= left <= 36
    await asyncio.sleep(BLOCK_DELAY_S / 2)
    assert all(bench.resolver.lookup_cached(bit("example.bit"), key) is None for key in keys)


async def test_look_ups_at_once_are_one_within_a_key_and_never_across() -> None:
    bench = Bench(delay=5.0)
    a, b = bench.key("a"), bench.key("b")
    resolve = bench.resolver.resolve
    names = ["example.bit", "www.example.bit", "example.bit", "other.bit"]
    found = await asyncio.gather(*(resolve(bit(name), key) for key in (a, b) for name in names))
    assert all(resolution.status is Status.OK for resolution in found)
    expected = [("d/example", a), ("d/other", a), ("d/example", b), ("d/other", b)]
    assert sorted(bench.backend.asked, key=str) == sorted(expected, key=str)
    assert asyncio.get_running_loop().time() == pytest.approx(5.0, abs=0.1)


async def test_a_hit_under_one_key_changes_neither_content_nor_time_of_another() -> None:
    bench = Bench(delay=7.0)
    a, b = bench.key("a"), bench.key("b")
    clock = asyncio.get_running_loop().time
    await bench.resolver.resolve(bit("example.bit"), a)
    bench.backend.values["d/example"] = {"ip": "192.0.2.2"}
    before = clock()
    assert (await bench.resolver.resolve(bit("example.bit"), a)).target == "192.0.2.1"
    assert clock() == before
    assert (await bench.resolver.resolve(bit("example.bit"), b)).target == "192.0.2.2"
    assert clock() - before == pytest.approx(7.0, abs=0.1)


async def test_the_deadline() -> None:
    bench = Bench(delay=1000.0)
    resolution = await bench.resolver.resolve(bit("example.bit"), bench.key())
    assert resolution.reason is ErrorKind.NAME_TIMEOUT
    assert asyncio.get_running_loop().time() == pytest.approx(DEADLINE_S, abs=0.1)
    await asyncio.sleep(0)
    assert bench.backend.under_way == 0
    with pytest.raises(NamingError) as caught:
        await bench.resolver.zone(bit("example.bit"), bench.key())
    assert caught.value.kind is ErrorKind.NAME_TIMEOUT


async def test_a_new_epoch_forgets_all_and_ends_what_is_under_way() -> None:
    bench = Bench()
    old = bench.key()
    await bench.resolver.resolve(bit("example.bit"), old)
    bench.backend.delay = 5.0
    waiting = asyncio.create_task(bench.resolver.resolve(bit("other.bit"), old))
    await asyncio.sleep(1)
    bench.isolator.new_epoch()
    assert (await waiting).reason is ErrorKind.STALE_KEY
    assert bench.resolver.lookup_cached(bit("example.bit"), old) is None
    asked = len(bench.backend.asked)
    assert (await bench.resolver.resolve(bit("example.bit"), old)).reason is ErrorKind.STALE_KEY
    assert len(bench.backend.asked) == asked
    assert bench.backend.under_way == 0
    assert (await bench.resolver.resolve(bit("example.bit"), bench.key())).target == "192.0.2.1"


async def test_a_resolution_that_spans_two_epochs_fetches_nothing_in_the_second() -> None:
    bench = Bench()
    key = bench.key()
    bench.backend.after = bench.isolator.new_epoch
    assert (await bench.resolver.resolve(bit("other.bit"), key)).reason is ErrorKind.STALE_KEY
    assert bench.backend.names() == ["d/other"]
    assert bench.resolver.lookup_cached(bit("other.bit"), key) is None


async def test_a_value_that_cannot_be_read() -> None:
    bench = Bench()
    assert (await bench.resolver.resolve(bit("broken.bit"), bench.key())).reason is (
        ErrorKind.NAME_INVALID_VALUE
    )
    assert bench.backend.names() == ["d/broken"]


async def test_a_defect_of_the_backend_is_not_hidden_and_not_cached() -> None:
    bench = Bench()
    bench.backend.values["d/example"] = ZeroDivisionError()
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            await bench.resolver.resolve(bit("example.bit"), bench.key())
    assert len(bench.backend.asked) == 2


async def test_zones() -> None:
    bench = Bench()
    zone = await bench.resolver.zone(bit("any.example.bit"), bench.key())
    assert [node.owner for node in zone.nodes] == [
        "example.bit",
        "www.example.bit",
        "x.example.bit",
    ]
    assert zone.found.height == 100
    assert bench.backend.names() == ["d/example", "dd/x"]
    with pytest.raises(NamingError) as caught:
        await bench.resolver.zone(bit("gone.bit"), bench.key())
    assert caught.value.kind is ErrorKind.NAME_ABSENT


async def test_closing_ends_everything() -> None:
    bench = Bench(delay=5.0)
    task = asyncio.create_task(bench.resolver.resolve(bit("example.bit"), bench.key()))
    await asyncio.sleep(1)
    await bench.resolver.close()
    assert (await task).reason is ErrorKind.NAME_BACKEND_DOWN
    assert bench.backend.closed
    assert bench.backend.under_way == 0


NAMES = ["example.bit", "www.example.bit", "x.example.bit", "other.bit", "gone.bit", "down.bit"]
MOVES = st.lists(
    st.tuples(
        st.sampled_from("ab"), st.sampled_from(NAMES), st.sampled_from([0.0, 1.0, 59.0, 600.0])
    ),
    max_size=12,
)


@given(MOVES)
@settings(max_examples=25)
def test_what_a_key_sees_and_how_long_it_waits_is_as_if_it_were_alone(
    moves: list[tuple[str, str, float]],
) -> None:
    async def run(owners: str) -> list[tuple[NameAnswer, float]]:
        bench = Bench(delay=3.0)
        clock = asyncio.get_running_loop().time
        seen: list[tuple[NameAnswer, float]] = []
        for at, (owner, name, _) in enumerate(moves):
            start = sum(pause for _, _, pause in moves[:at]) + 20.0 * at
            await asyncio.sleep(start - clock())
            if owner in owners:
                resolution = await bench.resolver.resolve(bit(name), bench.key(owner))
                if owner == "b":
                    seen.append((resolution, round(clock() - start, 1)))
        return seen

    results = []
    for owners in ("b", "ab"):
        with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
            results.append(runner.run(run(owners)))
    assert results[0] == results[1]


async def test_a_renewal_forgets_the_answers_of_one_key() -> None:
    bench = Bench()
    name, old, other = bit("example.bit"), bench.key(), bench.key("another")
    for key in (old, other):
        await bench.resolver.resolve(name, key)
    asked = len(bench.backend.asked)
    bench.isolator.renew(old.label)
    assert bench.resolver.lookup_cached(name, old) is None
    assert bench.resolver.lookup_cached(name, other) is not None
    assert (await bench.resolver.resolve(name, old)).reason is ErrorKind.STALE_KEY
    assert len(bench.backend.asked) == asked
    assert (await bench.resolver.resolve(name, bench.key())).target == "192.0.2.1"
    assert len(bench.backend.asked) == asked + 1
