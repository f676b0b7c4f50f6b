"""Networks and message types as data."""

from __future__ import annotations

import pytest

from isoproxy.bitcoin.messages import (
    BITCOIN_IDS,
    KNOWN_NETWORKS,
    MAINNET,
    NAMECOIN,
    REGTEST,
    SIGNET,
    TESTNET4,
    Network,
    ShortIds,
    custom_signet,
    is_type,
    padded,
)

DEFAULT_SIGNET = bytes.fromhex(
    "512103ad5e0edad18cb1f0fc0d28a3d4f1f3e445640337489abb10404f2d1e086be430"
    "210359ef5021964fe22d6f8e05b2463c9540ce96883fe3b278760f048f5189f2e6c452ae"
)


@pytest.mark.parametrize(
    ("name", "number"),
    [("addr", 1), ("block", 2), ("inv", 14), ("ping", 18), ("tx", 21), ("addrv2", 28)],
)
def test_short_ids_of_the_bip(name: str, number: int) -> None:
    assert BITCOIN_IDS.to_send[padded(name)] == number
    assert BITCOIN_IDS.received[number] == padded(name)


def test_later_ids_are_understood_but_not_sent() -> None:
    assert BITCOIN_IDS.received[37] == padded("feature")
    assert padded("feature") not in BITCOIN_IDS.to_send
    assert len(BITCOIN_IDS.to_send) == 28
    assert BITCOIN_IDS.received[0] is None
    assert BITCOIN_IDS.received[38] is None


def test_a_chain_may_have_ids_of_its_own() -> None:
    ids = ShortIds.of(["addr"], {200: "own"})
    other = Network("other", b"\x01\x02\x03\x04", 1, ids=ids)
    assert other.ids.received[200] == padded("own")


@pytest.mark.parametrize("field", [b"version" + bytes(5), b"x" * 12, bytes(12)])
def test_types(field: bytes) -> None:
    assert is_type(field)


@pytest.mark.parametrize(
    "field", [b"a\x00b" + bytes(9), b"\x7f" + bytes(11), b"\n" + bytes(11), b"short", b"x" * 13]
)
def test_no_types(field: bytes) -> None:
    assert not is_type(field)


@pytest.mark.parametrize("name", ["", "longer than twelve"])
def test_names_that_are_no_types(name: str) -> None:
    with pytest.raises(ValueError, match="1 to 12"):
        padded(name)


def test_a_custom_signet_has_the_magic_of_its_challenge() -> None:
    assert custom_signet(DEFAULT_SIGNET).magic == SIGNET.magic
    assert custom_signet(bytes(300)).magic != custom_signet(bytes(301)).magic
    with pytest.raises(ValueError, match="challenge"):
        custom_signet(b"")


def test_networks_by_magic_and_name() -> None:
    assert KNOWN_NETWORKS.get(bytes.fromhex("f9beb4d9")) is MAINNET
    assert KNOWN_NETWORKS.named("namecoin") is NAMECOIN
    assert KNOWN_NETWORKS.get(b"nope") is None
    mine = custom_signet(b"\x51")
    assert KNOWN_NETWORKS.with_networks([mine]).get(mine.magic) is mine
    assert len({network.magic for network in KNOWN_NETWORKS}) == len(list(KNOWN_NETWORKS))


def test_contents_fit_what_peers_accept() -> None:
    assert MAINNET.max_contents == 4_000_013
    assert NAMECOIN.max_contents == 2**24 - 1


@pytest.mark.parametrize("network", [TESTNET4, SIGNET, custom_signet(b"\x51"), REGTEST])
def test_a_magic_of_both_chains_allows_what_either_sends(network: Network) -> None:
    """Namecoin Core's testnet4 and signets have Bitcoin's magics; its headers are longer."""
    assert network.max_payload == NAMECOIN.max_payload > MAINNET.max_payload
