"""TLSA usages as RFC 7671 has them, with chains as ncdns and Encaya make them."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoproxy.tls.tlsa import Associations
from tests.unit.tls.sites import NOW, Party, party, record

HOST = "name.bit"


@pytest.fixture(scope="module")
def authority() -> Party:
    """An authority of the name's own, whose certificate servers do not send."""
    return party("name.bit Domain AIA Parent CA", authority=True)


@pytest.fixture(scope="module")
def site(authority: Party) -> Party:
    domain = party("name.bit Domain CA", authority, authority=True, send_issuer=False)
    return party("name.bit", domain, hosts=(HOST,))


def accepts(
    shown: Party, *records: bytes, host: str = HOST, later: timedelta = timedelta()
) -> bool:
    return Associations(records).accept(shown.chain, host, NOW + later)


@pytest.mark.parametrize("matching", [0, 1, 2])
@pytest.mark.parametrize("selector", [0, 1])
def test_the_sites_own_certificate_or_key(selector: int, matching: int) -> None:
    mine, other = party("x", hosts=(HOST,)), party("x", hosts=(HOST,))
    of = {0: mine.der, 1: mine.spki}[selector]
    assert accepts(mine, record(3, selector, matching, of))
    assert not accepts(other, record(3, selector, matching, of))
    assert accepts(mine, record(3, selector, matching, b"old key"), record(3, 1, 1, mine.spki))


def test_of_the_sites_own_the_record_says_all_and_names_and_dates_nothing() -> None:
    expired = party("x", hosts=("elsewhere.org",), days=(-10, -1))
    assert accepts(expired, record(3, 1, 1, expired.spki))


def test_an_issuer_is_not_the_sites_own(site: Party) -> None:
    domain = site.chain[1]
    assert not accepts(site, record(3, 0, 1, domain))
    assert accepts(site, record(2, 0, 1, domain))


@pytest.mark.parametrize("matching", [0, 1, 2])
def test_an_authority_in_the_chain(site: Party, matching: int) -> None:
    assert accepts(site, record(2, 0, matching, site.chain[1]))
    assert not accepts(site, record(2, 0, matching, site.chain[0]))


def test_the_names_own_authority_is_a_bare_key_that_no_server_sends(
    site: Party, authority: Party
) -> None:
    assert accepts(site, record(2, 1, 0, authority.spki))
    assert accepts(site, record(2, 1, 0, authority.compressed_spki))
    assert accepts(site, record(2, 0, 0, authority.der))
    another = party("name.bit Domain AIA Parent CA", authority=True)
    assert not accepts(site, record(2, 1, 0, another.spki))
    assert not accepts(site, record(2, 0, 0, another.der))


def test_under_an_authority_the_certificate_is_for_this_host_and_today(site: Party) -> None:
    mine = record(2, 0, 1, site.chain[1])
    assert not accepts(site, mine, host="other.bit")
    assert not accepts(site, mine, later=timedelta(days=31))
    assert not accepts(site, mine, later=timedelta(days=-2))


def test_who_was_signed_as_a_server_signs_nothing(authority: Party) -> None:
    server = party("server", authority, hosts=("server.bit",))
    below = party("name.bit", server, hosts=(HOST,))
    assert not accepts(below, record(2, 1, 0, authority.spki))
    assert not accepts(below, record(2, 0, 1, server.der))


def test_public_authorities_are_asked_where_the_name_has_nothing_better(site: Party) -> None:
    for usage in 0, 1:
        only = Associations([record(usage, 0, 1, site.der)])
        assert only
        assert only.asks_authorities
    assert accepts(site, record(1, 0, 1, site.der))
    assert not accepts(site, record(1, 0, 1, site.chain[1]))
    assert accepts(site, record(0, 0, 1, site.chain[1]))
    assert not accepts(site, record(0, 0, 1, site.der))


def test_where_the_name_has_something_better_they_are_not_believed(site: Party) -> None:
    both = Associations([record(1, 0, 1, site.der), record(3, 0, 1, b"another")])
    assert not both.asks_authorities
    assert not both.accept(site.chain, HOST, NOW)


@pytest.mark.parametrize(
    "useless",
    [b"", b"\x03\x00\x00", b"\x04\x00\x01x", b"\x03\x02\x01x", b"\x03\x00\x03x", b"\x03\x01\x00x"],
)
def test_what_cannot_be_used_makes_nothing_right(site: Party, useless: bytes) -> None:
    nothing = Associations([useless])
    assert not nothing
    assert not nothing.asks_authorities
    assert not nothing.accept(site.chain, HOST, NOW)
    assert not Associations([]).accept(site.chain, HOST, NOW)


def test_a_site_that_shows_no_certificate_is_wrong(site: Party) -> None:
    said = Associations([record(3, 0, 1, site.der)])
    assert not said.accept([], HOST, NOW)
    assert not said.accept([b"not a certificate"], HOST, NOW)


@given(st.lists(st.binary(max_size=80), max_size=4), st.lists(st.binary(max_size=80), max_size=3))
def test_whatever_is_written_and_shown_the_answer_is_no(
    records: list[bytes], chain: list[bytes]
) -> None:
    assert not Associations(records).accept(chain, HOST, NOW)
