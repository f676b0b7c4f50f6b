"""The settings of Bitcoin streams and proxies: what they are, and what they cannot be."""

from __future__ import annotations

import pytest

from isoproxy.config import load
from isoproxy.config.bitcoin import CHAIN
from isoproxy.errors import ConfigError
from isoproxy.isolation import Isolate

CHAINS = (
    "mainnet", "testnet3", "testnet4", "signet", "regtest", "btcd-simnet", "namecoin",
    "namecoin-testnet", "signet-54d26fbd",
)  # fmt: skip


@pytest.mark.parametrize("name", CHAINS)
def test_chains_by_name(name: str) -> None:
    assert CHAIN(name) == name


def test_by_default_no_plaintext_goes_through_an_exit_and_clients_are_kept_apart() -> None:
    config = load(None, ["bitcoin.proxy.0.address=127.0.0.1:1324"]).config.bitcoin
    assert (config.v2, config.v1_fallback) == ("on", "onion-only")
    (proxy,) = config.proxy
    strict = Isolate.CLIENT_ADDR | Isolate.SOCKS_AUTH | Isolate.DEST_ADDR | Isolate.DEST_PORT
    assert proxy.isolate == strict
    assert not proxy.allow_private_addresses


@pytest.mark.parametrize(
    "setting",
    [
        "bitcoin.v1_fallback=sometimes",
        "bitcoin.ports=[0]",
        "bitcoin.ports=[65536]",
        "bitcoin.ellswift_prefix=abc",
        "bitcoin.ellswift_prefix=" + "00" * 33,
        "bitcoin.decoys_before_version=17",
        "bitcoin.decoy_sizes=[1, 65536]",
        "bitcoin.user_agent_suffix=\u00e4",
        'bitcoin.signet_challenges=["5"]',
        "bitcoin.proxy.0.network=signet-54D26FBD",
        "bitcoin.proxy.0.network=mainnet2",
        "bitcoin.proxy.0.peer=no-port.example",
        "bitcoin.proxy.0.name=A",
        "bitcoin.proxy.0.max_connections=0",
    ],
)
def test_what_cannot_be(setting: str) -> None:
    with pytest.raises(ConfigError, match=setting.partition("=")[0].rpartition(".")[2]):
        load(None, [setting])
