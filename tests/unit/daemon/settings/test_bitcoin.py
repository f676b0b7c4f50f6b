"""Every Bitcoin setting reaches the part it is about; the defaults are Bitcoin Core's ways."""

from __future__ import annotations

from dataclasses import replace

import pytest

from isoproxy.bitcoin.messages import KNOWN_NETWORKS
from isoproxy.bitcoin.options import DecoyPolicy, Fallback, TransportOptions
from isoproxy.bitcoin.v1 import VersionRewrite
from isoproxy.config import Config, load
from isoproxy.daemon.settings.bitcoin import (
    carry_settings,
    networks,
    proxy_carry_settings,
    proxy_listener,
    proxy_settings,
    target_of,
)
from isoproxy.errors import ConfigError
from isoproxy.isolation import Isolate, own_group
from isoproxy.net.target import Target


def configured(*settings: str) -> Config:
    return load(None, list(settings)).config


def test_by_default_a_connection_looks_like_cores() -> None:
    bitcoin = configured().bitcoin
    settings = carry_settings(bitcoin)
    assert settings.fallback is Fallback.ONION_ONLY
    assert settings.options == TransportOptions()
    assert settings.options.garbage == (0, 4094)
    assert 8333 in settings.ports


def test_every_option_arrives() -> None:
    bitcoin = configured(
        "bitcoin.v1_fallback=never",
        "bitcoin.garbage=none",
        'bitcoin.ellswift_prefix="' + "ab" * 32 + '"',
        "bitcoin.decoys_per_minute=2.5",
        "bitcoin.decoys_before_version=3",
        "bitcoin.decoy_sizes=[5, 500]",
        "bitcoin.decoy_distribution=uniform",
        "bitcoin.scrub_version=true",
        "bitcoin.user_agent_suffix=suffix/",
    ).bitcoin
    settings = carry_settings(bitcoin)
    assert settings.fallback is Fallback.NEVER
    assert settings.options == TransportOptions(
        garbage=(0, 0),
        prefix=b"\xab" * 32,
        decoys=DecoyPolicy(2.5, 5, 500, logarithmic=False, before_version=3),
        version=VersionRewrite(scrub=True, suffix=b"suffix/"),
    )


def test_v2_can_be_turned_off() -> None:
    assert carry_settings(configured("bitcoin.v2=off").bitcoin).ports == frozenset()


def test_a_proxy_and_a_custom_signet() -> None:
    config = configured(
        'bitcoin.signet_challenges=["51"]',
        "bitcoin.proxy.0.network=signet-54d26fbd",
        'bitcoin.proxy.0.peers={"10.64.0.1:8333" = "[2001:db8::1]:1"}',
        "bitcoin.proxy.0.max_connections=7",
        "bitcoin.proxy.1.address=127.0.0.1:1325",
        "bitcoin.proxy.1.peer=peer.example:8333",
        "bitcoin.proxy.1.allow_private_addresses=true",
    )
    first, second = (proxy_settings(config, one) for one in config.bitcoin.proxy)
    carried = proxy_carry_settings(config.bitcoin, config.bitcoin.proxy[0])
    assert [network.name for network in carried.networks] == ["signet-54d26fbd"]
    assert len(list(networks(config.bitcoin))) == len(list(KNOWN_NETWORKS)) + 1
    assert first.peers == {Target.parse("10.64.0.1", 8333): Target.parse("2001:db8::1", 1)}
    assert (first.max_connections, first.allow_private, second.allow_private) == (7, False, True)
    assert second.peer == target_of("peer.example:8333")
    rules = [proxy_listener(config, one).rule.listener for one in config.bitcoin.proxy]
    assert rules[0].group != rules[1].group != own_group("proxy2")
    assert Isolate.SOCKS_AUTH | Isolate.DEST_ADDR in rules[0].isolate
    moved = replace(config.bitcoin.proxy[0], address=config.bitcoin.proxy[1].address)
    assert proxy_listener(config, moved).rule.listener.group != rules[0].group


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (["bitcoin.decoy_sizes=[5]"], "two numbers"),
        (["bitcoin.decoy_sizes=[5, 4]"], "two numbers"),
        (["bitcoin.decoy_sizes=[5, 70000]"], "from 0 to 65535"),
        (["bitcoin.decoys_per_minute=-1"], "from 0 to 6000"),
        (["bitcoin.garbage=true"], '"random", "none"'),
        (['bitcoin.ellswift_prefix="' + "ab" * 33 + '"'], "64 hexadecimal digits"),
        (
            ['bitcoin.ellswift_prefix="f9beb4d976657273696f6e0000000000"'],
            "peers would take a key",
        ),
        (["bitcoin.v2=off", "bitcoin.proxy.0.name=g"], "a proxy speaks BIP324"),
        (["bitcoin.proxy.0.network=signet-00000000"], "no such signet"),
        (
            ["onion_service.0.target=127.0.0.1:1", "onion_service.0.network=signet-00000000"],
            "onion_service.0.network: no such signet",
        ),
        (["bitcoin.proxy.0.network=mainet"], "expected mainnet"),
        (['bitcoin.proxy.0.peers={"a.onion:1" = "b.onion:1"}'], "write IP:port"),
        (
            ["bitcoin.proxy.0.peer=a:1", 'bitcoin.proxy.0.peers={"1.1.1.1:1" = "b:1"}'],
            "of no effect beside peer",
        ),
        (
            [
                "bitcoin.proxy.0.name=g",
                "bitcoin.proxy.1.name=g",
                "bitcoin.proxy.1.address=127.0.0.1:2",
            ],
            "the same name as",
        ),
        (
            ["bitcoin.proxy.0.address=0.0.0.0:1", 'bitcoin.proxy.0.isolate=["DestAddr"]'],
            "add ClientAddr",
        ),
    ],
)
def test_what_makes_no_sense_is_said(settings: list[str], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem.replace("[", r"\[")):
        configured(*settings)


def test_dangerous_settings_are_warned_of() -> None:
    warnings = load(
        None,
        ["bitcoin.v1_fallback=always", "bitcoin.proxy.0.allow_private_addresses=true"],
    ).warnings
    assert any("an exit that cuts a stream" in text for text in warnings)
    assert any("for test networks only" in text for text in warnings)
