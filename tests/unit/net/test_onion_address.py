"""Version-3 onion addresses are recognised by their checksum."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoproxy.net.onion_address import onion_host
from tests.kit.onion_address import onion_address

# The Tor Project's own sites, whose addresses are public.
KNOWN = "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid.onion"


@given(st.binary(min_size=32, max_size=32))
def test_what_we_write_we_recognise(public_key: bytes) -> None:
    address = onion_address(public_key)
    assert len(address) == 62
    assert onion_host(address) == address
    assert onion_host("web." + address.upper()) == "web." + address


def test_a_real_address_passes_and_any_changed_character_does_not() -> None:
    assert onion_host(KNOWN) == KNOWN
    for at in range(56):
        other = "b" if KNOWN[at] != "b" else "c"
        assert onion_host(KNOWN[:at] + other + KNOWN[at + 1 :]) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "onion",
        ".onion",
        KNOWN + ".",
        KNOWN[:-6],
        KNOWN[1:],
        "a" + KNOWN,
        "." + KNOWN,
        "a..b." + KNOWN,
        "http://" + KNOWN,
        KNOWN + ":80",
        "expyuzz4wqqyqhjn.onion",
        "a b." + KNOWN,
        KNOWN.replace("2", "\u0662", 1),
        "x." * 120 + KNOWN,
        "1" * 56 + ".onion",
        "a" * 50 + "======.onion",
    ],
)
def test_anything_else_is_none(text: str) -> None:
    assert onion_host(text) is None


def test_another_version_is_none() -> None:
    raw = bytearray(base64.b32decode(KNOWN[:56].upper()))
    raw[34] = 4
    assert onion_host(base64.b32encode(raw).decode().lower() + ".onion") is None


@given(st.text(max_size=300))
def test_no_text_breaks_it(text: str) -> None:
    found = onion_host(text + ".onion")
    assert found is None or found == (text + ".onion").lower()
