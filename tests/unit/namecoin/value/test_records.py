"""Every item of a `d/` value: its forms, what each gives, and that errors stay local."""

from __future__ import annotations

import base64
from typing import Any

import dns.rdata
import pytest
from dns.rdataclass import IN
from hypothesis import given
from hypothesis import strategies as st

from isoproxy.namecoin.value.json import Json
from isoproxy.namecoin.value.records import Position, Records, mail_exchangers, read_records
from tests.kit.onion_address import onion_address

ONION = onion_address(bytes(range(32)))
ONION_2 = onion_address(bytes(32))
EEPSITE = "a" * 52 + ".b32.i2p"
APEX = Position("example")


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def read(items: dict[str, Any], labels: str = "") -> tuple[dict[str, list[str]], Records]:
    position = Position("example", tuple(labels.split(".")) if labels else ())
    records = read_records(items, position)
    return (
        {k.name: [rdata.to_text() for rdata in rdatas] for k, rdatas in records.rdatas.items()},
        records,
    )


SHA1 = bytes(range(20))
SHA256 = bytes(range(32))

GOOD: list[tuple[str, Any, dict[str, list[str]]]] = [
    ("ip", "192.0.2.1", {"A": ["192.0.2.1"]}),
    ("ip", ["192.0.2.1", "192.0.2.2"], {"A": ["192.0.2.1", "192.0.2.2"]}),
    ("ip", [], {}),
    ("ip", None, {}),
    ("ip", ["192.0.2.1", "192.0.2.1"], {"A": ["192.0.2.1"]}),
    ("ip6", "2001:db8::1", {"AAAA": ["2001:db8::1"]}),
    ("ip6", ["2001:DB8:0::1", "::1"], {"AAAA": ["2001:db8::1", "::1"]}),
    ("ip6", "2001:db8::192.0.2.1", {"AAAA": ["2001:db8::c000:201"]}),
    ("ip6", "::ffff:192.0.2.1", {"AAAA": ["::ffff:192.0.2.1"]}),
    ("alias", "example.com.", {"CNAME": ["example.com."]}),
    ("alias", "", {"CNAME": ["example.bit."]}),
    ("translate", "other.bit.", {"DNAME": ["other.bit."]}),
    ("ns", "ns1.example.com.", {"NS": ["ns1.example.com."]}),
    ("ns", ["a", "b.@", "@"], {"NS": ["a.example.bit.", "b.example.bit.", "example.bit."]}),
    ("ds", [[12345, 8, 1, b64(SHA1), "more"]], {"DS": [f"12345 8 1 {SHA1.hex()}"]}),
    ("ds", [[1, 8, 2, b64(SHA256)]], {"DS": [f"1 8 2 {SHA256.hex()}"]}),
    ("ds", [[1, 8, 1, b64(b"abc")]], {"DS": ["\\# 7 00010801616263"]}),
    ("srv", [[10, 20, 443, "www", 0]], {"SRV": ["10 20 443 www.example.bit."]}),
    ("srv", [[0, 0, 65535, "example.com."]], {"SRV": ["0 0 65535 example.com."]}),
    ("srv", [[1.0, 2, 3, "@"]], {"SRV": ["1 2 3 example.bit."]}),
    ("tls", [[3, 1, 1, b64(SHA256)]], {"TLSA": [f"3 1 1 {SHA256.hex()}"]}),
    ("tls", [[3, 1, 1, "qqqq"]], {"TLSA": ["\\# 6 030101aaaaaa"]}),
    ("tls", [{"dane": [2, 0, 0, b64(b"der")]}], {"TLSA": [f"2 0 0 {b'der'.hex()}"]}),
    ("txt", "text", {"TXT": ['"text"']}),
    ("txt", "", {"TXT": ['""']}),
    ("txt", ["a", "b"], {"TXT": ['"a"', '"b"']}),
    ("txt", [["a", "b"], "c"], {"TXT": ['"a" "b"', '"c"']}),
    ("txt", "x" * 256, {"TXT": ['"' + "x" * 255 + '" "x"']}),
    ("txt", "x" * 254 + "\u00e9", {"TXT": ['"' + "x" * 254 + '\\195" "\\169"']}),
    (
        "mx",
        [[10, "mail"], [20, "example.com."]],
        {"MX": ["10 mail.example.bit.", "20 example.com."]},
    ),
    ("loc", "52 22 23 N 4 53 32 E -2m", {"LOC": ["52 22 23.000 N 4 53 32.000 E -2.00m"]}),
    ("loc", ["1 N 2 W 3m"], {"LOC": ["1 0 0.000 N 2 0 0.000 W 3.00m"]}),
    ("sshfp", [[2, 1, b64(SHA1), 0]], {"SSHFP": [f"2 1 {SHA1.hex()}"]}),
    ("o", [[16, b64(b"\x02hi")]], {"TXT": ['"hi"']}),
    ("o", [[65280, b64(b"raw"), 0]], {"TYPE65280": ["\\# 3 726177"]}),
    ("o", [[1, b64(bytes([192, 0, 2, 1]))]], {"A": ["192.0.2.1"]}),
]


@pytest.mark.parametrize(("item", "value", "expected"), GOOD)
def test_each_form_of_each_item(item: str, value: Any, expected: dict[str, list[str]]) -> None:
    found, records = read({item: value})
    assert found == expected
    assert records.problems == []
    for rdatas in records.rdatas.values():
        for rdata in rdatas:
            if not isinstance(rdata, dns.rdata.GenericRdata):
                again = dns.rdata.from_text(IN, rdata.rdtype, rdata.to_text())
                assert again.to_wire() == rdata.to_wire()


@pytest.mark.parametrize(
    ("item", "value"),
    [
        ("ip", {}),
        ("ip", 3221225985),
        ("ip", [3221225985]),
        ("ip", "3221225985"),
        ("ip", "192.000.002.001"),
        ("ip", "192.0.2.01"),
        ("ip", " 192.0.2.1"),
        ("ip", "192.0.2"),
        ("ip", "300.1.2.3"),
        ("ip", "::ffff:192.0.2.1"),
        ("ip", "192.0.2.\u0661"),
        ("ip", [["192.0.2.1"]]),
        ("ip6", {}),
        ("ip6", "192.0.2.1"),
        ("ip6", "2001::bxxf"),
        ("ip6", "::00000:beef"),
        ("ip6", "fe80::1%eth0"),
        ("ip6", [True]),
        ("alias", "ex$ample.com."),
        ("alias", ["example.com."]),
        ("alias", "_tcp.example.com."),
        ("alias", "."),
        ("alias", 7),
        ("alias", "a..b"),
        ("translate", {"a": 1}),
        ("translate", "-a.example.com."),
        ("ns", {}),
        ("ns", "192.0.2.1"),
        ("ns", "192.0.2.1."),
        ("ns", "2001:db8::1"),
        ("ns", "ns1.example.com. ns2.example.com."),
        ("ds", {}),
        ("ds", [[]]),
        ("ds", [12345, 8, 1, b64(SHA1)]),
        ("ds", [[65536, 8, 1, b64(SHA1)]]),
        ("ds", [[-1, 8, 1, b64(SHA1)]]),
        ("ds", [[1, 256, 1, b64(SHA1)]]),
        ("ds", [[1, 8, 1, "!!!!"]]),
        ("ds", [[1, 8, 1, "AAB="]]),
        ("ds", [[1, 8, 1, 5]]),
        ("ds", [["1", 8, 1, b64(SHA1)]]),
        ("srv", "x"),
        ("srv", [[1, 2, 3]]),
        ("srv", [[1, 2, 65536, "@"]]),
        ("srv", [[1, 2, 1e400, "@"]]),
        ("srv", [[1, 2, 10**900, "@"]]),
        ("srv", [[1, 2, 1.5, "@"]]),
        ("srv", [[True, 2, 3, "@"]]),
        ("srv", [[1, 2, 3, "_x"]]),
        ("srv", [[1, 2, 3, None]]),
        ("tls", [5]),
        ("tls", ["x"]),
        ("tls", {"dane": [3, 1, 1, b64(SHA256)]}),
        ("tls", {"sha1": ["12:34"], "enforce": "self"}),
        ("tls", [{}]),
        ("tls", [{"d8": [1, "x"]}]),
        ("tls", [{"d8": 5}]),
        ("tls", [[3, 1, 256, b64(SHA256)]]),
        ("txt", {}),
        ("txt", 1),
        ("txt", [1]),
        ("txt", [[]]),
        ("txt", [["x" * 256]]),
        ("txt", [["a", 1]]),
        ("txt", "\ud800"),
        ("txt", "x" * 65536),
        ("mx", "mail"),
        ("mx", [["mail"]]),
        ("mx", [[10, "mail_host"]]),
        ("mx", [[65536, "mail"]]),
        ("loc", "10 Downing Street"),
        ("loc", ""),
        ("loc", "1 N 2 E 1e999m"),
        ("loc", "1 N 2 E 3m\n4"),
        ("loc", [5]),
        ("sshfp", [[2, 1]]),
        ("sshfp", [[256, 1, b64(SHA1)]]),
        ("sshfp", [[2, 1, b64(b"short")]]),
        ("o", [[16]]),
        ("o", [[70000, ""]]),
        ("o", [[0, ""]]),
        ("o", [[1, b64(b"123")]]),
        ("o", [[16, "AA"]]),
        ("o", "x"),
        ("tor", {}),
        ("tor", "expyuzz4wqqyqhjn.onion"),
        ("tor", ONION[:-6]),
        ("tor", ONION + "."),
        ("tor", "http://" + ONION),
        ("tor", 5),
        ("i2p", "example.i2p"),
        ("i2p", EEPSITE + "."),
        ("i2p", "http://" + EEPSITE),
        ("i2p", {}),
    ],
)
def test_a_wrong_item_gives_nothing_and_a_note_without_content(item: str, value: Any) -> None:
    found, records = read({item: value, "ip6": "2001:db8::1"} if item != "ip6" else {item: value})
    found.pop("AAAA", None)
    assert found == {}
    assert records.tor == records.i2p == []
    assert records.problems
    for problem in records.problems:
        assert problem.startswith(item + ": ")
        for quoted in (str(value), "example", "192.0"):
            assert len(quoted) < 3 or quoted not in problem


def test_a_wrong_entry_does_not_hide_a_right_one_that_python_calls_equal() -> None:
    right, wrong = [1, 8, 1, b64(SHA1)], [True, 8, 1, b64(SHA1)]
    for entries in ([right, wrong], [wrong, right], [wrong, right, wrong, right]):
        assert read({"ds": entries})[0] == {"DS": [f"1 8 1 {SHA1.hex()}"]}


@pytest.mark.parametrize(
    "rdtype", [2, 5, 6, 39, 41, 43, 46, 47, 48, 50, 51, 249, 250, 251, 252, 255]
)
def test_raw_records_may_not_shape_the_zone(rdtype: int) -> None:
    assert read({"o": [[rdtype, b64(b"\x01a\x00")]]})[0] == {}


@pytest.mark.parametrize("flip", [False, True])
def test_errors_are_local_whatever_the_order(flip: bool) -> None:
    entries = ["site", "192.0.2.1"]
    found, records = read({"ip": entries[::-1] if flip else entries, "ip6": 5, "txt": "t"})
    assert found == {"A": ["192.0.2.1"], "TXT": ['"t"']}
    assert len(records.problems) == 2


def test_items_for_people_or_of_the_past_give_nothing() -> None:
    items = dict.fromkeys(
        ["info", "email", "service", "spf", "fingerprint", "freenet", "zeronet", "nostr", "x"],
        "192.0.2.1",
    )
    found, records = read(items)
    assert records.is_empty
    assert found == {}
    assert records.problems == []


def test_tor_and_i2p_are_no_dns_records() -> None:
    found, records = read({"tor": [ONION.upper(), "web." + ONION_2, ONION], "i2p": EEPSITE})
    assert found == {}
    assert records.tor == [ONION, "web." + ONION_2]
    assert records.i2p == [EEPSITE]


@pytest.mark.parametrize(
    ("labels", "written", "expected"),
    [
        ("", "a", "a.example.bit"),
        ("", "a.@", "a.example.bit"),
        ("", "@", "example.bit"),
        ("", "", "example.bit"),
        ("www", "", "example.bit"),
        ("www", "b", "b.example.bit"),
        ("www", "@", "example.bit"),
        ("www.a", "", "a.example.bit"),
        ("b.a", "x.y", "x.y.a.example.bit"),
        ("b.a", "c.@", "c.example.bit"),
        ("b.a", "example2.bit.", "example2.bit"),
        ("", "Example2.BIT.", "example2.bit"),
    ],
)
def test_relative_names(labels: str, written: str, expected: str) -> None:
    position = Position("example", tuple(labels.split(".")) if labels else ())
    assert position.host(written) == expected


@pytest.mark.parametrize(
    "written", ["*", "a.*", "x.@.", "@.a", "..", "a" * 64, "a." * 126 + "b", "\u212aelvin.bit."]
)
def test_relative_names_that_are_no_host_names(written: str) -> None:
    with pytest.raises(ValueError, match="is not a host name"):
        APEX.host(written)


def test_mail_exchangers_come_from_services_at_port_25() -> None:
    records = read_records({"srv": [[5, 9, 25, "mail"], [1, 1, 587, "mail"]]}, APEX)
    services = [rdata for rdatas in records.rdatas.values() for rdata in rdatas]
    assert [rdata.to_text() for rdata in mail_exchangers(services)] == ["5 mail.example.bit."]


ITEM_NAMES = st.sampled_from([item for item, _, _ in GOOD] + ["tor", "i2p", "info"])
VALUES: st.SearchStrategy[Json] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-1, 70000)
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["192.0.2.1", "::1", "a.@", "AAAA", ONION, "52 22 23 N 4 53 32 E -2m"]),
    lambda inner: (
        st.lists(inner, max_size=5) | st.dictionaries(st.sampled_from(["dane", "d8"]), inner)
    ),
    max_leaves=12,
)


@given(st.dictionaries(ITEM_NAMES, VALUES))
def test_no_json_breaks_it_and_all_records_can_be_written(items: dict[str, Json]) -> None:
    records = read_records(items, APEX)
    for rdtype, rdatas in records.rdatas.items():
        for rdata in rdatas:
            assert rdata.rdtype == rdtype
            assert rdata.to_text().isprintable()
            assert len(rdata.to_wire() or b"") <= 65535


@given(st.integers(0, 65535), st.binary(max_size=80))
def test_no_raw_record_breaks_it(rdtype: int, data: bytes) -> None:
    records = read_records({"o": [[rdtype, b64(data)]]}, APEX)
    for rdatas in records.rdatas.values():
        assert all(rdata.to_text().isprintable() for rdata in rdatas)
