"""Lines about streams: Tor's own, as they are; and all kinds of forgeries."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoproxy.sharing import FIELD_NAMES, StreamFields, mask_of
from stemns_plugin.grammar import (
    Claim,
    StreamEvent,
    parse_listing,
    parse_mappings,
    parse_stream_event,
    stream_of,
    write_stream_event,
)

ISO = (
    b" CLIENT_PROTOCOL=SOCKS5 NYM_EPOCH=0 SESSION_GROUP=-6"
    b" ISO_FIELDS=SOCKS_USERNAME,SOCKS_PASSWORD,CLIENTADDR,SESSION_GROUP,NYM_EPOCH"
)
ODD_USER = rb' SOCKS_USERNAME="a b\"c\'d\\e\303\251\377\n\tz= PURPOSE=X"'
NEW = (
    b"650 STREAM 21 NEW 0 foo.bit:80 SOURCE_ADDR=127.0.0.1:45750 PURPOSE=USER"
    b' SOCKS_USERNAME="alice" SOCKS_PASSWORD="secret"' + ISO
)


def test_a_new_stream() -> None:
    event = parse_stream_event(NEW)
    assert event is not None
    assert (event.id, event.status, event.host, event.port) == (21, b"NEW", b"foo.bit", 80)
    assert event.fields == StreamFields(
        b"127.0.0.1", b"alice", b"secret", b"SOCKS5", b"foo.bit", 80, -6, 0
    )
    assert event.isolated == mask_of(
        ["SOCKS_USERNAME", "SOCKS_PASSWORD", "CLIENTADDR", "SESSION_GROUP", "NYM_EPOCH"]
    )
    assert "alice" not in repr(event)
    assert "foo" not in repr(event)


@pytest.mark.parametrize(
    "line",
    [
        b"650 STREAM 21 CONTROLLER_WAIT 0 foo.bit:80",
        b"650 STREAM 21 SENTCONNECT 5 dest.test:39267",
        b"650 STREAM 21 REMAP 5 127.180.11.250:39267 SOURCE=EXIT",
        b"650 STREAM 32 REMAP 5 [::1]:0 SOURCE=EXIT",
        b"650 STREAM 31 CLOSED 0 2001:db8::7:0 REASON=DONE",
        b"650 STREAM 52 DETACHED 38 dest.test:1 REASON=END REMOTE_REASON=MISC",
        b"650 STREAM 42 CLOSED 0 :0 REASON=DONE",
        b"650 STREAM 36 CLOSED 0 192.0.2.77:0 REASON= UNKNOWN_264",
        b"650 STREAM 47 NEWRESOLVE 0 dest.test:0 SOURCE_ADDR=127.0.0.1:52708 PURPOSE=DNS_REQUEST",
        b"650 STREAM 47 NEWRESOLVE 0 250.11.180.127.in-addr.arpa:0 SOURCE_ADDR=[::1]:5",
        b"650 STREAM 42 NEWRESOLVE 0 dest.test:0 PURPOSE=DNS_REQUEST",
        b"650 STREAM 9 NEW 0 a.test:80 SOURCE_ADDR=/path/to/socks.sock:0 PURPOSE=USER",
        b"650 STREAM 26 NEW 0 127.150.73.3.$9CF77A9F.exit:9001 PURPOSE=DIR_FETCH",
        b"650 STREAM 1 NEW 0 a.b:1" + ODD_USER,
        b'650 STREAM 1 NEW 0 a.b:1 SOCKS_PASSWORD="\\001\\377\\001\\377iso1"',
    ],
)
def test_lines_of_tors(line: bytes) -> None:
    event = parse_stream_event(line + ISO)
    assert event is not None
    assert event.id == stream_of(line)


def test_a_stream_of_tors_own_is_isolated_by_nothing() -> None:
    event = parse_stream_event(
        b"650 STREAM 38 NEW 0 127.135.90.4.$E8138FCA3C3BBE9413304CDF7A74F71E3A2E6D9E.exit:9001"
        b" PURPOSE=DIR_FETCH CLIENT_PROTOCOL=UNKNOWN NYM_EPOCH=0 SESSION_GROUP=-2 ISO_FIELDS="
    )
    assert event is not None
    assert event.isolated == 0


def test_values_are_unescaped_and_cannot_add_fields() -> None:
    event = parse_stream_event(b"650 STREAM 1 NEW 0 a.b:1" + ODD_USER + ISO)
    assert event is not None
    assert event.fields.username == b"a b\"c'd\\e\xc3\xa9\xff\n\tz= PURPOSE=X"
    assert event.purpose is None


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"250 OK",
        b"650 STREAM",
        b"650 STREAM 21 NEW 0 a",
        b"650 STREAM 21 NEW 0 foo.bit:80",  # no tail
        b"650 STREAM 40 CLOSED 0 a b.test:80 REASON=SOCKS_PROTOCOL" + ISO,
        b"650 STREAM 40 NEW 0 caf\xe9.bit:80" + ISO,
        b'650 STREAM 40 NEW 0 a"b.bit:80' + ISO,
        b"650 STREAM 40 NEW 0 d/x.bit:80" + ISO,
        b"650 STREAM 40 NEW 0 a\x0bb.bit:80" + ISO,
        b"650 STREAM 40 NEW 0 a.test: SOURCE_ADDR=127.0.0.1:5" + ISO,
        b"650 STREAM 40 NEW 0 a.test" + ISO,
        b"650 STREAM 40 NEW 0 a.test:65536" + ISO,
        b"650 STREAM 40 NEW 0 " + b"a" * 256 + b":80" + ISO,
        b"650 STREAM -1 NEW 0 a.test:80" + ISO,
        b"650 STREAM 40 NEW 0 a.test:80 NYM_EPOCH=1" + ISO,  # a field twice
        b"650 STREAM 40 NEW 0 a.test:80" + ISO.replace(b"NYM_EPOCH=0", b"NYM_EPOCH=x"),
        b"650 STREAM 40 NEW 0 a.test:80" + ISO.replace(b"CLIENTADDR", b"COLOUR"),
        b"650 STREAM 40 NEW 0 a.test:80" + ISO.replace(b"SOCKS5", b"socks5"),
        b"650 STREAM 40 NEW 0 a.test:80 SOURCE_ADDR=nowhere" + ISO,
        b'650 STREAM 40 NEW 0 a.test:80 SOCKS_USERNAME="\\400"' + ISO,
        b'650 STREAM 40 NEW 0 a.test:80 SOCKS_USERNAME="a' + ISO,
        b"650-STREAM 40 NEW 0 a.test:80" + ISO,
        b"650 STREAM 40 NEW 0 a.test:80" + ISO + b"\r",
        b"650 STREAM 40 NEW 0 a.test:80" + ISO + b"\n",
    ],
)
def test_what_is_not_quite_a_line_of_tors(line: bytes) -> None:
    assert parse_stream_event(line) is None


def test_a_malformed_line_still_says_whose_it_is() -> None:
    assert stream_of(b"650 STREAM 18 NEWRESOLVE 0 a") == 18
    assert stream_of(b"650 STREAM x NEW") is None
    assert stream_of(b"250-version=0") is None


@given(st.binary(max_size=300))
def test_nothing_raises(line: bytes) -> None:
    for prefix in (b"", b"650 STREAM 1 NEW 0 ", NEW):
        parse_stream_event(prefix + line)
        parse_stream_event(prefix + line + ISO)
        parse_listing([line, b"1 NEW 0 " + line])
        parse_mappings([line, b"10.0.0.1 " + line])


@given(
    st.binary(max_size=60).filter(lambda b: b"\0" not in b) | st.none(),
    st.integers(0, 255),
    st.sampled_from([b"NEW", b"NEWRESOLVE"]),
)
def test_what_is_written_is_read(user: bytes | None, isolated: int, status: bytes) -> None:
    fields = StreamFields(b"127.0.0.1", user, None, b"SOCKS5", b"a.bit", 80, -6, 3)
    event = StreamEvent(7, status, b"a.bit", 80, fields, isolated, b"127.0.0.1", b"USER")
    line = write_stream_event(event, status)
    assert parse_stream_event(line) == event
    waiting = parse_stream_event(write_stream_event(event, b"CONTROLLER_WAIT"))
    assert waiting is not None
    assert waiting.status == b"CONTROLLER_WAIT"
    assert waiting.source is None


def test_a_listing_of_one_and_of_many() -> None:
    one = [b"250-stream-status=19 NEW 0 dest.test:40865", b"250 OK"]
    assert parse_listing(one) == {19: {Claim(19, b"NEW", b"dest.test", 40865)}}
    many = [
        b"250+stream-status=",
        b"19 NEW 0 dest.test:40865",
        b"20 SENTCONNECT 7 [2001:db8::1]:80",
        b".",
        b"250 OK",
    ]
    assert set(parse_listing(many)) == {19, 20}
    assert parse_listing([b"250-stream-status=", b"250 OK"]) == {}
    assert parse_listing([b"551 no"]) == {}


def test_a_name_that_is_none_is_a_claim_without_a_host() -> None:
    lines = [b"18 NEWRESOLVE 0 a", b"19 NEW 0 caf\xe9.bit:80", b"20 NEW 0 a b:80", b"21 NEW 0"]
    claims = parse_listing(lines)
    assert {claim.host for found in claims.values() for claim in found} == {None}
    assert set(claims) == {18, 19, 20, 21}


def test_a_forged_line_adds_a_claim_and_takes_none_away() -> None:
    lines = [b"18 NEWRESOLVE 0 a:0", b"9 NEW 0 evil.test:80", b"x:0", b"9 NEW 0 victim.bit:80"]
    assert {claim.host for claim in parse_listing(lines)[9]} == {b"evil.test", b"victim.bit"}


def test_mappings() -> None:
    lines = [
        b"250+address-mappings/all=",
        b"10.206.129.52 foo.BIT NEVER",
        b'192.0.2.1 other.test "2026-11-20 23:40:43"',
        b".",
    ]
    mappings = parse_mappings(lines)
    assert mappings[b"10.206.129.52"] == {b"foo.bit"}
    assert parse_mappings([b"250-address-mappings/all=10.0.0.1 a.bit NEVER"]) == {
        b"10.0.0.1": {b"a.bit"}
    }


def test_every_recorded_line_of_the_tail_names_known_fields() -> None:
    names = re.findall(rb"[A-Z_]+", ISO.rpartition(b"=")[2])
    assert {name.decode() for name in names} <= set(FIELD_NAMES)
