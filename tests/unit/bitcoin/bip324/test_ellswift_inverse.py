"""XSwiftEC and its inverse on public values."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from isoproxy.bitcoin.bip324 import ellswift_inverse
from isoproxy.bitcoin.bip324.ellswift_inverse import CASES, P
from tests.unit.bitcoin import reference
from tests.unit.bitcoin.vectors import OURS, official, rows

numbers = st.integers(1, P - 1)


def test_our_decoding_vectors() -> None:
    for row in rows(OURS / "keys.csv"):
        assert f"{ellswift_inverse.decode(bytes.fromhex(row['encoded'])):064x}" == row["x"]


def test_the_bips_vectors() -> None:
    for row in official("xswiftec_inv_test_vectors.csv"):
        for case in range(CASES):
            t = ellswift_inverse.inverse(int(row["x"], 16), int(row["u"], 16), case)
            assert ("" if t is None else f"{t:064x}") == row[f"case{case}_t"]


@given(numbers, numbers)
@settings(max_examples=25)
def test_inverse_leads_back(seed: int, u: int) -> None:
    x = reference.ellswift_x(seed.to_bytes(32, "big") + u.to_bytes(32, "big"))
    found = [ellswift_inverse.inverse(x, u, case) for case in range(CASES)]
    for t in found:
        if t is not None:
            assert ellswift_inverse.decode(u.to_bytes(32, "big") + t.to_bytes(32, "big")) == x
    assert len({t for t in found if t is not None}) == sum(t is not None for t in found)


@given(numbers, numbers)
@settings(max_examples=25)
def test_decoding_is_the_references(u: int, t: int) -> None:
    encoded = u.to_bytes(32, "big") + t.to_bytes(32, "big")
    assert ellswift_inverse.decode(encoded) == reference.ellswift_x(encoded)


def test_the_square_of_u_has_no_inverse_in_the_second_family() -> None:
    assert ellswift_inverse.inverse(5, 5, 2) is None
