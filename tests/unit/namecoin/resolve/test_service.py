"""The front end's questions: targets, reasons, the resolver of the client, counts."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest

from isoproxy.errors import ErrorKind, NamingError
from isoproxy.front.services import Names
from isoproxy.isolation import IsolationKey, Isolator, client_of_address, client_of_uid
from isoproxy.namecoin.backend import TemporaryFailure
from isoproxy.namecoin.resolve.answer import Site, Want
from isoproxy.namecoin.resolve.client_views import ClientViews
from isoproxy.namecoin.resolve.lookup_counts import LookupCounts
from isoproxy.namecoin.resolve.resolver import Resolver
from isoproxy.namecoin.resolve.service import NameService
from isoproxy.namecoin.value.name import BitName
from isoproxy.net.target import Target
from isoproxy.observe.metrics import Metrics
from tests.unit.namecoin.kit import ONION, CountingBackend, key_of

VALUES: dict[str, Any] = {
    "d/example": {"ip": "192.0.2.1", "map": {"www": {"tor": ONION}}},
    "d/down": TemporaryFailure(),
}
LOCAL = client_of_address("127.0.0.1")
NAME = BitName("example")
WORKSTATION = client_of_address("10.152.152.11")


class Bench:
    """A gateway: one name service for everybody, another for one workstation."""

    def __init__(self, *, default: bool = True) -> None:
        self.isolator = Isolator()
        self.metrics = Metrics()
        self.general, self.workstation = CountingBackend(VALUES), CountingBackend(VALUES)
        resolvers = [Resolver(b, self.isolator) for b in (self.general, self.workstation)]
        by_client = ClientViews(
            {ip_network("10.152.152.11/32"): resolvers[1]}, resolvers[0] if default else None
        )
        counts = LookupCounts(self.isolator)
        self.service = NameService("electrum-nmc", resolvers, by_client, self.metrics, counts)

    def key(self, who: str = "a") -> IsolationKey:
        return key_of(self.isolator, who)

    def count(self, outcome: str) -> int:
        return self.metrics.names.of(backend="electrum-nmc", outcome=outcome).value


async def test_a_target_gets_another_host_or_a_reason() -> None:
    bench = Bench()
    names: Names = bench.service

    async def ask(host: str, port: int = 80, want: Want = Want.STREAM) -> Target:
        return await names.address_of(Target.parse(host, port), bench.key(), want, LOCAL)

    for _ in range(2):
        assert await ask("www.example.bit") == Target.parse(ONION, 80)
    assert await ask("Example.bit.", 443) == Target.parse("192.0.2.1", 443)
    for host, kind in (
        ("gone.bit", ErrorKind.NAME_ABSENT),
        ("down.bit", ErrorKind.NAME_BACKEND_DOWN),
        ("bit", ErrorKind.NAME_ABSENT),
        ("example.com", ErrorKind.NAME_SYNTAX),
        ("example.bit.onion", ErrorKind.NAME_NO_ADDRESS),
    ):
        with pytest.raises(NamingError) as caught:
            await ask(host)
        assert caught.value.kind is kind
    with pytest.raises(NamingError) as caught:
        await ask("www.example.bit", 0, Want.ADDRESS)
    assert caught.value.kind is ErrorKind.NAME_NO_ADDRESS


async def test_outcomes_are_counted_and_nothing_else() -> None:
    bench = Bench()
    for name in ("www.example.bit", "www.example.bit", "gone.bit", "down.bit"):
        await bench.service.resolve(BitName.parse(name), bench.key())
    assert bench.count("ok") == bench.count("cached") == 1
    assert bench.count("name_absent") == bench.count("name_backend_down") == 1
    assert (bench.metrics.name_cache_hits.value, bench.metrics.name_cache_misses.value) == (1, 3)
    assert sum(bench.metrics.name_seconds.of(backend="electrum-nmc").counts) == 3
    assert bench.service.cached == 4  # two values, two answers
    assert "example" not in bench.metrics.exposition()


async def test_a_workstations_look_ups_go_to_its_own_name_service() -> None:
    bench = Bench()
    await bench.service.resolve(NAME, bench.key("w"), client=WORKSTATION)
    assert (bench.general.names(), bench.workstation.names()) == ([], ["d/example"])
    for client in (LOCAL, client_of_uid(1000), None):
        await bench.service.resolve(NAME, bench.key(repr(client)), client=client)
    assert len(bench.general.names()) == 3
    assert len(bench.workstation.names()) == 1


async def test_nobody_gets_somebody_elses_name_service() -> None:
    bench = Bench(default=False)
    target = Target.parse("example.bit", 80)
    with pytest.raises(NamingError) as caught:
        await bench.service.address_of(target, bench.key(), Want.STREAM, LOCAL)
    assert caught.value.kind is ErrorKind.NAME_BACKEND_DOWN
    assert bench.general.asked == bench.workstation.asked == []


async def test_the_end_ends_every_backend_and_follows_no_epoch_any_more() -> None:
    bench = Bench()
    await bench.service.resolve(NAME, bench.key())
    await bench.service.close()
    assert bench.general.closed
    assert bench.workstation.closed
    assert bench.isolator._followers == []


async def test_a_site_comes_with_what_its_name_says_of_it() -> None:
    bench = Bench()
    bench.general.values["d/secure"] = {
        "ip": "192.0.2.1",
        "map": {"_tcp": {"map": {"_443": {"tls": [[3, 1, 1, "AA=="]]}}}},
    }
    site = await bench.service.site_of(Target.parse("secure.bit", 443), bench.key(), LOCAL)
    assert site == Site(Target.parse("192.0.2.1", 443), (b"\x03\x01\x01\x00",))
    with pytest.raises(NamingError):
        await bench.service.site_of(Target.parse("gone.bit", 443), bench.key(), LOCAL)
