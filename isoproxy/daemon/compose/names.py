"""Names as the configuration has them: backends, resolvers, and how they stand.

The light client (`electrum`) has work of its own to do, so it begins when Tor answers, not
before: an attempt without Tor would only count against the servers.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Final

from isoproxy.config import ElectrumConfig, LoginAt, NamesConfig, RpcConfig, private_directory
from isoproxy.errors import ConfigError
from isoproxy.isolation import Isolator
from isoproxy.namecoin.backend import Backend
from isoproxy.namecoin.chain.params import NETWORKS, REGTEST, Anchor, Checkpoint, hash_from_hex
from isoproxy.namecoin.electrum.backend import ElectrumBackend, ElectrumSettings
from isoproxy.namecoin.electrum.connector import Dials
from isoproxy.namecoin.electrum.pool import PoolSettings
from isoproxy.namecoin.electrum.servers import SHIPPED, parse_servers
from isoproxy.namecoin.resolve.answer import Policy
from isoproxy.namecoin.resolve.client_views import ClientViews
from isoproxy.namecoin.resolve.resolver import Resolver
from isoproxy.namecoin.resolve.service import NameService
from isoproxy.namecoin.rpc.backend import RpcBackend
from isoproxy.namecoin.rpc.client import JsonRpcClient, Login, cookie_login, fixed_login
from isoproxy.namecoin.rpc.electrum_nmc import ElectrumNmcBackend
from isoproxy.namecoin.rpc.namecoin_core import NamecoinCoreBackend
from isoproxy.observe.log import logger
from isoproxy.observe.metrics import Metrics

NO_NAMES: Final = (
    'names.backend is "none", so .bit names are refused; set it to "electrum", or leave it out'
)
PROGRESS_S: Final = 10.0
_DEFAULT_COOKIE: Final = Path("~/.namecoin/.cookie")
_FAVOURED_SERVERS: Final = 4
_MAX_TIP_AGE_S: Final = 86_400.0

_log = logger("names")


def names_directory(state: Path) -> Path:
    """Where headers, certificates and anchors are kept, below the `state` directory."""
    return private_directory(private_directory(state) / "names")


def electrum_settings(config: ElectrumConfig, timeout_s: float) -> ElectrumSettings:
    """The light client's settings, for look-ups of `timeout_s` s; raises ConfigError.

    Half of the time may pass in waiting for headers, so that a look-up that gets none has
    time to say so.
    """
    servers = parse_servers(config.servers, allow_plain=config.allow_plain) or SHIPPED
    network = NETWORKS[config.network]
    if servers is SHIPPED and config.network != "mainnet":
        raise ConfigError(
            "names.electrum.servers must be set: the list in the package is for mainnet only"
        )
    anchor = checkpoint = None
    if config.anchor_height is not None and config.anchor_hash is not None:
        anchor = Anchor(config.anchor_height, hash_from_hex(config.anchor_hash))
    if config.checkpoint_height is not None and config.checkpoint_root is not None:
        checkpoint = Checkpoint(config.checkpoint_height, hash_from_hex(config.checkpoint_root))
    favoured = min(len(servers), max(_FAVOURED_SERVERS, config.quorum))
    return ElectrumSettings(
        network=network,
        servers=servers,
        quorum=config.quorum,
        confirmations=config.confirmations,
        anchor=anchor,
        checkpoint=checkpoint,
        ready_wait=timeout_s / 2,
        deadline=timeout_s * 0.75,
        max_tip_age=None if network is REGTEST else _MAX_TIP_AGE_S,
        pool=PoolSettings(
            clean=-(-config.pool_size // favoured),
            clean_servers=favoured,
            max_bound=config.max_connections,
            opens_per_minute=config.circuits_per_minute,
        ),
    )


def rpc_client(config: RpcConfig, place: LoginAt, *, core: bool) -> JsonRpcClient:
    """A client of the program at `place`; raises ConfigError.

    Without credentials of its own it is asked with those of `config`; a Namecoin Core
    (`core`) that has none there either, with those of its cookie file.
    """
    login: Login
    if place.username is not None:
        login = fixed_login(place.username, place.password or "")
    elif config.username is not None:
        login = fixed_login(config.username, config.password or "")
    elif config.cookie_file is not None or core:
        login = cookie_login(Path(config.cookie_file or _DEFAULT_COOKIE).expanduser())
    else:
        raise ConfigError(
            "names.rpc.username and names.rpc.password must be set for electrum-nmc; its own "
            "configuration file has them as rpcuser and rpcpassword"
        )
    return JsonRpcClient(place.endpoint, login)


def check_names(config: NamesConfig) -> None:
    """Raise ConfigError where the settings make no backend; connects nowhere."""
    if config.backend == "electrum":
        electrum_settings(config.electrum, config.timeout_s)
    elif config.backend != "none":
        rpc_backends(config)


def rpc_backends(
    config: NamesConfig,
) -> tuple[RpcBackend, dict[IPv4Network | IPv6Network, RpcBackend]]:
    """The backend for everybody, and those of networks that have their own; ConfigError."""
    core = config.backend == "namecoin-core"
    kind = NamecoinCoreBackend if core else ElectrumNmcBackend
    rpc = config.rpc

    def backend(place: LoginAt) -> RpcBackend:
        client = rpc_client(rpc, place, core=core)
        return kind(client, allow_unisolated=rpc.allow_unisolated)

    own = {ip_network(network): backend(place) for network, place in rpc.clients.items()}
    return backend(LoginAt(rpc.address)), own


class DaemonNames:
    """The name service of one configuration; `start` it once Tor answers, `close` it.

    Raises ConfigError.
    """

    def __init__(
        self,
        config: NamesConfig,
        dialer: Dials,
        isolator: Isolator,
        metrics: Metrics,
        state: Path,
    ) -> None:
        self._config: Final = config
        self._watch: asyncio.Task[None] | None = None
        self.electrum: ElectrumBackend | None = None
        policy = Policy(
            only_onion=config.only_onion,
            allow_clearnet_alias=config.allow_clearnet_alias,
            allow_private_addresses=config.allow_private_addresses,
        )
        own: Mapping[IPv4Network | IPv6Network, Backend] = {}
        if config.backend == "electrum":
            self.electrum = ElectrumBackend(
                dialer,
                isolator,
                electrum_settings(config.electrum, config.timeout_s),
                names_directory(state),
            )
            default: Backend = self.electrum
        else:
            default, own = rpc_backends(config)
        evictions = metrics.isolation_evictions.of(reason="cache_full")

        def evicted() -> None:
            evictions.value += 1

        resolvers = {
            id(backend): Resolver(
                backend,
                isolator,
                policy=policy,
                deadline_s=config.timeout_s,
                on_evicted=evicted,
            )
            for backend in (default, *own.values())
        }
        if self.electrum is not None:
            self.electrum.on_block(resolvers[id(default)].block_arrived)
        self.service: Final = NameService(
            config.backend,
            tuple(resolvers.values()),
            ClientViews(
                {network: resolvers[id(backend)] for network, backend in own.items()},
                resolvers[id(default)],
            ),
            metrics,
        )

    def tor_answers(self) -> None:
        """Begin, or go on without holding against the servers what Tor was to blame for."""
        if self.electrum is None:
            return
        if self._watch is None:
            self.electrum.start()
            self._watch = asyncio.create_task(_tell_progress(self.electrum), name="names")
        else:
            self.electrum.reset_backoff()

    async def close(self) -> None:
        """End look-ups, connections and background work."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        await self.service.close()

    def status(self) -> dict[str, object]:
        """For `isoproxy status`: heights and counts, nothing that identifies."""
        answer: dict[str, object] = {
            "backend": self._config.backend,
            "cached": self.service.cached,
        }
        if self.electrum is not None:
            answer |= _electrum_status(self.electrum)
        return answer


def _electrum_status(backend: ElectrumBackend) -> dict[str, object]:
    progress, health = backend.progress(), backend.health()
    clean, bound, upkeep = backend.pool.counts()
    return {
        "network": backend.settings.network.name,
        "ready": backend.sync.ready.is_set(),
        "complete": backend.sync.ready.is_set() and progress.is_complete,
        "tip": progress.tip,
        "target": progress.target,
        "base": progress.base,
        "wanted_base": progress.wanted_base,
        "quorum": backend.settings.quorum,
        "servers": {"known": health.known, "up": health.up, "demoted": health.demoted},
        "connections": {"clean": clean, "bound": bound, "upkeep": upkeep},
    }


async def _tell_progress(backend: ElectrumBackend) -> None:
    """Log how far the headers are whenever that changed, until they are complete."""
    ready, last = backend.sync.ready, None
    while True:
        progress = backend.progress()
        if ready.is_set() and progress.is_complete:
            _log.notice("headers_complete", base=progress.base, tip=progress.tip)
            return
        if progress != last:
            last = progress
            _log.notice(
                "headers",
                lookups="served" if ready.is_set() else "waiting",
                tip=progress.tip,
                target=progress.target,
                base=progress.base,
                wanted_base=progress.wanted_base,
            )
        if ready.is_set():
            await asyncio.sleep(PROGRESS_S)
        else:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PROGRESS_S):
                    await ready.wait()
