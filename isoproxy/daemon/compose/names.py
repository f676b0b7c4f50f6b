"""Names as the configuration has them: backends, resolvers, and how they stand.

The light client (`electrum`) has work of its own to do, so it begins when Tor answers, not
before: an attempt without Tor would only count against the servers.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Final

from isoproxy.config import LoginAt, NamesConfig, RpcConfig
from isoproxy.daemon.settings.names import answer_policy, electrum_settings, names_directory
from isoproxy.errors import ConfigError, ErrorKind, NamingError
from isoproxy.isolation import Isolator
from isoproxy.namecoin.backend import Backend
from isoproxy.namecoin.electrum.backend import ElectrumBackend
from isoproxy.namecoin.electrum.connector import Dials
from isoproxy.namecoin.resolve.cache import PER_KEY
from isoproxy.namecoin.resolve.client_views import ClientViews
from isoproxy.namecoin.resolve.lookup_counts import LookupCounts
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

_log = logger("names")


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
    """The name service of one configuration; tell it once `tor_answers`, `close` it.

    Its files are below `state`; an identity's caches have `per_key` entries each.
    Raises ConfigError.
    """

    def __init__(
        self,
        config: NamesConfig,
        dialer: Dials,
        isolator: Isolator,
        metrics: Metrics,
        state: Path,
        *,
        per_key: int = PER_KEY,
    ) -> None:
        self._config: Final = config
        self._watch: asyncio.Task[None] | None = None
        self.electrum: ElectrumBackend | None = None
        self._program: RpcBackend | None = None
        policy = answer_policy(config)
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
            self._program, own = rpc_backends(config)
            default = self._program
        evictions = metrics.isolation_evictions.of(reason="cache_full")

        def evicted() -> None:
            evictions.value += 1

        resolvers = {
            id(backend): Resolver(
                backend,
                isolator,
                policy=policy,
                deadline_s=config.timeout_s,
                per_key=per_key,
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
            LookupCounts(isolator),
        )

    def tor_answers(self) -> None:
        """Begin, or go on without holding against the servers what Tor was to blame for."""
        if self.electrum is None:
            return
        if self._watch is None:
            self.electrum.start()
            self._watch = asyncio.create_task(_watch(self.electrum), name="names")
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
        elif self._program is not None:
            answer["problem"] = self._program.problem
        return answer


class CurrentNames:
    """The name service in use, if there is one; a reload puts another in its place.

    `build` makes that of a configuration.
    """

    def __init__(self, config: NamesConfig, build: Callable[[NamesConfig], DaemonNames]) -> None:
        self._build: Final = build
        self._now = self.prepare(config)

    def prepare(self, config: NamesConfig) -> DaemonNames | None:
        """That of `config`, not in use yet; None if it has none.  Raises ConfigError."""
        return None if config.backend == "none" else self._build(config)

    async def switch(self, names: DaemonNames | None) -> None:
        """Resolve by `names` from now on; look-ups under way in the old service fail."""
        old, self._now = self._now, names
        if old is not None:
            await old.close()

    @property
    def service(self) -> NameService | None:
        """What resolves for the front end."""
        return None if self._now is None else self._now.service

    @property
    def lookups(self) -> dict[str, int]:
        """How many each identity asked for, by label."""
        return {} if self._now is None else self._now.service.lookups

    @property
    def cached(self) -> int:
        """Answers in the caches of all identities."""
        return 0 if self._now is None else self._now.service.cached

    def resolver_of(self, client: bytes | None) -> Resolver:
        """The resolver for a client; raises NamingError if there is none."""
        if self._now is None:
            raise NamingError(NO_NAMES, kind=ErrorKind.NAME_NEVER_SENT_TO_TOR)
        return self._now.service.resolver_of(client)

    def tor_answers(self) -> None:
        """As `DaemonNames.tor_answers`."""
        if self._now is not None:
            self._now.tor_answers()

    def status(self) -> dict[str, object]:
        """As `DaemonNames.status`."""
        return {"backend": "none"} if self._now is None else self._now.status()

    async def close(self) -> None:
        """Resolve nothing any more."""
        await self.switch(None)


def _electrum_status(backend: ElectrumBackend) -> dict[str, object]:
    progress, health = backend.progress(), backend.health()
    clean, bound, upkeep = backend.pool.counts()
    return {
        "network": backend.settings.network.name,
        "ready": backend.sync.ready.is_set(),
        "problem": _problem(backend),
        "complete": backend.sync.ready.is_set() and progress.is_complete,
        "tip": progress.tip,
        "target": progress.target,
        "base": progress.base,
        "wanted_base": progress.wanted_base,
        "fetched": progress.fetched,
        "proof": "sampled" if progress.unproven else "full",
        "unproven": progress.unproven,
        "quorum": backend.settings.quorum,
        "servers": {"known": health.known, "up": health.up, "demoted": health.demoted},
        "certificates": [
            {
                "server": label,
                "problem": problem.fault.value,
                "shown": None if problem.shown is None else problem.shown.hex(),
            }
            for label, problem in sorted(backend.certificates.items())
        ],
        "connections": {"clean": clean, "bound": bound, "upkeep": upkeep},
    }


def _problem(backend: ElectrumBackend) -> str | None:
    """What keeps look-ups from being answered, other than headers that are on their way."""
    obstacle = backend.obstacle()
    if obstacle is None or obstacle.failure.kind is ErrorKind.NAME_SYNCHRONISING:
        return None
    return str(obstacle.failure)


async def _watch(backend: ElectrumBackend) -> None:
    """Log how far the headers are until they are complete, and what keeps names from users."""
    telling = asyncio.create_task(_tell_progress(backend), name="headers")
    last = None
    try:
        while True:
            await asyncio.sleep(PROGRESS_S)
            problem = _problem(backend)
            if problem is not None and problem != last:
                _log.warn("names_cannot_be_looked_up", problem=problem)
            last = problem
    finally:
        telling.cancel()
        await asyncio.gather(telling, return_exceptions=True)


async def _tell_progress(backend: ElectrumBackend) -> None:
    """Log how far the headers are whenever that changed, until they are complete."""
    ready, last = backend.sync.ready, None
    while True:
        progress = backend.progress()
        if ready.is_set() and progress.is_complete:
            _log.notice("headers_complete", base=progress.base, tip=progress.tip)
            return
        if progress != last and _problem(backend) is None:
            last = progress
            _log.notice(
                "headers",
                lookups="served" if ready.is_set() else "waiting",
                tip=progress.tip,
                target=progress.target,
                base=progress.base,
                wanted_base=progress.wanted_base,
                fetched=progress.fetched,
                unproven=progress.unproven,
            )
        if ready.is_set():
            await asyncio.sleep(PROGRESS_S)
        else:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PROGRESS_S):
                    await ready.wait()
