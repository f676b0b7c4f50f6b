"""The whole zone from a node's list of names, against the table made by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import dns.zonefile
import pytest

from isoproxy.cli.resolve_text import zone_lines
from isoproxy.dns.dump import domains, dump
from isoproxy.errors import ErrorKind, NamingError, OperationError
from isoproxy.isolation import Isolator
from isoproxy.namecoin.backend import TemporaryFailure
from isoproxy.namecoin.resolve.resolver import Resolver
from isoproxy.namecoin.value.json import Json
from isoproxy.namecoin.value.name import BitName
from tests.unit.dns.table import CHAIN, ONION, RECORDS
from tests.unit.namecoin.kit import CountingBackend
from tests.unit.namecoin.rpc.server import Method

VALUES = {name.encode(): value for name, value in CHAIN.items()} | {b"d/A": {}, b"id/x": {}}


def scanning(names: list[bytes], expired: frozenset[bytes] = frozenset()) -> Method:
    """`name_scan` as Namecoin Core has it: shorter names first, from the first one asked for."""
    ordered = sorted(names, key=lambda name: (len(name), name))

    def name_scan(params: Any) -> Any:
        start, count, options = params
        assert options["nameEncoding"] == "hex"
        first = bytes.fromhex(start)
        page = [name for name in ordered if (len(name), name) >= (len(first), first)][:count]
        return [{"name": name.hex(), "expired": name in expired} for name in page]

    return name_scan


@dataclass
class Node:
    scan: Method
    pages: int = 0

    async def call(self, method: str, params: list[Json]) -> Json:
        assert method == "name_scan"
        self.pages += 1
        answer: Json = self.scan(params)
        return answer


async def collected(names: AsyncIterator[BitName]) -> list[str]:
    return [str(name) async for name in names]


@pytest.mark.parametrize("page", [2, 3, 7, 1000])
async def test_pages_of_any_size_list_every_domain_once(
    page: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("isoproxy.dns.dump.PAGE", page)
    names = [b"d/%s%d" % (b"x" * (n % 3), n) for n in range(1, 20)] + [
        b"dd/x",
        b"id/x",
        b"d/",
        b"e",
    ]
    node = Node(scanning(names, frozenset([b"d/x1"])))
    found = await collected(domains(node.call))
    expected = {f"{name[2:].decode()}.bit" for name in names[:19]} - {"x1.bit"}
    assert len(found) == len(set(found))
    assert set(found) == {name for name in expected if not name[:-4].isdigit()}
    assert node.pages <= len(names) + 2


async def test_a_node_that_repeats_itself_comes_to_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("isoproxy.dns.dump.PAGE", 2)
    page: Json = [
        {"name": b"d/a".hex(), "expired": False},
        {"name": b"d/b".hex(), "expired": False},
    ]

    async def call(method: str, params: list[Json]) -> Json:
        return page

    assert await collected(domains(call)) == ["a.bit", "b.bit", "a.bit"]


@pytest.mark.parametrize("answer", [None, {}, [1], [{}], [{"name": "zz", "expired": False}]])
async def test_what_is_no_list_of_names_is_told(answer: Json) -> None:
    async def call(method: str, params: list[Json]) -> Json:
        return answer

    with pytest.raises(OperationError, match="no Namecoin Core"):
        await collected(domains(call))


async def test_every_record_of_every_name_and_nothing_else() -> None:
    backend = CountingBackend(CHAIN, 0.0)
    isolator = Isolator()
    resolver = Resolver(backend, isolator)
    node = Node(scanning(list(VALUES)))
    zones: dict[str, dict[str, Any]] = {}
    failed = set()
    async for name, zone in dump(node.call, resolver, isolator.own_key("dump")):
        if isinstance(zone, NamingError):
            failed.add(str(name))
        else:
            zones[str(name)] = zone.as_json()
    await resolver.close()
    refused = [
        name
        for name, value in CHAIN.items()
        if isinstance(value, bytes | ErrorKind | TemporaryFailure)
    ]
    assert len(zones) == sum(name.startswith("d/") for name in CHAIN) - len(refused)
    assert failed == {f"{name[2:]}.bit" for name in refused}
    text = "\n".join(line for zone in zones.values() for line in zone_lines(zone)) + "\n"
    assert f"; onion.bit. tor {ONION}" in text.splitlines()
    read = dns.zonefile.read_rrsets(text, rdclass=None, default_ttl=600)
    written = {
        (str(rrset.name), rrset.rdtype.name, rdata.to_text()) for rrset in read for rdata in rrset
    }
    for owner, kinds in RECORDS.items():
        if owner in ("bit.", "this.x--nmc.bit.", "any.star.bit.", "mixed.bit."):
            continue
        for kind, texts in kinds.items():
            for text in texts:
                assert (owner, kind, text) in written
    assert ("*.star.bit.", "A", "198.51.100.7") in written
    assert ("trans.bit.", "DNAME", "plain.bit.") in written
    assert ("deleg.bit.", "NS", "ns.example.com.") in written
    assert not [owner for owner, _, _ in written if not owner.endswith(".bit.")]
