"""Listening addresses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoproxy.config.address import Address


@pytest.mark.parametrize(
    ("text", "shown", "loopback"),
    [
        ("127.0.0.1:0", "127.0.0.1:0", True),
        ("[::0001]:65535", "[::1]:65535", True),
        ("10.0.0.1:9250", "10.0.0.1:9250", False),
        ("unix:/run/x", "unix:/run/x", True),
    ],
)
def test_addresses_have_one_spelling(text: str, shown: str, loopback: bool) -> None:
    address = Address.parse(text)
    assert (str(address), address.is_loopback) == (shown, loopback)


@pytest.mark.parametrize(
    "text",
    ["", "9250", "localhost:1", "::1:1", "[127.0.0.1]:1", "[fe80::1%lo]:1", "1.2.3.4:65536",
     "1.2.3.4:", "1.2.3.4:-1", "1.2.3.4:\u0661", "unix:run/x", "unix:", "unix:/" + "x" * 107,
     "unix:/a\0b", "01.2.3.4:1"],
)  # fmt: skip
def test_anything_else_is_refused_without_being_quoted(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w") as caught:
        Address.parse(text)
    assert len(text) < 8 or text not in str(caught.value)


@given(st.text())
def test_parsing_raises_nothing_else(text: str) -> None:
    try:
        address = Address.parse(text)
    except ValueError:
        return
    assert Address.parse(str(address)) == address
