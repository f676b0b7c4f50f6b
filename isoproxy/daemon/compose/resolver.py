"""One resolver without a daemon around it: for a command, and for the plugin as a program.

Theory of operation
    It is composed of the daemon's own parts.  The light client needs Tor: in managed mode a
    tor of our own is started, in system mode the one at `tor.socks` is used.  Electrum-NMC
    and Namecoin Core are asked on this machine; then no tor is needed, and no connection
    of our own leaves it.

Invariants
    What was opened is closed in the end, in reverse order.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final, TextIO

from isoproxy.config import Config, private_directory
from isoproxy.daemon.compose.names import NO_NAMES, DaemonNames
from isoproxy.daemon.compose.upstream import Upstream
from isoproxy.daemon.settings.front import dialer_settings
from isoproxy.errors import OperationError
from isoproxy.isolation import Isolator
from isoproxy.namecoin.resolve.cache import PER_KEY
from isoproxy.namecoin.resolve.resolver import Resolver
from isoproxy.net.reactor import Handler, Reactor
from isoproxy.observe.log import logger
from isoproxy.observe.metrics import Metrics
from isoproxy.tor.dialer import Dialer
from isoproxy.tor.managed.progress import BootstrapProgress

TOR_S: Final = 180.0
"""Seconds that Tor may take to answer."""

_log: Final = logger("names")


@contextlib.asynccontextmanager
async def open_resolver(
    config: Config, state: Path, progress: TextIO | None, *, per_key: int = PER_KEY
) -> AsyncIterator[tuple[Resolver, Isolator]]:
    """The resolver of `config`, its files below `state`, and the maker of keys for it.

    Waits for Tor and for block headers, and tells `progress` of it; with None it waits for
    neither, and each look-up does for itself.  An identity's caches have `per_key` entries.
    Raises ConfigError, and OperationError if Tor does not answer.
    """
    if config.names.backend == "none":
        raise OperationError(NO_NAMES)
    isolator = Isolator()
    async with contextlib.AsyncExitStack() as stack:
        reactor = Reactor(asyncio.get_running_loop(), _internal_error)
        stack.callback(reactor.close)
        upstream = Upstream(config.tor, state / "tor")
        dialer = Dialer(reactor, isolator, dialer_settings(config, upstream.socks))
        stack.callback(dialer.close)

        def follow() -> None:
            dialer.move(upstream.socks)

        upstream.on_change(follow)
        if config.names.backend == "electrum":
            private_directory(state)
            stack.push_async_callback(upstream.stop)
            await _start_tor(upstream, progress)
        names = DaemonNames(config.names, dialer, isolator, Metrics(), state, per_key=per_key)
        stack.push_async_callback(names.close)
        names.tor_answers()
        if progress is not None:
            await _await_headers(names, progress)
        yield names.service.resolver_of(None), isolator


async def _start_tor(upstream: Upstream, progress: TextIO | None) -> None:
    if progress is None:
        await upstream.start()
        return
    upstream.on_progress(BootstrapProgress(progress).update)
    await upstream.start()
    deadline = time.monotonic() + TOR_S
    while not await upstream.answers():
        if time.monotonic() > deadline:
            raise OperationError(
                f"Tor does not answer ({upstream.describe()}); start it, or set tor.socks"
            )
        await asyncio.sleep(0.2)


async def _await_headers(names: DaemonNames, progress: TextIO) -> None:
    """Wait for block headers, as long as servers send some."""
    backend = names.electrum
    if backend is None:
        return
    last, deadline = -1, 0.0
    while not backend.sync.ready.is_set():
        now, obstacle = time.monotonic(), backend.obstacle()
        tip, target = backend.progress().fetched, backend.progress().target
        if tip != last:
            last, deadline = tip, now + backend.settings.ready_wait
            if target > tip:
                print(f"headers: {tip} of {target}", file=progress, flush=True)
        elif now > deadline or (obstacle is not None and obstacle.lasting):
            return  # the look-up will say why
        await asyncio.sleep(0.5)


def _internal_error(handler: Handler, error: Exception) -> None:
    _log.err("internal_error", error=error)
