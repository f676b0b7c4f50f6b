"""From the configuration to what stream processes are told; nothing is decided here."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace

from isoproxy.bitcoin.inbound import InboundSettings
from isoproxy.config import Config
from isoproxy.daemon.settings.bitcoin import (
    carry_settings,
    proxy_carry_settings,
    proxy_listener,
    proxy_settings,
)
from isoproxy.daemon.settings.front import dialer_settings, front_limits
from isoproxy.front.listener import ListenerSettings
from isoproxy.net.endpoint import Endpoint
from isoproxy.tls.certificates import Issuer
from isoproxy.tor.dialer import DialerSettings
from isoproxy.workers.budgets import (
    circuits_for_lookups,
    circuits_for_streams,
    limits_of,
    part,
    processes_for,
)
from isoproxy.workers.messages import BitcoinSettings, ProxyPlan, Settings, TransparentPlan


def stream_processes(config: Config) -> int:
    """How many processes carry streams: as configured, as far as cores and budgets go."""
    limits, cores = config.limits, len(os.sched_getaffinity(0))
    return processes_for(limits.workers, cores, front_limits(config), limits.max_pending_circuits)


def lookup_dialer(config: Config, socks: Endpoint) -> DialerSettings:
    """The main process's dialer, for look-ups."""
    pending = circuits_for_lookups(config.limits.max_pending_circuits)
    return replace(dialer_settings(config, socks), max_pending_circuits=pending)


def stream_settings(
    config: Config,
    socks: Endpoint,
    listeners: tuple[ListenerSettings, ...],
    inbound: Mapping[str, InboundSettings],
    onions_of_listeners: Mapping[str, str],
    transparent: tuple[TransparentPlan, ...],
    index: int,
    count: int,
    issuer: Issuer | None,
) -> Settings:
    """What the stream process `index` of `count` serves by.

    `listeners` are those whose sockets are open; `inbound` is by onion service; see
    `DialerSettings` for `onions_of_listeners`; `transparent` is for that process alone;
    `issuer` signs for names under bit.
    """
    pending = circuits_for_streams(config.limits.max_pending_circuits, index, count)
    observe = config.observe
    return Settings(
        listeners,
        limits_of(front_limits(config), index, count),
        replace(
            dialer_settings(config, socks),
            max_pending_circuits=pending,
            onions_of_listeners=onions_of_listeners,
        ),
        _bitcoin_settings(config, inbound, index, count),
        config.names.timeout_s,
        (observe.log_level, observe.log_format, observe.safe_logging),
        transparent,
        issuer,
    )


def _bitcoin_settings(
    config: Config, inbound: Mapping[str, InboundSettings], index: int, count: int
) -> BitcoinSettings:
    """Without those of which this process's part is nothing."""
    proxies = []
    for proxy in config.bitcoin.proxy:
        settings = proxy_settings(config, proxy)
        its = replace(settings, max_connections=part(settings.max_connections, index, count))
        if its.max_connections:
            carrying = proxy_carry_settings(config.bitcoin, proxy)
            proxies.append(ProxyPlan(proxy_listener(config, proxy), its, carrying))
    parts = {
        name: replace(service, max_connections=part(service.max_connections, index, count))
        for name, service in inbound.items()
    }
    return BitcoinSettings(
        carry_settings(config.bitcoin),
        tuple(proxies),
        {name: service for name, service in parts.items() if service.max_connections},
    )
