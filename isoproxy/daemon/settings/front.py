"""From the configuration to what each part is built with; nothing is decided here."""

from __future__ import annotations

from typing import Final

from isoproxy.config import Config, ListenerConfig, NamesConfig, TransparentConfig
from isoproxy.front.judgement import HandshakeRule
from isoproxy.front.listener import ListenerSettings
from isoproxy.front.services import Limits
from isoproxy.isolation import (
    FLAG_NAMES,
    Isolate,
    ListenerRule,
    own_group,
    shared_group,
)
from isoproxy.namecoin.value.name import Route, TopLevels
from isoproxy.net.endpoint import Endpoint
from isoproxy.tor.dialer import DialerSettings

PROGRAMS: Final = "_exec"
"""The name of the programs of `isoproxy exec` in status and metrics; no listener can have it."""


def top_levels(config: NamesConfig) -> TopLevels:
    """Who resolves which names."""
    table = TopLevels({suffix: Route(route) for suffix, route in config.top_levels.items()})
    return table.without_namecoin() if config.backend == "none" else table


def listener_settings(config: Config) -> dict[str, ListenerSettings]:
    """All listeners by name."""
    return {
        listener.name: ListenerSettings(
            listener.name,
            listener.address,
            session_rule(config, listener),
            int(listener.mode),
        )
        for listener in config.listener
    }


def session_rule(config: Config, listener: ListenerConfig) -> HandshakeRule:
    """A listener's rule; a group of its own is that of name and place: a reload can move both."""
    group = (
        own_group(f"{listener.name} {listener.address}")
        if listener.session_group is None
        else shared_group(listener.session_group)
    )
    return HandshakeRule(
        ListenerRule(group, listener.isolate),
        require_auth=listener.require_auth,
        proxy_auth_challenge=listener.proxy_auth_challenge,
        extended_errors=listener.extended_errors,
        unix=listener.address.is_unix,
        top_levels=top_levels(config.names),
        tls=listener.tls,
    )


def program_listener(names: NamesConfig) -> ListenerSettings:
    """How programs of `isoproxy exec` are served: a program is one identity, or all of a label
    are, within a group that no listener of the configuration has."""
    rule = ListenerRule(own_group("isoproxy exec"), Isolate.CLIENT_ADDR | Isolate.SOCKS_AUTH)
    handshake = HandshakeRule(rule, top_levels=top_levels(names))
    return ListenerSettings(PROGRAMS, Endpoint("127.0.0.1"), handshake)


def transparent_listener(config: Config, its: TransparentConfig) -> ListenerSettings:
    """How those are served whose connections are redirected to it."""
    group = (
        own_group(f"transparent {its.name} {its.address}")
        if its.session_group is None
        else shared_group(its.session_group)
    )
    rule = HandshakeRule(ListenerRule(group, its.isolate), top_levels=top_levels(config.names))
    return ListenerSettings(its.name, its.address, rule)


def front_limits(config: Config) -> Limits:
    limits = config.limits
    return Limits(
        max_connections=limits.max_connections,
        max_connections_per_client=limits.max_connections_per_client,
        handshake_timeout_s=limits.handshake_timeout_s,
        idle_timeout_s=limits.idle_timeout_s,
    )


def dialer_settings(config: Config, socks: Endpoint) -> DialerSettings:
    """The dialer of a process that dials alone."""
    return DialerSettings(
        socks,
        never_sent_to_tor=top_levels(config.names).never_sent_to_tor,
        timeout_s=config.limits.dial_timeout_s,
        max_pending_circuits=config.limits.max_pending_circuits,
        strict_names=config.tor.mode == "arti",
    )


def flag_names(isolate: Isolate) -> list[str]:
    """The configuration's names of the flags in `isolate`."""
    return [name for name, flag in FLAG_NAMES.items() if flag in isolate]


def describe_listener(address: str, isolate: Isolate, protocol: str = "socks") -> str:
    """The line that `isoproxy run` prints for each listener and proxy."""
    return f"listening {protocol} {address} isolate={','.join(flag_names(isolate)) or 'nothing'}"
