"""Builds the resolver that the configuration asks for, for programs without a front end.

Theory of operation
    The light client goes through the Tor that is there (`tor.socks`), whatever
    `tor.mode` says: a plugin starts no tor of its own.  It keeps block headers in a
    directory of its own below the state directory, since a daemon may run as well.
    Electrum-NMC and Namecoin Core are asked over JSON-RPC on this machine; then the
    program makes no connection of its own.  What was opened is closed in the end.

Invariants
    A backend that cannot keep look-ups apart is refused unless the configuration says
    otherwise.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from isoproxy.config import Config, ElectrumConfig, NamesConfig, RpcConfig, private_directory
from isoproxy.errors import ConfigError
from isoproxy.isolation import Isolator
from isoproxy.names.answer import Policy
from isoproxy.names.backend import Backend
from isoproxy.names.cache import PER_KEY
from isoproxy.names.electrum import ElectrumBackend, ElectrumSettings
from isoproxy.names.electrum_pool import PoolSettings
from isoproxy.names.network import NETWORKS, Anchor, hash_from_hex
from isoproxy.names.resolver import DEADLINE_S, Resolver
from isoproxy.names.rpc import ElectrumNmcBackend, NamecoinCoreBackend
from isoproxy.names.rpc_client import (
    TIMEOUT_S,
    JsonRpcClient,
    Login,
    cookie_login,
    fixed_login,
)
from isoproxy.names.servers import SHIPPED, parse_servers
from isoproxy.observe.log import logger
from isoproxy.reactor import Reactor
from isoproxy.tor.dialer import Dialer, DialerSettings

_log = logger("prop279")


@dataclass(frozen=True, slots=True)
class Tuning:
    """What a program may set beside the configuration: seconds, and cache entries per key."""

    deadline_s: float = DEADLINE_S
    rpc_timeout_s: float = TIMEOUT_S
    per_key: int = PER_KEY


@contextlib.asynccontextmanager
async def open_resolver(
    config: Config, isolator: Isolator, state: Path, tuning: Tuning | None = None
) -> AsyncIterator[Resolver]:
    """The resolver of the configuration; its files are below `state`.  Raises ConfigError."""
    tuning = tuning or Tuning()
    async with contextlib.AsyncExitStack() as stack:
        if config.names.backend == "electrum":
            backend = _light_client(config, isolator, state, stack)
        else:
            backend = _rpc_backend(config.names, tuning)
        stack.push_async_callback(backend.close)
        yield Resolver(
            backend,
            isolator,
            policy=Policy(
                only_onion=config.names.only_onion,
                allow_clearnet_alias=config.names.allow_clearnet_alias,
                allow_private_addresses=config.names.allow_private_addresses,
            ),
            deadline_s=tuning.deadline_s,
            per_key=tuning.per_key,
        )


def _light_client(
    config: Config, isolator: Isolator, state: Path, stack: contextlib.AsyncExitStack
) -> Backend:
    reactor = Reactor(asyncio.get_running_loop(), lambda _, error: _log.err("defect", error=error))
    stack.callback(reactor.close)
    settings = DialerSettings(
        config.tor.socks,
        never_sent_to_tor=frozenset(config.names.never_to_tor),
        timeout_s=config.limits.dial_timeout_s,
        max_pending_circuits=config.limits.max_pending_circuits,
    )
    dialer = Dialer(reactor, isolator, settings)
    stack.callback(dialer.close)
    directory = private_directory(state / "prop279")
    backend = ElectrumBackend(
        dialer, isolator, _electrum_settings(config.names.electrum), directory
    )
    backend.start()
    return backend


def _electrum_settings(config: ElectrumConfig) -> ElectrumSettings:
    anchor = None
    if config.anchor_height is not None and config.anchor_hash is not None:
        anchor = Anchor(config.anchor_height, hash_from_hex(config.anchor_hash))
    return ElectrumSettings(
        network=NETWORKS[config.network],
        servers=parse_servers(config.servers) if config.servers else SHIPPED,
        quorum=config.quorum,
        confirmations=config.confirmations,
        anchor=anchor,
        pool=PoolSettings(clean=min(config.pool_size, PoolSettings().clean)),
    )


def _rpc_backend(config: NamesConfig, tuning: Tuning) -> Backend:
    client = JsonRpcClient(config.rpc.address, _login(config.rpc), timeout_s=tuning.rpc_timeout_s)
    kind = ElectrumNmcBackend if config.backend == "electrum-nmc" else NamecoinCoreBackend
    return kind(client, allow_unisolated=config.rpc.allow_unisolated)


def _login(config: RpcConfig) -> Login:
    if config.username is not None and config.password is not None:
        return fixed_login(config.username, config.password)
    if config.cookie_file is not None:
        return cookie_login(Path(config.cookie_file))
    raise ConfigError("names.rpc needs a way to log in: set username and password, or cookie_file")
