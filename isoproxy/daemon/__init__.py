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
import os
import signal
import time
from collections.abc import Callable, Iterable
from typing import Any, TextIO

from isoproxy.admin.server import AdminServer
from isoproxy.bitcoin.bip324.transport import self_test
from isoproxy.bitcoin.known_peers import PeerMemory
from isoproxy.config import (
    Config,
    Loaded,
    NamesConfig,
    admin_address,
    changed_keys,
    check_reload,
    private_directory,
    state_directory,
)
from isoproxy.daemon.announce import announce, announce_listener, announce_proxy
from isoproxy.daemon.compose.dashboard import open_dashboard
from isoproxy.daemon.compose.dns_and_onions import DnsAndOnions
from isoproxy.daemon.compose.listeners import Kind, ListeningSockets, Named, wanted_sockets
from isoproxy.daemon.compose.names import CurrentNames, DaemonNames
from isoproxy.daemon.compose.onions import PublishedService
from isoproxy.daemon.compose.streams import StreamParts
from isoproxy.daemon.compose.upstream import Upstream
from isoproxy.daemon.keeping import KeptHistory
from isoproxy.daemon.reloading import Reloaded
from isoproxy.daemon.requests import answers
from isoproxy.daemon.settings.log import configure_log
from isoproxy.daemon.settings.streams import lookup_dialer, stream_processes
from isoproxy.daemon.status.metrics import collect
from isoproxy.daemon.status.snapshot import Snapshot, Traffic, own_report
from isoproxy.daemon.tor_health import TorHealth
from isoproxy.daemon.unless import done_unless
from isoproxy.errors import IsoproxyError, OperationError
from isoproxy.exec.handover import exec_address
from isoproxy.exec.server import ExecServer
from isoproxy.front.statistics import Counters
from isoproxy.isolation import Isolator
from isoproxy.namecoin.resolve.resolver import Resolver
from isoproxy.net.coalesced import Coalesced
from isoproxy.net.reactor import Reactor
from isoproxy.net.resolver_guard import ResolverGuard
from isoproxy.observe.log import logger
from isoproxy.observe.metrics import Metrics
from isoproxy.observe.notify import Notifier, inherited_sockets
from isoproxy.tor.dialer import Dialer
from isoproxy.tor.managed.progress import BootstrapProgress
from isoproxy.workers.answering import MainServices
from isoproxy.workers.bitcoin_report import MESSAGE_TYPES
from isoproxy.workers.messages import Settings
from isoproxy.workers.report import merged
from isoproxy.workers.supervisor import Workers

_log = logger("daemon")


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
        self._reloads = Coalesced(self._reload)
        self._dashboard: str | None = None
        self._counters = Counters()
        loop = asyncio.get_running_loop()
        config = loaded.config
        self.isolator = Isolator(verbatim=config.tor.credentials == "verbatim")
        self.metrics = Metrics(
            (listener.name for listener in config.listener), sorted(MESSAGE_TYPES)
        )
        self.history = KeptHistory(self.snapshot, self.isolator, self.metrics)
        self.upstream = Upstream(config.tor, private_directory(state_directory()) / "tor")
        self._tor = TorHealth(self.upstream, self._tor_changed)
        self.reactor = Reactor(loop, self._defect)
        self.dialer = Dialer(
            self.reactor, self.isolator, lookup_dialer(config, self.upstream.socks)
        )
        self.upstream.on_change(self._follow_tor)
        self.names = CurrentNames(config.names, self._build_names)
        self.sockets = ListeningSockets()
        if config.bitcoin.v2 == "on":
            self_test()
        peers = PeerMemory(time.monotonic)
        self.isolator.on_new_epoch(peers.forget)
        self.isolator.on_renewal(lambda: peers.keep(self.isolator.is_current))
        self.workers = Workers(
            self.reactor,
            MainServices(self.isolator, lambda: self.names.service, peers),
            stream_processes(config),
            self._stream_settings,
            lambda settings: self.streams.sockets_of(settings),
        )
        self.dns_and_onions = DnsAndOnions(
            config, self.isolator, self.upstream.control, self.names.resolver_of, out
        )
        self.streams = StreamParts(self.sockets, self.dns_and_onions, self.workers)
        programs = self.streams.programs
        self.admin = AdminServer(admin_address(config))
        self.exec = ExecServer(
            exec_address(self.admin.path), programs.begin, lambda: programs.hidden(self.config)
        )
        for request, answer in answers(self).items():
            self.admin.register(request, answer)

    async def run(self) -> None:
        """Serve until `stop`; raises IsoproxyError when the start fails."""
        async with self._resources:
            self._resources.callback(self.reactor.close)
            self._resources.callback(self.dialer.close)
            self._resources.push_async_callback(self.names.close)
            self._resources.push_async_callback(self._cancel_tasks)
            self._handle_signals()
            if await done_unless(self._stop, self._start()):
                self._ready.set()
                await self._stop.wait()
            self._notifier.stopping()
            seconds = self.config.limits.drain_timeout_s
            await self.workers.leave(seconds)
            self.sockets.close()
            _log.notice("stopping", flows=len((await self.workers.report()).flows))
            await self.workers.drain(seconds)

    def stop(self) -> None:
        """Drain and end; a second call does not wait for the streams.  Called by signals."""
        if self._stop.is_set():
            _log.notice("stopping_at_once")
            self.workers.kill()
        self._stop.set()

    async def reload(self) -> Reloaded:
        """Apply the configuration as it is now; says which keys changed.

        One reload waits for the one before it, the stream processes' answers included: an
        address that one gives up is free before the next one may want it.
        Raises IsoproxyError, and keeps the old configuration, when that is not possible.
        """
        return await self._reloads.run()

    async def _reload(self) -> Reloaded:
        if self._stop.is_set() or not self._ready.is_set():
            _log.warn("reload_refused", problem="it is starting or stopping")
            raise OperationError("isoproxy is starting or stopping; reload it while it serves")
        self._notifier.reloading()
        try:
            loaded = self._read_again()
            changed = changed_keys(self.config, loaded.config)
            await self._switch(loaded)
        except IsoproxyError as error:
            for problem in str(error).splitlines():
                _log.err("reload_refused", problem=problem)
            raise
        finally:
            self._notifier.ready(self._headline())
        reloaded = Reloaded.of(changed)
        _log.notice("reloaded", changed=changed, after_a_restart=reloaded.after_a_restart)
        return reloaded

    async def _switch(self, loaded: Loaded) -> None:
        """Serve by another configuration; raises IsoproxyError, and then nothing has changed."""
        check_reload(loaded.config, verbatim=self.isolator.verbatim)
        fresh = loaded.config.names != self.config.names
        names = self.names.prepare(loaded.config.names) if fresh else None
        try:
            self._apply(loaded)
        except IsoproxyError:
            if names is not None:
                await names.close()
            raise
        if fresh:
            await self.names.switch(names)
            if self._tor.answers:
                self.names.tor_answers()
        self.dns_and_onions.follow(self.config)
        await self.workers.settled()

    async def _start(self) -> None:
        self._log_warnings()
        self.streams.intermediates.issuer = self.streams.intermediates.prepare(self.config)
        await self.admin.open()
        self._resources.push_async_callback(self.admin.close)
        self.upstream.on_progress(self._progress.update)
        self.upstream.control.on_newnym(self.new_identity)
        self._resources.push_async_callback(self.upstream.stop)
        await self.upstream.start()
        self._resources.callback(self.sockets.close)
        self._resources.push_async_callback(self.workers.drain, 0.0)
        opened = self.sockets.open(wanted_sockets(self.config), inherited_sockets())
        self._resources.callback(self.streams.transparent.close)
        self.streams.transparent.open(self.config, self._out)
        self.workers.start()
        await self.workers.serving.wait()
        await self.exec.open()
        self._resources.push_async_callback(self.exec.close)
        self._announce(opened)
        self._tasks.add(asyncio.create_task(self._tor.watch(), name="tor's health"))
        renewing = self.streams.intermediates.renew(self.workers.configure)
        self._tasks.add(asyncio.create_task(renewing, name="intermediates"))
        self._resources.push_async_callback(self.dns_and_onions.close)
        await self.dns_and_onions.start()
        self._open_dashboard()
        self._notifier.start_watchdog(asyncio.get_running_loop())
        self._resources.callback(self._notifier.close)
        self._notifier.ready(self._headline())

    def _open_dashboard(self) -> None:
        if (opened := open_dashboard(self.config.observe, self)) is not None:
            dashboard, self._dashboard = opened
            self._tasks.add(asyncio.create_task(self.history.run(), name="history"))
            self._resources.push_async_callback(dashboard.close)
            announce(f"listening dashboard {self._dashboard}", self._out)
            _log.notice("listening", listener="dashboard", address=self._dashboard)

    def _announce(self, opened: Iterable[Named]) -> None:
        for kind, name in opened:
            its = self.sockets.of(kind)[name]
            say = announce_listener if kind is Kind.LISTENER else announce_proxy
            say(name, its.address(), its.settings.rule.listener.isolate, self._out)

    def _apply(self, loaded: Loaded) -> None:
        issuer = self.streams.intermediates.prepare(loaded.config)
        self._announce(self.sockets.switch(wanted_sockets(loaded.config)))
        self.streams.intermediates.issuer = issuer
        config = self.config = loaded.config
        self._warnings = loaded.warnings
        self.dialer.follow(lookup_dialer(config, self.upstream.socks))
        configure_log(config)
        self._log_warnings()
        self.workers.configure()

    def _stream_settings(self, index: int) -> Settings:
        return self.streams.settings(self.config, self.upstream.socks, index, self.workers.count)

    def _build_names(self, config: NamesConfig) -> DaemonNames:
        return DaemonNames(config, self.dialer, self.isolator, self.metrics, state_directory())

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

    def _follow_tor(self) -> None:
        if self.dialer.move(self.upstream.socks):  # that of an Arti moves at each start
            self.workers.configure()

    def _tor_changed(self) -> None:
        self._notifier.status(self._headline())
        if self._tor.answers:
            self.names.tor_answers()

    async def _cancel_tasks(self) -> None:
        await self._reloads.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def new_identity(self) -> None:
        """Change every key at once."""
        self.isolator.new_epoch()
        _log.notice("new_identity", epoch=self.isolator.epoch)

    async def new_circuits(self) -> int:
        """A new identity, in all processes; returns its epoch.

        Our epoch changes every derived credential; verbatim ones only Tor can renew.
        Raises OperationError where it does not.
        """
        if self.isolator.verbatim:
            await self.upstream.control.signal_newnym()
        self.new_identity()
        await self.workers.settled()
        return self.isolator.epoch

    async def renew(self, labels: Iterable[str]) -> None:
        """New keys for the identities with these labels alone, in all processes.

        Raises OperationError for what is no label, or no current one.
        """
        for label in labels:
            self.isolator.renew(label)
        _log.notice("identity_renewed")
        await self.workers.settled()

    def resolver(self) -> Resolver:
        """What resolves for this machine's own commands; raises NamingError without one."""
        return self.names.resolver_of(None)

    def published(self) -> list[PublishedService]:
        """The onion services."""
        return self.dns_and_onions.onions

    def _defect(self, handler: Any, error: Exception) -> None:
        self._counters.defects += 1
        _log.err("internal_error", error=error)

    def _headline(self) -> str:
        """One line for the service manager."""
        tor = self.upstream.describe()
        if self._tor.answers:
            return f"{len(self.sockets.of(Kind.LISTENER))} listeners, tor: {tor}"
        return f"degraded: tor does not answer yet ({tor})"

    async def snapshot(self, *, circuits: bool = False) -> Snapshot:
        """What is going on now; Tor is asked for its `circuits` only if they are wanted."""
        traffic = await self._traffic()
        carried = traffic.report.flows or traffic.report.bitcoin.flows
        return Snapshot(
            config=self.config,
            pid=os.getpid(),
            uptime_s=time.monotonic() - self._began,
            tasks=len(asyncio.all_tasks()),
            epoch=self.isolator.epoch,
            dashboard=self._dashboard,
            tor=self.upstream.view(answers=self._tor.answers),
            names=self.names.status(),
            cached=self.names.cached,
            lookups=self.names.lookups,
            traffic=traffic,
            circuits=await self.upstream.circuits() if circuits and carried else (),
            form=self.dialer.form,
        )

    async def _traffic(self) -> Traffic:
        """What is known of streams, from all processes that carry some."""
        ours = own_report(self._counters, self.dialer.circuits, self.guard.refused)
        return Traffic(
            listeners=self.streams.listener_views(),
            proxies=self.sockets.views(Kind.PROXY),
            report=merged([ours, await self.workers.report()]),
            workers=self.workers.processes(),
        )

    async def exposition(self) -> str:
        """The metrics as of now, in Prometheus' text form."""
        collect(self.metrics, await self.snapshot())
        return self.metrics.exposition()
