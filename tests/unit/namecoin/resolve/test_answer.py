"""Which answers are allowed, and how one of several is chosen."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoproxy.errors import ErrorKind, NamingError
from isoproxy.isolation import Isolator
from isoproxy.namecoin.resolve.answer import (
    NameAnswer,
    Policy,
    Status,
    TargetType,
    address_answer,
    is_public,
    onions_in_txt,
    pick,
)
from tests.unit.namecoin.kit import ONION, ONION_2, key_of
from tests.unit.namecoin.value.inquiry import at

KEY = key_of(Isolator(), "a")


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "0.1.2.3",
        "10.1.2.3",
        "100.64.0.1",
        "127.0.0.1",
        "127.255.255.255",
        "169.254.1.1",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::ffff:127.0.0.1",
        "::ffff:8.8.8.8",
        "::127.0.0.1",
        "64:ff9b::10.0.0.1",
        "2002:7f00:1::",
        "2002:c0a8:101::1",
        "2001:0:a00:1::",
        "fc00::1",
        "fd12::1",
        "fe80::1",
        "fec0::1",
        "ff02::1",
    ],
)
def test_addresses_of_ones_own_network_in_any_disguise(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "8.8.8.8",
        "172.32.0.1",
        "192.0.2.1",
        "100.128.0.1",
        "2001:db8::1",
        "2606:4700::1111",
        "2002:808:808::1",
    ],
)
def test_addresses_of_others(address: str) -> None:
    assert is_public(address)


@given(st.ip_addresses(network="10.0.0.0/8") | st.ip_addresses(network="fe80::/10"))
def test_no_private_address_is_public(address: object) -> None:
    assert not is_public(str(address))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"ip": "192.0.2.1", "ip6": "2001:db8::1"}, ("192.0.2.1", TargetType.IP4)),
        ({"ip6": "2001:DB8::1"}, ("2001:db8::1", TargetType.IP6)),
        ({"ip": "10.0.0.1", "ip6": "2001:db8::1"}, ("2001:db8::1", TargetType.IP6)),
        ({"ip": ["10.0.0.1", "192.0.2.1"]}, ("192.0.2.1", TargetType.IP4)),
        ({"ip": "127.0.0.1"}, ErrorKind.ADDRESS_REFUSED),
        ({"ip": "127.0.0.1", "ip6": "::1"}, ErrorKind.ADDRESS_REFUSED),
        ({"ip6": "::ffff:192.168.1.1"}, ErrorKind.ADDRESS_REFUSED),
        ({"txt": "x"}, None),
        ({"ns": "@", "ip": "192.0.2.1"}, None),
    ],
)
def test_the_address_of_a_place(value: object, expected: object) -> None:
    assert address_answer(at(value), KEY, Policy()) == expected


def test_private_addresses_are_answers_where_configured() -> None:
    allowed = Policy(allow_private_addresses=True)
    assert address_answer(at({"ip": "127.0.0.1"}), KEY, allowed) == ("127.0.0.1", TargetType.IP4)


@pytest.mark.parametrize(
    ("txt", "expected"),
    [
        (ONION, [ONION]),
        (ONION.upper(), [ONION]),
        (["x", "web." + ONION, ONION_2, "web." + ONION], ["web." + ONION, ONION_2]),
        ([[ONION, "more"]], [ONION]),
        ([["more", ONION]], []),
        ("expyuzz4wqqyqhjn.onion", []),
        (ONION[:-1], []),
        (ONION + ".", []),
        ("\u00e9" + ONION, []),
    ],
)
def test_onions_in_txt_records(txt: object, expected: list[str]) -> None:
    assert onions_in_txt(at({"txt": txt}).records) == expected


def test_each_key_has_one_pick_and_all_are_picked() -> None:
    isolator = Isolator()
    candidates = ["a", "b", "c"]
    chosen: Counter[str] = Counter()
    for number in range(600):
        key = key_of(isolator, str(number))
        favoured = pick(candidates, key)
        assert pick(candidates[::-1], key) == favoured
        chosen[favoured] += 1
    assert all(130 < count < 270 for count in chosen.values())
    assert len(chosen) == 3


@pytest.mark.parametrize(
    ("reason", "status"),
    [
        (ErrorKind.NAME_ABSENT, Status.ABSENT),
        (ErrorKind.NAME_EXPIRED, Status.ABSENT),
        (ErrorKind.NAME_UNCONFIRMED, Status.ABSENT),
        (ErrorKind.NAME_NO_ADDRESS, Status.ABSENT),
        (ErrorKind.NAME_UNVERIFIABLE, Status.FAILED),
        (ErrorKind.NAME_BACKEND_DOWN, Status.FAILED),
        (ErrorKind.NAME_TIMEOUT, Status.FAILED),
        (ErrorKind.ADDRESS_REFUSED, Status.FAILED),
    ],
)
def test_failures_are_absent_or_failed(reason: ErrorKind, status: Status) -> None:
    resolution = NameAnswer.failure("example.bit", NamingError(kind=reason))
    assert resolution.status is status
    assert resolution.target is None
    assert "example" not in repr(resolution)
    assert resolution.as_json() == {
        "name": "example.bit",
        "status": status.value,
        "target": None,
        "type": None,
        "height": None,
        "expires_in": None,
        "evidence": None,
        "servers": [],
        "cached": False,
        "reason": reason.value,
    }
