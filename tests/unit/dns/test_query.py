"""Queries: what is read, what is refused, and that hostile packets gain nothing."""

from __future__ import annotations

import random

import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rdatatype
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoproxy.dns.query import (
    ISOLATION_OPTION,
    Query,
    Rejected,
    bare_response,
    parse_query,
)
from tests.unit.dns.kit import parsed, question

LABELS = st.lists(st.binary(min_size=1, max_size=63), max_size=6).filter(
    lambda labels: sum(map(len, labels)) + len(labels) + 1 <= 255
)
ISOLATION = dns.edns.OptionType.make(ISOLATION_OPTION)


def with_options(*options: tuple[int, bytes]) -> bytes:
    message = dns.message.make_query("a.bit", "A")
    listed: list[dns.edns.Option] = [
        dns.edns.GenericOption(dns.edns.OptionType.make(code), data) for code, data in options
    ]
    message.use_edns(0, 0, 1232, options=listed)
    return message.to_wire()


@given(
    labels=LABELS,
    rdtype=st.integers(0, 0xFFFF).filter(lambda number: number not in (41, 249, 250)),
    isolation=st.none() | st.binary(max_size=255),
    other=st.lists(st.tuples(st.integers(65001, 65311), st.binary(max_size=40)), max_size=3),
    payload=st.integers(0, 0xFFFF),
    do=st.booleans(),
)
def test_reads_what_dnspython_writes(
    labels: list[bytes],
    rdtype: int,
    isolation: bytes | None,
    other: list[tuple[int, bytes]],
    payload: int,
    do: bool,
) -> None:
    message = dns.message.make_query(
        dns.name.Name([*labels, b""]), dns.rdatatype.RdataType.make(rdtype)
    )
    listed: list[dns.edns.Option] = [
        dns.edns.GenericOption(dns.edns.OptionType.make(code), data) for code, data in other
    ]
    if isolation is not None:
        listed.insert(len(listed) // 2, dns.edns.GenericOption(ISOLATION, isolation))
    message.use_edns(0, 0x8000 if do else 0, payload, options=listed)
    query = parsed(message.to_wire())
    assert query.labels == tuple(labels)
    assert (query.id, query.rdtype, query.rdclass) == (message.id, rdtype, 1)
    assert query.isolation == isolation
    assert query.wants_dnssec is do
    assert 512 <= query.udp_limit <= 1232
    assert repr(query) == "<Query>"


def test_without_edns() -> None:
    query = parsed(question("wWw.Plain.BIT", "A", edns=False))
    assert query.edns is None
    assert query.isolation is None
    assert query.labels == (b"wWw", b"Plain", b"BIT")
    assert query.udp_limit == 512


def test_an_empty_isolation_id_is_not_an_absent_one() -> None:
    assert parsed(with_options((ISOLATION_OPTION, b""))).isolation == b""
    assert parsed(with_options()).isolation is None


@pytest.mark.parametrize(
    "packet",
    [
        with_options((ISOLATION_OPTION, b"a"), (ISOLATION_OPTION, b"b")),
        with_options((ISOLATION_OPTION, bytes(256))),
        question("a.bit", "A").to_wire() + b"\0",
        question("a.bit", "A", edns=False).to_wire() + b"\0",
        question("a.bit", "A", edns=False).to_wire()[:-1],
        b"\x12\x34\x01\0\0\x02\0\0\0\0\0\0",
        b"\x12\x34\x01\0\0\0\0\0\0\0\0\0",
        b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\xc0\x0c\0\x01\0\x01",
        b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x40aaaa\0\0\x01\0\x01",
        b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0" + b"\x3f" * 256 + b"\0\0\x01\0\x01",
    ],
    ids=[f"packet-{number}" for number in range(10)],  # the packets' own IDs are random
)
def test_malformed(packet: bytes) -> None:
    rejected = parse_query(packet)
    assert isinstance(rejected, Rejected)
    response = dns.message.from_wire(rejected.response)
    assert response.rcode() == 1  # FORMERR
    assert response.id == int.from_bytes(packet[:2])
    assert len(rejected.response) == 12


def test_other_opcodes_are_not_implemented() -> None:
    packet = bytearray(question("a.bit", "A").to_wire())
    packet[2] |= 4 << 3  # NOTIFY
    rejected = parse_query(bytes(packet))
    assert isinstance(rejected, Rejected)
    assert dns.message.from_wire(rejected.response).rcode() == 4


def test_responses_and_fragments_are_dropped() -> None:
    packet = bytearray(question("a.bit", "A").to_wire())
    packet[2] |= 0x80
    assert parse_query(bytes(packet)) is None
    for length in range(12):
        assert parse_query(bytes(length)) is None


def test_every_beginning_of_a_query_is_refused() -> None:
    packet = with_options((ISOLATION_OPTION, b"tab 1"))
    for length in range(12, len(packet)):
        assert isinstance(parse_query(packet[:length]), Rejected)


@given(st.binary(max_size=600))
def test_noise(packet: bytes) -> None:
    result = parse_query(packet)
    if isinstance(result, Rejected):
        assert len(result.response) <= len(packet)


def test_ten_thousand_damaged_packets_gain_no_more_than_three_times_their_length() -> None:
    chance = random.Random(65312)
    whole = with_options((ISOLATION_OPTION, b"tab 1"), (10, bytes(8)))
    for _ in range(10_000):
        packet = bytearray(whole)
        for _ in range(chance.randint(1, 6)):
            packet[chance.randrange(len(packet))] = chance.randrange(256)
        damaged = bytes(packet[: chance.choice([len(packet), chance.randrange(len(packet) + 1)])])
        result = parse_query(damaged)
        if isinstance(result, Query):
            assert len(bare_response(result, 2)) <= 3 * len(damaged)
        elif isinstance(result, Rejected):
            assert len(result.response) <= len(damaged)


@given(labels=LABELS, isolation=st.none() | st.binary(max_size=255), do=st.booleans())
def test_bare_responses(labels: list[bytes], isolation: bytes | None, do: bool) -> None:
    name = dns.name.Name([*labels, b""])
    query = parsed(question(name.to_text(), "A", isolation=isolation, dnssec=do))
    wire = bare_response(query, 16, truncated=True)
    response = dns.message.from_wire(wire)
    assert response.rcode() == 16
    assert response.flags & dns.flags.TC
    assert response.question[0].name.labels == name.labels
    assert [option.otype for option in response.options] == [ISOLATION] * (isolation is not None)
    assert bool(response.ednsflags & 0x8000) is do


def test_bare_responses_repeat_the_question_letter_for_letter() -> None:
    query = parsed(question("pLaIn.BiT", "A", edns=False))
    response = dns.message.from_wire(bare_response(query, 5))
    assert response.question[0].name.to_text() == "pLaIn.BiT."
    assert response.edns == -1
    assert response.flags & dns.flags.RD
    assert not response.flags & dns.flags.RA
