"""The error table is complete and its codes are ones the protocols know."""

from __future__ import annotations

import pytest

from isoproxy.errors import (
    OUTCOMES,
    DialError,
    ErrorKind,
    explanation,
    kind_of_socks_reply,
    socks_reply_code,
)

SOCKS_CODES = set(range(1, 9))
EXTENDED_CODES = SOCKS_CODES | set(range(0xF0, 0xF8))


@pytest.mark.parametrize("kind", ErrorKind)
def test_every_kind_has_an_outcome_each_protocol_knows(kind: ErrorKind) -> None:
    outcome = OUTCOMES[kind]
    assert outcome.socks in SOCKS_CODES
    assert outcome.extended in EXTENDED_CODES
    assert 400 <= outcome.http <= 599
    assert outcome.prop279 in {1, 2, 3, 4}
    assert outcome.rcode in {0, 1, 2, 3, 5}
    assert explanation(kind).endswith(".")


def test_every_reply_tor_may_send_survives_the_way_through_us() -> None:
    for code in EXTENDED_CODES - {8}:
        assert socks_reply_code(kind_of_socks_reply(code), extended=True) == code


def test_an_unknown_reply_is_a_general_failure() -> None:
    assert kind_of_socks_reply(0xEE) is ErrorKind.GENERAL_FAILURE


def test_without_extended_errors_only_rfc_1928_codes_are_sent() -> None:
    for kind in ErrorKind:
        assert socks_reply_code(kind, extended=False) in SOCKS_CODES


def test_only_onion_services_fail_with_the_codes_of_onion_services() -> None:
    """Tor Browser shows a page about an onion site for F0-F7, also where the name was `.bit`."""
    tors = {kind for kind in ErrorKind if socks_reply_code(kind, extended=True) >= 0xF0}
    assert tors == {kind for kind in ErrorKind if kind.value.startswith("onion_")}


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (ErrorKind.NAME_ABSENT, 4),
        (ErrorKind.NAME_EXPIRED, 4),
        (ErrorKind.NAME_UNCONFIRMED, 4),
        (ErrorKind.NAME_NO_ADDRESS, 4),
        (ErrorKind.NAME_INVALID_VALUE, 4),
        (ErrorKind.NAME_BUDGET, 4),
        (ErrorKind.NAME_UNVERIFIABLE, 1),
        (ErrorKind.NAME_NO_QUORUM, 1),
        (ErrorKind.NAME_BACKEND_DOWN, 1),
        (ErrorKind.NAME_TIMEOUT, 6),
    ],
)
def test_a_name_fails_as_a_name_of_the_dns_does(kind: ErrorKind, code: int) -> None:
    """4 is tor's for a name without address, 1 says nothing about the name, 6 is a timeout."""
    assert {socks_reply_code(kind, extended=extended) for extended in (False, True)} == {code}


def test_an_error_explains_itself() -> None:
    error = DialError(kind=ErrorKind.ONION_NOT_FOUND)
    assert error.kind is ErrorKind.ONION_NOT_FOUND
    assert str(error) == explanation(ErrorKind.ONION_NOT_FOUND)
