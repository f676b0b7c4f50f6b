"""`isoproxy resolve`, in a running isoproxy or alone, under an isolation key of its own."""

from __future__ import annotations

import asyncio
import contextlib
import io
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Final, TextIO, TypedDict

from isoproxy.admin import Answer
from isoproxy.config import Config, private_directory
from isoproxy.daemon.compose.names import NO_NAMES, DaemonNames
from isoproxy.daemon.compose.upstream import Upstream
from isoproxy.daemon.settings.front import dialer_settings
from isoproxy.errors import OperationError
from isoproxy.isolation import (
    ClientProtocol,
    Isolate,
    IsolationKey,
    IsolationTuple,
    Isolator,
    ListenerRule,
    own_group,
)
from isoproxy.namecoin.resolve.command import resolve_command
from isoproxy.namecoin.resolve.resolver import Resolver
from isoproxy.net.reactor import Handler, Reactor
from isoproxy.observe.log import logger
from isoproxy.observe.metrics import Metrics
from isoproxy.tor.dialer import Dialer
from isoproxy.tor.managed.progress import BootstrapProgress

TOR_S: Final = 180.0
_RULE: Final = ListenerRule(own_group("isoproxy resolve"), Isolate.SOCKS_AUTH)

_log = logger("names")


class Questions(TypedDict):
    """What `isoproxy resolve` asks; `isolation` None is an identity, too."""

    name: str
    isolation: str | None
    as_json: bool
    records: bool


def questions_of(request: Mapping[str, Any]) -> Questions:
    """The questions in a request to the admin socket.  Raises OperationError."""
    name, isolation = request.get("name"), request.get("isolation")
    if not isinstance(name, str) or not (isolation is None or isinstance(isolation, str)):
        raise OperationError("name and isolation must be text")
    return Questions(
        name=name,
        isolation=isolation,
        as_json=bool(request.get("as_json")),
        records=bool(request.get("records")),
    )


def command_key(isolator: Isolator, isolation: str | None) -> IsolationKey:
    """The key of a command's look-ups: one for each isolation ID, shared with no listener."""
    user = None if isolation is None else isolation.encode("utf-8", "surrogateescape")
    return isolator.key_for(_RULE, IsolationTuple(None, ClientProtocol.COMMAND, username=user))


async def resolve_for(
    resolver: Resolver,
    isolator: Isolator,
    *,
    name: str,
    isolation: str | None,
    as_json: bool,
    records: bool,
) -> Answer:
    """What the command is to print, `out` and `err`, and its exit `code`."""
    out, err = io.StringIO(), io.StringIO()
    key = command_key(isolator, isolation)
    code = await resolve_command(
        resolver, name, key, as_json=as_json, records=records, out=out, err=err
    )
    return {"code": code, "out": out.getvalue(), "err": err.getvalue()}


@contextlib.asynccontextmanager
async def alone(
    config: Config, state: Path, progress: TextIO
) -> AsyncIterator[tuple[Resolver, Isolator]]:
    """A resolver without a running isoproxy, with a tor of our own in managed mode.

    `progress` is told what is waited for.  Raises ConfigError, and OperationError if Tor
    does not answer.
    """
    if config.names.backend == "none":
        raise OperationError(NO_NAMES)

    def fail(handler: Handler, error: Exception) -> None:
        _log.err("defect", error=error)

    isolator = Isolator()
    async with contextlib.AsyncExitStack() as stack:
        reactor = Reactor(asyncio.get_running_loop(), fail)
        stack.callback(reactor.close)
        upstream = Upstream(config.tor, private_directory(state) / "tor")
        upstream.on_progress(BootstrapProgress(progress).update)
        dialer = Dialer(reactor, isolator, dialer_settings(config, upstream.socks))
        stack.callback(dialer.close)
        stack.push_async_callback(upstream.stop)
        await upstream.start()
        await _await_tor(upstream)
        names = DaemonNames(config.names, dialer, isolator, Metrics(), state)
        stack.push_async_callback(names.close)
        names.tor_answers()
        await _await_headers(names, progress)
        yield names.service.resolver_of(None), isolator


async def _await_tor(upstream: Upstream) -> None:
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
        now, tip = time.monotonic(), backend.chain.tip_height
        if tip != last:
            last, deadline = tip, now + backend.settings.ready_wait
            print(f"headers: {tip} of {backend.progress().target}", file=progress, flush=True)
        elif now > deadline:
            return  # the look-up will say that no server can be reached
        await asyncio.sleep(0.5)
