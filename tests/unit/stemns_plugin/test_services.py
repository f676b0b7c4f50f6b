"""Who finds names: suffixes, aliases, retries, time limits."""

from __future__ import annotations

import asyncio

import pytest

from isoproxy.errors import ErrorKind, NamingError
from isoproxy.isolation import IsolationKey, Isolator
from isoproxy.namecoin.resolve.answer import NameAnswer, Status, TargetType, Want
from isoproxy.namecoin.value.name import BitName
from isoproxy.net.target import Target
from stemns_plugin.services import MAX_ALIASES, Embedded, External, NameService, Services, kind_of
from stemns_plugin.streams import LookUp


class Table:
    """A name service with a fixed table; counts what it is asked."""

    def __init__(self, table: dict[str, str] | None = None) -> None:
        self.table = table or {}
        self.asked: list[tuple[str, bytes, bool]] = []

    async def resolve(self, name: str, isolation: bytes, *, wants_address: bool) -> Target:
        self.asked.append((name, isolation, wants_address))
        if name not in self.table:
            raise NamingError(kind=ErrorKind.NAME_ABSENT)
        return Target.parse(self.table[name], 0)


def asked(name: str, *, wants_address: bool = False) -> LookUp:
    return LookUp(1, name, b"6f-1", wants_address, None)


async def kind(services: Services, name: str) -> ErrorKind:
    with pytest.raises(NamingError) as caught:
        await services.find(asked(name))
    return caught.value.kind


def test_the_longest_suffix_wins() -> None:
    services = Services({"onion": Table(), "pet.onion": Table(), "a.pet.onion": Table()})
    assert services.suffix_of("x.pet.onion") == "pet.onion"
    assert services.suffix_of("x.a.pet.onion") == "a.pet.onion"
    assert services.suffix_of("pet.onion") == "onion"
    assert services.suffix_of("x.bit.onion") == "bit.onion"
    assert services.suffix_of("x.com") is None
    assert services.suffix_of("bit") is None
    assert services.suffix_of("xbit") is None


def test_bit_is_ours_even_if_nobody_serves_it() -> None:
    services = Services({})
    assert services.is_ours("a.bit")
    assert services.is_ours("a.bit.onion")


async def test_what_nobody_serves_fails() -> None:
    assert await kind(Services({}), "a.bit") is ErrorKind.NAME_NEVER_SENT_TO_TOR


async def test_asks_the_service_of_the_suffix_under_the_same_id() -> None:
    bit, pet = Table({"a.bit": "x.onion"}), Table({"a.pet.onion": "y.onion"})
    services = Services({"bit": bit, "pet.onion": pet})
    assert (await services.find(asked("a.bit"))).host == "x.onion"
    assert (await services.find(asked("a.pet.onion", wants_address=True))).host == "y.onion"
    assert bit.asked == [("a.bit", b"6f-1", False)]
    assert pet.asked == [("a.pet.onion", b"6f-1", True)]


async def test_an_alias_to_a_name_of_ours_is_resolved_again() -> None:
    bit = Table({"a.bit": "B.bit.", "b.bit": "c.pet.onion"})
    services = Services({"bit": bit, "pet.onion": Table({"c.pet.onion": "192.0.2.1"})})
    assert (await services.find(asked("a.bit"))).host == "192.0.2.1"
    assert {isolation for _, isolation, _ in bit.asked} == {b"6f-1"}


async def test_aliases_that_go_round_end() -> None:
    table = Table({"a.bit": "b.bit", "b.bit": "a.bit"})
    assert await kind(Services({"bit": table}), "a.bit") is ErrorKind.NAME_BUDGET
    assert len(table.asked) == MAX_ALIASES + 1
    chain = {f"n{i}.bit": f"n{i + 1}.bit" for i in range(MAX_ALIASES)}
    chain[f"n{MAX_ALIASES}.bit"] = "x.onion"
    assert (await Services({"bit": Table(chain)}).find(asked("n0.bit"))).host == "x.onion"


@pytest.mark.virtual_clock
async def test_one_name_has_so_much_time() -> None:
    class Slow:
        async def resolve(self, name: str, isolation: bytes, *, wants_address: bool) -> Target:
            await asyncio.sleep(3600)
            raise NamingError

    assert await kind(Services({"bit": Slow()}, timeout=60), "a.bit") is ErrorKind.NAME_TIMEOUT


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
    service: NameService = External(host)  # type: ignore[arg-type]  # a stand-in for PluginHost
    assert (await Services({"bit": service}).find(asked("a.bit"))).host == "x.onion"
    waits = [round(b - a) for a, b in zip(host.times, host.times[1:], strict=False)]
    assert waits == [1, 2, 4]


@pytest.mark.virtual_clock
async def test_trying_again_has_an_end() -> None:
    host = _Host(*[ErrorKind.NAME_BACKEND_DOWN] * 1000)
    service: NameService = External(host)  # type: ignore[arg-type]  # a stand-in for PluginHost
    assert await kind(Services({"bit": service}), "a.bit") is ErrorKind.NAME_TIMEOUT
    assert len(host.times) < 10


async def test_absence_is_not_tried_again() -> None:
    host = _Host(ErrorKind.NAME_ABSENT)
    service: NameService = External(host)  # type: ignore[arg-type]  # a stand-in for PluginHost
    assert await kind(Services({"bit": service}), "a.bit") is ErrorKind.NAME_ABSENT
    assert len(host.times) == 1


class _Resolver:
    def __init__(self, resolution: NameAnswer) -> None:
        self.resolution = resolution
        self.asked: list[tuple[BitName, IsolationKey, Want]] = []

    def lookup_cached(self, name: BitName, key: IsolationKey) -> NameAnswer | None:
        return None

    async def resolve(
        self, name: BitName, key: IsolationKey, want: Want = Want.STREAM
    ) -> NameAnswer:
        self.asked.append((name, key, want))
        return self.resolution


async def test_the_resolver_of_this_process_gets_a_key_per_id() -> None:
    resolver = _Resolver(NameAnswer("a.bit", Status.OK, "x.onion", TargetType.ONION))
    service = Embedded(resolver, Isolator())
    for isolation, wants_address in ((b"1", False), (b"1", True), (b"2", False)):
        target = await service.resolve("a.bit", isolation, wants_address=wants_address)
        assert target == Target("x.onion", 0)
    keys = [key for _, key, _ in resolver.asked]
    assert keys[0] == keys[1] != keys[2]
    assert [want for _, _, want in resolver.asked] == [Want.STREAM, Want.ADDRESS, Want.STREAM]


async def test_a_resolution_without_an_answer_is_its_reason() -> None:
    service = Embedded(_Resolver(NameAnswer.failure("a.bit", ErrorKind.NAME_EXPIRED)), Isolator())
    with pytest.raises(NamingError) as caught:
        await service.resolve("a.bit", b"1", wants_address=False)
    assert caught.value.kind is ErrorKind.NAME_EXPIRED


def test_kinds() -> None:
    assert kind_of(NamingError(kind=ErrorKind.NAME_ABSENT)) is ErrorKind.NAME_ABSENT
    assert kind_of(ValueError()) is ErrorKind.INTERNAL
