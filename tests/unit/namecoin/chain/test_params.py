from __future__ import annotations

import pytest

from isoproxy.namecoin.chain.header_chain import first_height_needed
from isoproxy.namecoin.chain.params import MAINNET, NETWORKS, REGTEST, TESTNET, hash_from_hex


def test_hashes_are_written_reversed() -> None:
    assert hash_from_hex("01" + "00" * 31) == bytes(31) + b"\x01"


@pytest.mark.parametrize("text", ["", "00" * 31, "zz" * 32])
def test_what_is_no_hash_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"hex|64"):
        hash_from_hex(text)


def test_the_networks_are_told_apart() -> None:
    assert set(NETWORKS) == {"mainnet", "testnet", "regtest"}
    assert len({network.genesis for network in NETWORKS.values()}) == 3
    assert MAINNET.expiry == TESTNET.expiry == 36000
    assert REGTEST.expiry == 30


def test_the_shipped_anchor() -> None:
    anchor = MAINNET.anchor
    assert anchor.height == 815000
    assert anchor.block_hash[::-1].hex().startswith("46c38b14b25fef78")
    assert f"{anchor.work:x}".endswith("a88f4530bb8eaceaffde5c50")
    assert first_height_needed(MAINNET, anchor) == 814463
