"""From the configuration to what names are resolved with."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from isoproxy.config import load
from isoproxy.daemon.settings.names import answer_policy, electrum_settings, names_directory
from isoproxy.errors import ConfigError
from isoproxy.namecoin.chain.params import MAINNET, REGTEST
from isoproxy.namecoin.electrum.servers import SHIPPED


def test_which_answers_are_allowed() -> None:
    names = load(None, ["names.only_onion=true", "names.allow_clearnet_alias=true"]).config.names
    policy = answer_policy(names)
    assert (policy.only_onion, policy.allow_clearnet_alias) == (True, True)
    assert not policy.allow_private_addresses


def test_the_servers_in_the_package_are_for_mainnet_alone() -> None:
    electrum = load(None, []).config.names.electrum
    settings = electrum_settings(electrum, 60.0)
    assert (settings.network, settings.servers) == (MAINNET, SHIPPED)
    assert settings.max_tip_age == 86_400.0
    with pytest.raises(ConfigError, match="must be set"):
        electrum_settings(load(None, ["names.electrum.network=regtest"]).config.names.electrum, 60)


def test_what_is_configured_is_what_is_served_by() -> None:
    electrum = load(
        None,
        [
            "names.electrum.network=regtest",
            'names.electrum.servers=["' + "a" * 55 + 'd.onion:50001:t"]',
            "names.electrum.quorum=1",
            "names.electrum.pool_size=7",
            "names.electrum.circuits_per_minute=9",
            "names.electrum.anchor_height=5",
            "names.electrum.anchor_hash=" + "00" * 31 + "01",
        ],
    ).config.names.electrum
    settings = electrum_settings(electrum, 40.0)
    assert settings.network is REGTEST
    assert settings.max_tip_age is None
    assert (settings.quorum, settings.pool.asked, settings.pool.reserve) == (1, 1, 7)
    assert settings.pool.opens_per_minute == 9
    assert (settings.ready_wait, settings.deadline) == (20.0, 30.0)
    assert settings.anchor is not None
    assert (settings.anchor.height, settings.anchor.block_hash) == (5, b"\x01" + bytes(31))


@pytest.mark.parametrize(("proof", "sampled"), [("sampled", True), ("full", False)])
def test_how_much_is_proven_before_the_first_answer(proof: str, sampled: bool) -> None:
    electrum = load(None, [f"names.electrum.proof={proof}"]).config.names.electrum
    assert electrum_settings(electrum, 60.0).sync.sampled is sampled
    assert load(None, []).config.names.electrum.proof == "sampled"


def test_the_directory_is_nobody_elses(tmp_path: Path) -> None:
    directory = names_directory(tmp_path / "state")
    assert directory == tmp_path / "state" / "names"
    for each in (directory, directory.parent):
        assert stat.S_IMODE(each.stat().st_mode) == 0o700
