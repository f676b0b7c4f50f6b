"""From the configuration to what the Bitcoin side is built with; nothing is decided here."""

from __future__ import annotations

from dataclasses import replace

from isoproxy.bitcoin.carry import CarrySettings
from isoproxy.bitcoin.messages import KNOWN_NETWORKS, Networks, custom_signet
from isoproxy.bitcoin.options import DecoyPolicy, Fallback, TransportOptions
from isoproxy.bitcoin.proxy import ProxySettings
from isoproxy.bitcoin.v1 import VersionRewrite
from isoproxy.config import BitcoinConfig, Config, ProxyConfig
from isoproxy.daemon.settings.front import top_levels
from isoproxy.front.judgement import HandshakeRule
from isoproxy.front.listener import ListenerSettings
from isoproxy.isolation import ListenerRule, own_group
from isoproxy.net.target import Target


def networks(config: BitcoinConfig) -> Networks:
    """All networks that are recognised."""
    signets = (custom_signet(bytes.fromhex(challenge)) for challenge in config.signet_challenges)
    return KNOWN_NETWORKS.with_networks(signets)


def transport_options(config: BitcoinConfig) -> TransportOptions:
    least, most = config.decoy_sizes
    plain = TransportOptions()
    return TransportOptions(
        garbage=plain.garbage if config.garbage == "random" else (0, 0),
        prefix=bytes.fromhex(config.ellswift_prefix),
        decoys=DecoyPolicy(
            config.decoys_per_minute,
            least,
            most,
            logarithmic=config.decoy_distribution == "logarithmic",
            before_version=config.decoys_before_version,
        ),
        version=VersionRewrite(config.scrub_version, config.user_agent_suffix.encode("ascii")),
    )


def carry_settings(config: BitcoinConfig) -> CarrySettings:
    """How streams are carried; no stream is claimed where v2 is off."""
    on = config.v2 == "on"
    return CarrySettings(
        Fallback(config.v1_fallback),
        transport_options(config),
        networks=networks(config),
        ports=frozenset(config.ports if on else ()),
        everywhere=on,
    )


def proxy_carry_settings(config: BitcoinConfig, proxy: ProxyConfig) -> CarrySettings:
    """How a proxy's streams are carried, on its own network if it has one."""
    settings = carry_settings(config)
    if proxy.network is None:
        return settings
    return replace(settings, networks=Networks([settings.networks.named(proxy.network)]))


def proxy_settings(config: Config, proxy: ProxyConfig) -> ProxySettings:
    return ProxySettings(
        proxy_listener(config, proxy).rule.listener,
        peer=None if proxy.peer is None else target_of(proxy.peer),
        peers={target_of(asked): target_of(peer) for asked, peer in proxy.peers.items()},
        allow_private=proxy.allow_private_addresses,
        max_connections=proxy.max_connections,
    )


def proxy_listener(config: Config, proxy: ProxyConfig) -> ListenerSettings:
    """The proxy as a listener for the clients among its own that speak SOCKS."""
    rule = HandshakeRule(
        ListenerRule(own_group(f"proxy {proxy.name} {proxy.address}"), proxy.isolate),
        unix=proxy.address.is_unix,
        top_levels=top_levels(config.names),
    )
    return ListenerSettings(proxy.name, proxy.address, rule, int(proxy.mode))


def target_of(text: str) -> Target:
    """`host:port`, as the configuration has checked it, as a target."""
    host, _, port = text.rpartition(":")
    return Target.parse(host.strip("[]"), int(port))
