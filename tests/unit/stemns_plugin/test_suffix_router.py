"""The suffix router: suffixes, aliases, retries, time limits."""

from __future__ import annotations

import asyncio

import pytest

from isoproxy.errors import ErrorKind, NamingError
from isoproxy.net.target import Target
from stemns_plugin.streams import LookUp
from stemns_plugin.suffix_router import MAX_ALIASES, SuffixRouter, kind_of


class Table:
    """A name plugin with a fixed table; counts what it is asked."""

    def __init__(self, table: dict[str, str] | None = None) -> None:
        self.table = table or {}
        self.asked: list[tuple[str, bytes]] = []

    async def resolve(self, name: str, isolation: bytes) -> Target:
        self.asked.append((name, isolation))
        if name not in self.table:
            raise NamingError(kind=ErrorKind.NAME_ABSENT)
        return Target.parse(self.table[name], 0)


def asked(name: str) -> LookUp:
    return LookUp(1, name, b"6f-1", wants_address=False, event=None)


async def kind(router: SuffixRouter, name: str) -> ErrorKind:
    with pytest.raises(NamingError) as caught:
        await router.find(asked(name))
    return caught.value.kind


def test_the_longest_suffix_wins() -> None:
    router = SuffixRouter({"onion": Table(), "pet.onion": Table(), "a.pet.onion": Table()})
    assert router.suffix_of("x.pet.onion") == "pet.onion"
    assert router.suffix_of("x.a.pet.onion") == "a.pet.onion"
    assert router.suffix_of("pet.onion") == "onion"
    assert router.suffix_of("x.bit.onion") == "bit.onion"
    assert router.suffix_of("x.com") is None
    assert router.suffix_of("bit") is None
    assert router.suffix_of("xbit") is None


def test_bit_is_ours_even_if_nobody_serves_it() -> None:
    router = SuffixRouter({})
    assert router.is_ours("a.bit")
    assert router.is_ours("a.bit.onion")


async def test_what_nobody_serves_fails() -> None:
    assert await kind(SuffixRouter({}), "a.bit") is ErrorKind.NAME_NEVER_SENT_TO_TOR


async def test_asks_the_service_of_the_suffix_under_the_same_id() -> None:
    bit, pet = Table({"a.bit": "x.onion"}), Table({"a.pet.onion": "y.onion"})
    router = SuffixRouter({"bit": bit, "pet.onion": pet})
    assert (await router.find(asked("a.bit"))).host == "x.onion"
    assert (await router.find(asked("a.pet.onion"))).host == "y.onion"
    assert bit.asked == [("a.bit", b"6f-1")]
    assert pet.asked == [("a.pet.onion", b"6f-1")]


async def test_an_alias_to_a_name_of_ours_is_resolved_again() -> None:
    bit = Table({"a.bit": "B.bit.", "b.bit": "c.pet.onion"})
    router = SuffixRouter({"bit": bit, "pet.onion": Table({"c.pet.onion": "192.0.2.1"})})
    assert (await router.find(asked("a.bit"))).host == "192.0.2.1"
    assert {isolation for _, isolation in bit.asked} == {b"6f-1"}


async def test_aliases_that_go_round_end() -> None:
    table = Table({"a.bit": "b.bit", "b.bit": "a.bit"})
    assert await kind(SuffixRouter({"bit": table}), "a.bit") is ErrorKind.NAME_BUDGET
    assert len(table.asked) == MAX_ALIASES + 1
    chain = {f"n{i}.bit": f"n{i + 1}.bit" for i in range(MAX_ALIASES)}
    chain[f"n{MAX_ALIASES}.bit"] = "x.onion"
    assert (await SuffixRouter({"bit": Table(chain)}).find(asked("n0.bit"))).host == "x.onion"


@pytest.mark.virtual_clock
async def test_one_name_has_so_much_time() -> None:
    class Slow:
        async def resolve(self, name: str, isolation: bytes) -> Target:
            await asyncio.sleep(3600)
            raise NamingError

    assert await kind(SuffixRouter({"bit": Slow()}, timeout=60), "a.bit") is ErrorKind.NAME_TIMEOUT


class _Host:
    """A plugin that fails so often before it answers."""

    def __init__(self, *kinds: ErrorKind) -> None:
        self.kinds = list(kinds)
        self.times: list[float] = []

    async def resolve(self, name: str, isolation: bytes) -> Target:
        self.times.append(asyncio.get_running_loop().time())
        if self.kinds:
            raise NamingError(kind=self.kinds.pop(0))
        return Target.parse("x.onion", 0)


@pytest.mark.virtual_clock
async def test_failures_of_a_plugin_that_may_pass_are_tried_again() -> None:
    host = _Host(ErrorKind.NAME_BACKEND_DOWN, ErrorKind.NAME_TIMEOUT, ErrorKind.BUSY)
    assert (await SuffixRouter({"bit": host}).find(asked("a.bit"))).host == "x.onion"
    waits = [b - a for a, b in zip(host.times, host.times[1:], strict=False)]
    assert all(most / 2 <= wait <= most for wait, most in zip(waits, (1, 2, 4), strict=True))


@pytest.mark.virtual_clock
async def test_trying_again_has_an_end() -> None:
    host = _Host(*[ErrorKind.NAME_BACKEND_DOWN] * 1000)
    assert await kind(SuffixRouter({"bit": host}), "a.bit") is ErrorKind.NAME_TIMEOUT
    assert len(host.times) < 20


async def test_absence_is_not_tried_again() -> None:
    host = _Host(ErrorKind.NAME_ABSENT)
    assert await kind(SuffixRouter({"bit": host}), "a.bit") is ErrorKind.NAME_ABSENT
    assert len(host.times) == 1


def test_kinds() -> None:
    assert kind_of(NamingError(kind=ErrorKind.NAME_ABSENT)) is ErrorKind.NAME_ABSENT
    assert kind_of(ValueError()) is ErrorKind.INTERNAL
