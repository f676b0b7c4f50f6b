"""Builds the resolver that the configuration asks for, for the plugin as a program.

Theory of operation
    Backends are made as the daemon makes them.  The light client goes through the Tor
    that is there (`tor.socks`), whatever `tor.mode` says: a plugin starts no tor of its
    own.  It keeps its headers in a directory of its own below the state directory, since
    a daemon may run as well.  Electrum-NMC and Namecoin Core are asked on this machine;
    then the program makes no connection of its own.  What was opened is closed in the end.

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

from isoproxy.config import Config, LoginAt, private_directory
from isoproxy.daemon.compose.names import NO_NAMES, electrum_settings, names_directory, rpc_client
from isoproxy.daemon.settings.front import dialer_settings
from isoproxy.errors import ConfigError
from isoproxy.isolation import Isolator
from isoproxy.namecoin.backend import Backend
from isoproxy.namecoin.electrum.backend import ElectrumBackend
from isoproxy.namecoin.resolve.answer import Policy
from isoproxy.namecoin.resolve.cache import PER_KEY
from isoproxy.namecoin.resolve.resolver import Resolver
from isoproxy.namecoin.rpc.electrum_nmc import ElectrumNmcBackend
from isoproxy.namecoin.rpc.namecoin_core import NamecoinCoreBackend
from isoproxy.net.reactor import Reactor
from isoproxy.observe.log import logger
from isoproxy.tor.dialer import Dialer

_log = logger("prop279")


@dataclass(frozen=True, slots=True)
class Tuning:
    """What ncprop279's options set beside the configuration: seconds, entries per key."""

    timeout_s: float | None = None
    per_key: int = PER_KEY


@contextlib.asynccontextmanager
async def open_resolver(
    config: Config, isolator: Isolator, state: Path, tuning: Tuning | None = None
) -> AsyncIterator[Resolver]:
    """The resolver of the configuration; its files are below `state`.  Raises ConfigError."""
    tuning = tuning or Tuning()
    names = config.names
    async with contextlib.AsyncExitStack() as stack:
        if names.backend == "none":
            raise ConfigError(NO_NAMES)
        if names.backend == "electrum":
            backend = _light_client(config, isolator, state, stack)
        else:
            backend = _rpc_backend(config)
        stack.push_async_callback(backend.close)
        yield Resolver(
            backend,
            isolator,
            policy=Policy(
                only_onion=names.only_onion,
                allow_clearnet_alias=names.allow_clearnet_alias,
                allow_private_addresses=names.allow_private_addresses,
            ),
            deadline_s=tuning.timeout_s or names.timeout_s,
            per_key=tuning.per_key,
        )


def _light_client(
    config: Config, isolator: Isolator, state: Path, stack: contextlib.AsyncExitStack
) -> Backend:
    reactor = Reactor(asyncio.get_running_loop(), lambda _, error: _log.err("defect", error=error))
    stack.callback(reactor.close)
    dialer = Dialer(reactor, isolator, dialer_settings(config, config.tor.socks))
    stack.callback(dialer.close)
    settings = electrum_settings(config.names.electrum, config.names.timeout_s)
    directory = names_directory(private_directory(state) / "prop279")
    backend = ElectrumBackend(dialer, isolator, settings, directory)
    backend.start()
    return backend


def _rpc_backend(config: Config) -> Backend:
    rpc, core = config.names.rpc, config.names.backend == "namecoin-core"
    kind = NamecoinCoreBackend if core else ElectrumNmcBackend
    client = rpc_client(rpc, LoginAt(rpc.address), core=core)
    return kind(client, allow_unisolated=rpc.allow_unisolated)
