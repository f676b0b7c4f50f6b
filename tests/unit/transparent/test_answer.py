"""The DNS of virtual addresses, read back by dnspython."""

from __future__ import annotations

import dns.flags
import dns.message
import dns.rcode
import pytest
from dns.rdatatype import RdataType
from hypothesis import given
from hypothesis import strategies as st

from isoproxy.namecoin.value.name import TopLevels
from isoproxy.transparent.answer import BOTH, IPV4_ONLY, IPV6_ONLY, TTL_S, VirtualZone, answer
from isoproxy.transparent.virtual_addresses import VirtualAddresses, VirtualPair

ZONE = VirtualZone(TopLevels())


def ask(
    name: str, rdtype: str = "A", zone: VirtualZone = ZONE, *, edns: bool = True
) -> dns.message.Message:
    addresses = VirtualAddresses(0)
    query = dns.message.make_query(name, rdtype, use_edns=edns)
    packet = query.to_wire()
    wire = answer(packet, zone, lambda name: addresses.assign(name, 0.0))
    assert wire is not None
    assert len(wire) <= len(packet) + 39
    response = dns.message.from_wire(wire)
    assert query.is_response(response)
    return response


def texts(response: dns.message.Message) -> list[str]:
    assert response.rcode() == dns.rcode.NOERROR
    return [rdata.to_text() for rrset in response.answer for rdata in rrset]


@pytest.mark.parametrize(
    "name", ["example.org", "EXAMPLE.org.", "name.bit", "abc.onion", "a_b.c-d.example", "router"]
)
@pytest.mark.parametrize("edns", [True, False])
def test_names_that_may_be_dialled_have_an_address_of_each_family(name: str, edns: bool) -> None:
    assert texts(ask(name, "A", edns=edns)) == ["10.192.1.0"]
    assert texts(ask(name, "AAAA", edns=edns)) == ["fd69:736f:7072::100"]
    (rrset,) = ask(name).answer
    assert rrset.ttl == TTL_S


@pytest.mark.parametrize(
    "name",
    ["printer.local", "onion", "x.i2p", "a.home.arpa", "1.2.3.4", "4.3.2.1.in-addr.arpa.alt"],
)
def test_names_that_are_dialled_nowhere_do_not_exist(name: str) -> None:
    assert ask(name).rcode() == dns.rcode.NXDOMAIN


def test_bit_does_not_exist_where_no_name_is_resolved() -> None:
    zone = VirtualZone(TopLevels().without_namecoin())
    assert ask("name.bit", zone=zone).rcode() == dns.rcode.NXDOMAIN


@pytest.mark.parametrize("rdtype", ["MX", "TXT", "SRV", "HTTPS", "NS", "ANY", "PTR"])
def test_there_is_nothing_but_addresses(rdtype: str) -> None:
    assert texts(ask("example.org", rdtype)) == []


def test_an_asker_of_one_family_is_told_of_that_alone() -> None:
    for families, kind, other in ((IPV4_ONLY, "A", "AAAA"), (IPV6_ONLY, "AAAA", "A")):
        zone = VirtualZone(TopLevels(), families)
        assert len(texts(ask("example.org", kind, zone))) == 1
        assert texts(ask("example.org", other, zone)) == []
    assert BOTH == IPV4_ONLY | IPV6_ONLY == {RdataType.A, RdataType.AAAA}


def test_localhost_is_what_it_is_everywhere() -> None:
    assert texts(ask("localhost")) == texts(ask("x.localhost")) == ["127.0.0.1"]
    assert texts(ask("localhost", "AAAA")) == ["::1"]


def test_without_room_it_is_said_that_there_is_none_now() -> None:
    packet = dns.message.make_query("example.org", "A").to_wire()
    wire = answer(packet, ZONE, lambda name: None)
    assert wire is not None
    assert dns.message.from_wire(wire).rcode() == dns.rcode.SERVFAIL


def test_what_is_no_query_has_no_answer_or_a_header() -> None:
    assert answer(b"", ZONE, _none) is None
    response = dns.message.make_response(dns.message.make_query("a.example", "A"))
    assert answer(response.to_wire(), ZONE, _none) is None
    root = answer(dns.message.make_query(".", "A").to_wire(), ZONE, _none)
    assert root is not None
    assert dns.message.from_wire(root).rcode() == dns.rcode.FORMERR
    chaos = answer(dns.message.make_query("version.bind", "TXT", "CH").to_wire(), ZONE, _none)
    assert chaos is not None
    assert dns.message.from_wire(chaos).rcode() == dns.rcode.REFUSED


def _none(name: str) -> VirtualPair | None:
    raise AssertionError("no name was asked for")


@given(st.binary(max_size=600))
def test_whatever_comes_is_answered_briefly_or_not_at_all(packet: bytes) -> None:
    addresses = VirtualAddresses(0)
    wire = answer(packet, ZONE, lambda name: addresses.assign(name, 0.0))
    assert wire is None or len(wire) <= len(packet) + 39
