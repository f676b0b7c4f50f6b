"""Builds the resolver that the configuration asks for, for programs without a front end.

Theory of operation
    Electrum-NMC and Namecoin Core are asked over JSON-RPC on this machine; the program
    itself makes no connection of its own then.  What was opened is closed in the end.

Invariants
    A backend that cannot keep look-ups apart is refused unless the configuration says
    otherwise.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from isoproxy.config import NamesConfig, RpcConfig
from isoproxy.errors import ConfigError
from isoproxy.isolation import Isolator
from isoproxy.names.answer import Policy
from isoproxy.names.backend import Backend
from isoproxy.names.cache import PER_KEY
from isoproxy.names.resolver import DEADLINE_S, Resolver
from isoproxy.names.rpc import ElectrumNmcBackend, NamecoinCoreBackend
from isoproxy.names.rpc_client import (
    TIMEOUT_S,
    JsonRpcClient,
    Login,
    cookie_login,
    fixed_login,
)


@dataclass(frozen=True, slots=True)
class Tuning:
    """What a program may set beside the configuration: seconds, and cache entries per key."""

    deadline_s: float = DEADLINE_S
    rpc_timeout_s: float = TIMEOUT_S
    per_key: int = PER_KEY


@contextlib.asynccontextmanager
async def open_resolver(
    config: NamesConfig, isolator: Isolator, tuning: Tuning | None = None
) -> AsyncIterator[Resolver]:
    """The resolver of the `[names]` section; raises ConfigError."""
    tuning = tuning or Tuning()
    backend = _rpc_backend(config, tuning)
    try:
        yield Resolver(
            backend,
            isolator,
            policy=Policy(
                only_onion=config.only_onion,
                allow_clearnet_alias=config.allow_clearnet_alias,
                allow_private_addresses=config.allow_private_addresses,
            ),
            deadline_s=tuning.deadline_s,
            per_key=tuning.per_key,
        )
    finally:
        await backend.close()


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
