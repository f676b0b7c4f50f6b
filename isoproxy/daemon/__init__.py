"""The composition root: builds everything from the configuration, and takes it down.

Theory of operation
    `Daemon.run` starts Tor (or the connection to it), opens the listeners, tells the
    service manager, and waits for the order to stop.  SIGHUP builds a new configuration
    and applies it: listeners whose address did not change stay open with their flows.
    A configuration that cannot be read or whose listeners cannot be opened changes
    nothing, and the log says why.  SIGTERM stops accepting, waits a bounded time for the
    flows, and closes.

Invariants
    Everything that was started is stopped in reverse order, whatever fails on the way.
    What the log says of a changed configuration are keys, never values.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, TextIO

from isoproxy.admin import AdminServer
from isoproxy.config import (
    Config,
    Loaded,
    admin_address,
    changed_keys,
    check_reload,
    private_directory,
    state_directory,
)
from isoproxy.daemon.announce import announce
from isoproxy.daemon.compose.bitcoin import Bitcoin, ProxyListener
from isoproxy.daemon.compose.dashboard import MAX_FLOWS, open_dashboard
from isoproxy.daemon.compose.listeners import open_listeners, switch_listeners
from isoproxy.daemon.compose.names import DaemonNames
from isoproxy.daemon.compose.services import Services
from isoproxy.daemon.compose.upstream import Upstream
from isoproxy.daemon.requests import answers
from isoproxy.daemon.settings.front import (
    describe_listener,
    dialer_settings,
    flag_names,
    front_limits,
    listener_settings,
    processes_of,
    worker_settings,
)
from isoproxy.daemon.status.bitcoin import (
    MESSAGE_TYPES,
    collect_bitcoin,
)
from isoproxy.daemon.status.snapshot import collect, current_status
from isoproxy.errors import ErrorKind, IsoproxyError, NamingError, OperationError
from isoproxy.front.frontend import FrontEnd
from isoproxy.front.listener import Listener
from isoproxy.isolation import Isolator
from isoproxy.namecoin.resolve.resolver import Resolver
from isoproxy.net.reactor import Reactor
from isoproxy.net.resolver_guard import ResolverGuard
from isoproxy.observe.log import configure, logger
from isoproxy.observe.metrics import Metrics
from isoproxy.observe.notify import Notifier, inherited_sockets
from isoproxy.tor.dialer import Dialer
from isoproxy.tor.managed.progress import BootstrapProgress
from isoproxy.workers.messages import Settings, rest_of
from isoproxy.workers.supervisor import Workers

HEALTH_S: Final = 10.0
_LIVE: Final = ("listener", "limits", "names", "bitcoin.", "observe.log_",
                "observe.safe_logging")  # fmt: skip
"""Beginnings of the keys that a reload applies; others wait for a restart."""
_SETTLED: Final = frozenset({"limits.workers", "limits.max_pending_circuits"})
"""Keys among them that wait for a restart all the same."""

_log = logger("daemon")


@dataclass(frozen=True, slots=True)
class Reloaded:
    """Keys whose values a reload found changed, and those of them that wait for a restart."""

    changed: tuple[str, ...]
    after_a_restart: tuple[str, ...]


class Daemon:
    """One running isoproxy.

    `reload` reads the configuration again; `guard` stands before the system's resolver;
    `out` gets a line per listener, `progress` the bootstrap of Tor.
    """

    def __init__(
        self,
        loaded: Loaded,
        reload: Callable[[], Loaded],
        *,
        guard: ResolverGuard,
        out: TextIO,
        progress: TextIO,
    ) -> None:
        self.config: Config = loaded.config
        self._warnings = loaded.warnings
        self._read_again = reload
        self.guard = guard
        self._out = out
        self._progress = BootstrapProgress(progress)
        self._notifier = Notifier()
        self._stop = asyncio.Event()
        self._ready = asyncio.Event()
        self._began = time.monotonic()
        self._resources = contextlib.AsyncExitStack()
        self._tasks: set[asyncio.Task[None]] = set()
        self._tor_answers: bool | None = None
        self.dashboard_place: str | None = None
        """Where the dashboard is, once it is open: a URL, or `unix:` and a path."""
        self._tor_changed = asyncio.Event()
        loop = asyncio.get_running_loop()
        config = loaded.config
        self.isolator = Isolator(verbatim=config.tor.credentials == "verbatim")
        self.metrics = Metrics((listener.name for listener in config.listener), MESSAGE_TYPES)
        self.upstream = Upstream(config.tor, private_directory(state_directory()) / "tor")
        self.reactor = Reactor(loop, self._defect)
        self.processes = processes_of(config)
        self.dialer = Dialer(
            self.reactor,
            self.isolator,
            dialer_settings(config, self.upstream.socks, self.processes),
        )
        self.names = self._new_names(config)
        self.bitcoin = Bitcoin(config, self.dialer, self.isolator)
        self.front = FrontEnd(
            self.reactor,
            self.isolator,
            self.dialer,
            limits=rest_of(front_limits(config), self.processes),
            names=None if self.names is None else self.names.service,
            bitcoin=self.bitcoin.p2p,
            processes=self.processes,
        )
        self.workers = Workers(self.front, self.processes - 1, self._worker_settings)
        self.services = Services(
            config, self.isolator, self.upstream.control, self.resolver_of, out
        )
        self.admin = AdminServer(admin_address(config))
        for request, answer in answers(self).items():
            self.admin.register(request, answer)

    async def run(self) -> None:
        """Serve until `stop`; raises IsoproxyError when the start fails."""
        async with self._resources:
            self._resources.callback(self.reactor.close)
            self._resources.callback(self.dialer.close)
            self._resources.push_async_callback(self._close_names)
            self._resources.push_async_callback(self._cancel_tasks)
            self._handle_signals()
            if await self._start_unless_stopped():
                self._ready.set()
                await self._stop.wait()
            self._notifier.stopping()
            seconds = self.config.limits.drain_timeout_s
            await self.workers.leave(seconds)
            self.front.stop_listening()
            others = await self.workers.report()
            _log.notice("stopping", flows=len(self.front.connections) + len(others.flows))
            await asyncio.gather(self.workers.drain(seconds), self.front.drain(seconds))

    def stop(self) -> None:
        """Drain and end; called by signals."""
        self._stop.set()

    async def reload(self) -> Reloaded:
        """Apply the configuration as it is now; says which keys changed.

        Raises IsoproxyError, and keeps the old configuration, when that is not possible.
        """
        if self._stop.is_set() or not self._ready.is_set():
            _log.warn("reload_refused", problem="it is starting or stopping")
            raise OperationError("isoproxy is starting or stopping; reload it while it serves")
        self._notifier.reloading()
        try:
            loaded = self._read_again()
            check_reload(loaded.config, verbatim=self.isolator.verbatim)
            changed = changed_keys(self.config, loaded.config)
            fresh = loaded.config.names != self.config.names
            names = self._new_names(loaded.config) if fresh else self.names
            try:
                self._apply(loaded)
            except IsoproxyError:
                if fresh and names is not None:
                    await names.close()
                raise
            if fresh:
                await self._switch_names(names)
            self.services.follow(self.config)
            await self.workers.settled()
        except IsoproxyError as error:
            for problem in str(error).splitlines():
                _log.err("reload_refused", problem=problem)
            raise
        finally:
            self._notifier.ready(self._headline())
        waiting = tuple(key for key in changed if key in _SETTLED or not key.startswith(_LIVE))
        _log.notice("reloaded", changed=changed, after_a_restart=waiting)
        return Reloaded(changed, waiting)

    async def _start_unless_stopped(self) -> bool:
        """Start; False if the order to stop came first.  Raises what the start raises."""
        starting = asyncio.create_task(self._start(), name="start")
        stopping = asyncio.create_task(self._stop.wait(), name="stop")
        await asyncio.wait([starting, stopping], return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if starting.done():
            starting.result()
            return True
        starting.cancel()
        await asyncio.wait([starting])
        return False

    async def _start(self) -> None:
        self._log_warnings()
        await self.admin.open()
        self._resources.push_async_callback(self.admin.close)
        self.upstream.on_progress(self._progress.update)
        self.upstream.control.on_newnym(self.new_identity)
        self.upstream.on_change(self._tor_changed.set)
        self._resources.push_async_callback(self.upstream.stop)
        await self.upstream.start()
        self._resources.push_async_callback(self.front.drain, 0.0)
        self._resources.push_async_callback(self.workers.drain, 0.0)
        self._resources.push_async_callback(self.bitcoin.close)
        wanted = listener_settings(self.config)
        for listener in open_listeners(self.front, wanted, inherited_sockets()):
            self._announce(listener)
        with self.bitcoin.reserved(self.config) as sockets:
            for door in self.bitcoin.apply(self.front, self.config, sockets):
                self._announce_proxy(door)
        self.workers.start()
        self._tasks.add(asyncio.create_task(self._watch_tor(), name="tor's health"))
        self._resources.push_async_callback(self.services.close)
        await self.services.start()
        await self._open_dashboard()
        self._notifier.start_watchdog(asyncio.get_running_loop())
        self._resources.callback(self._notifier.close)
        self._notifier.ready(self._headline())

    async def _open_dashboard(self) -> None:
        observe = self.config.observe
        status = partial(current_status, self, max_flows=MAX_FLOWS)
        opened = await open_dashboard(observe, status, self.exposition)
        if opened is not None:
            dashboard, self.dashboard_place = opened
            self._resources.push_async_callback(dashboard.close)
            announce(f"listening dashboard {self.dashboard_place}", self._out)
            _log.notice("listening", listener="dashboard", address=self.dashboard_place)

    def _announce(self, listener: Listener) -> None:
        isolate = listener.rule.listener.isolate
        announce(describe_listener(listener.address(), isolate), self._out)
        _log.notice(
            "listening",
            listener=listener.settings.name,
            address=listener.address(),
            isolate=flag_names(isolate),
        )

    def _announce_proxy(self, door: ProxyListener) -> None:
        isolate = door.context.rule.listener.isolate
        announce(describe_listener(door.address(), isolate, "bitcoin"), self._out)
        _log.notice(
            "listening",
            proxy=door.context.settings.name,
            address=door.address(),
            isolate=flag_names(isolate),
        )

    def _apply(self, loaded: Loaded) -> None:
        with self.bitcoin.reserved(loaded.config) as sockets:
            listeners = switch_listeners(self.front, listener_settings(loaded.config))
        for listener in listeners:
            self._announce(listener)
        for door in self.bitcoin.apply(self.front, loaded.config, sockets):
            self._announce_proxy(door)
        config = self.config = loaded.config
        self._warnings = loaded.warnings
        self.front.settings.limits = rest_of(front_limits(config), self.processes)
        fresh = dialer_settings(config, self.upstream.socks, self.processes)
        pending = self.dialer.settings.max_pending_circuits
        self.dialer.settings = replace(fresh, max_pending_circuits=pending)
        configure_log(config)
        self._log_warnings()
        self.workers.configure()

    def _worker_settings(self) -> Settings:
        return worker_settings(
            self.config, self.dialer.settings, self.front.services.bitcoin_ports, self.processes
        )

    def _new_names(self, config: Config) -> DaemonNames | None:
        """The name service of a configuration; None where there is none."""
        if config.names.backend == "none":
            return None
        return DaemonNames(
            config.names, self.dialer, self.isolator, self.metrics, state_directory()
        )

    async def _switch_names(self, names: DaemonNames | None) -> None:
        """Resolve by `names` from now on; look-ups under way in the old service fail."""
        old, self.names = self.names, names
        self.front.settings.names = None if names is None else names.service
        if old is not None:
            await old.close()
        if names is not None and names is self.names and self._tor_answers:
            names.tor_answers()

    def resolver_of(self, client: bytes | None) -> Resolver:
        """The resolver for a client; raises NamingError if there is none."""
        if self.names is None:
            raise NamingError(kind=ErrorKind.NAME_NEVER_SENT_TO_TOR)
        return self.names.service.resolver_of(client)

    async def _close_names(self) -> None:
        if self.names is not None:
            await self.names.close()

    def _log_warnings(self) -> None:
        for warning in self._warnings:
            _log.warn("configuration", warning=warning)

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number, action in (
            (signal.SIGTERM, self.stop),
            (signal.SIGINT, self.stop),
            (signal.SIGHUP, self._on_hangup),
        ):
            loop.add_signal_handler(number, action)
            self._resources.callback(loop.remove_signal_handler, number)

    def _on_hangup(self) -> None:
        async def reload() -> None:
            await self._ready.wait()
            with contextlib.suppress(IsoproxyError):  # the log said it
                await self.reload()

        task = asyncio.create_task(reload(), name="reload")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _watch_tor(self) -> None:
        """Notice when Tor comes and goes; tell the log and the service manager.

        The control port's end is heard at once; without one, the SocksPort is tried now
        and then.
        """
        while True:
            self._tor_changed.clear()
            answers = await self.upstream.answers()
            if answers != self._tor_answers:
                self._tor_answers = answers
                (_log.notice if answers else _log.warn)(
                    "tor_answers" if answers else "tor_does_not_answer",
                    state=self.upstream.describe(),
                )
                self._notifier.status(self._headline())
                if answers and self.names is not None:
                    self.names.tor_answers()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HEALTH_S if answers else HEALTH_S / 10):
                    await self._tor_changed.wait()

    async def _cancel_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def tor_answers(self) -> bool:
        """Whether Tor's SocksPort answered last time."""
        return bool(self._tor_answers)

    @property
    def uptime_s(self) -> float:
        return time.monotonic() - self._began

    def new_identity(self) -> None:
        """Change every key at once."""
        self.isolator.new_epoch()
        _log.notice("new_identity", epoch=self.isolator.epoch)

    def _defect(self, handler: Any, error: Exception) -> None:
        self.front.internal_error(handler, error)

    def _headline(self) -> str:
        """One line for the service manager."""
        tor = self.upstream.describe()
        if self._tor_answers:
            return f"{len(self.front.listeners)} listeners, tor: {tor}"
        return f"degraded: tor does not answer yet ({tor})"

    async def exposition(self) -> str:
        """The metrics as of now, in Prometheus' text form."""
        collect(
            self.metrics,
            self.front,
            self.upstream,
            tor_answers=bool(self._tor_answers),
            workers=await self.workers.report(),
        )
        self.metrics.name_cache_entries.value = self.names.service.cached if self.names else 0
        collect_bitcoin(self.metrics, self.bitcoin.registry.totals())
        return self.metrics.exposition()


def configure_log(config: Config) -> None:
    """Set up the log as the configuration wants it."""
    observe = config.observe
    configure(level=observe.log_level, form=observe.log_format, safe=observe.safe_logging)
