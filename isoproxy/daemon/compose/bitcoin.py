"""The ways in for Bitcoin peers: the front end's ports, and the proxies.

Theory of operation
    All of them share one registry.  Where v2 is on, nothing starts with libraries that do not
    compute it.  A proxy has an `ListenerContext` of the front end beside it: its isolation rule
    holds for the proxy's own connections as well as for its clients that speak SOCKS,
    which are handed to the front end with nothing read.

    A reload keeps a proxy whose address did not change, with its connections, and gives
    it its new settings; one that is gone ends its connections.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Hashable, Iterator, Mapping

from isoproxy.bitcoin.bip324.transport import self_test
from isoproxy.bitcoin.carry import Carrier, RelayStream
from isoproxy.bitcoin.flows import FlowRegistry
from isoproxy.bitcoin.known_peers import ProvenV2
from isoproxy.bitcoin.proxy import BitcoinProxy
from isoproxy.config import Config, ProxyConfig
from isoproxy.daemon.compose.listeners import place_of, switch_mode
from isoproxy.daemon.settings.bitcoin import (
    carry_settings,
    proxy_carry_settings,
    proxy_listener,
    proxy_settings,
)
from isoproxy.daemon.status.snapshot import BitcoinView, ProxyView
from isoproxy.front.frontend import FrontEnd
from isoproxy.isolation import IsolationKey, Isolator
from isoproxy.namecoin.resolve.answer import Want
from isoproxy.namecoin.value.name import Route
from isoproxy.net.listening import ListeningSocket
from isoproxy.net.target import Target
from isoproxy.observe.log import logger
from isoproxy.tor.dialer import Dialer

_log = logger("bitcoin")


class ProxyListener:
    """One proxy that is open."""

    def __init__(
        self,
        front: FrontEnd,
        carrier: Carrier,
        config: Config,
        proxy: ProxyConfig,
        listening: ListeningSocket,
    ) -> None:
        self._front = front
        self.listening = listening
        settings = proxy_listener(config, proxy)
        self.context = front.context(settings, unix=listening.is_unix)
        self.proxy = BitcoinProxy(
            proxy_settings(config, proxy),
            carrier.sibling(proxy_carry_settings(config.bitcoin, proxy)),
            front.services.isolator,
            resolve=self._resolve,
            socks=self._hand_over,
        )
        serving = self.proxy.serve(listening.socket)
        self._task = front.services.loop.create_task(serving, name="bitcoin proxy")
        self._task.add_done_callback(self._closed)

    def address(self) -> str:
        """Where it listens: `host:port` or `unix:path`."""
        if self.listening.socket.fileno() < 0:
            return str(self.context.settings.endpoint)
        return self.listening.address()

    def configure(self, config: Config, proxy: ProxyConfig) -> None:
        """Follow the configuration, for connections to come."""
        settings = proxy_listener(config, proxy)
        self.context.follow(settings)
        self.proxy.settings = proxy_settings(config, proxy)
        self.proxy.carrier.settings = proxy_carry_settings(config.bitcoin, proxy)

    def view(self, name: str) -> ProxyView:
        """How it stands, under the configuration's `name`."""
        return ProxyView(
            name,
            self.address(),
            self.context.rule.listener.isolate,
            len(self.proxy.connections) + self.context.statistics.open,
            self.proxy.accepted,
            self.proxy.refused.copy(),
        )

    def close(self) -> asyncio.Task[None]:
        """Stop; the task ends with the last connection."""
        self._task.cancel()
        return self._task

    def _closed(self, task: asyncio.Task[None]) -> None:
        self.listening.close()
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.err("internal_error", proxy=self.context.settings.name, error=error)

    async def _resolve(self, target: Target, key: IsolationKey, client: bytes) -> Target:
        if target.is_ip or self.context.rule.top_levels.route(target.host) is not Route.NAMECOIN:
            return target
        assert self._front.settings.names is not None, "who routes names to Namecoin has a resolver"
        return await self._front.settings.names.address_of(target, key, Want.STREAM, client)

    async def _hand_over(self, client: socket.socket) -> None:
        """Make a SOCKS client the front end's."""
        sock = socket.socket(fileno=client.detach())
        sock.setblocking(False)
        peer = None if sock.family == socket.AF_UNIX else sock.getpeername()
        self.context.admit(sock, peer)


class Bitcoin:
    """The Bitcoin side of a daemon: `carrier` for the front end, and the proxies.

    `relay` carries what is not translated.
    Raises OperationError if v2 is on and the libraries do not compute it.
    """

    def __init__(
        self, config: Config, dialer: Dialer, isolator: Isolator, relay: RelayStream
    ) -> None:
        if config.bitcoin.v2 == "on":
            self_test()
        self.relay = relay
        self.registry = FlowRegistry()
        self.proven = ProvenV2()
        isolator.on_new_epoch(self.proven.forget)
        self.carrier = Carrier(dialer, relay, self.registry, self.proven)
        isolator.on_new_epoch(self.carrier.forget)
        self.proxies: dict[str, ProxyListener] = {}
        self._closing: list[asyncio.Task[None]] = []
        self._follow(config)

    @contextlib.contextmanager
    def reserved(self, config: Config) -> Iterator[Mapping[str, ListeningSocket]]:
        """Sockets, by name, for the proxies of `config` that are not open yet.

        Those that are open get their new modes.  Raises OperationError where a socket or a
        mode cannot be had.  An exception within the context undoes it all: nothing has
        changed then.
        """
        with contextlib.ExitStack() as undo:
            sockets = {}
            open_now = self._by_place()
            for proxy in config.bitcoin.proxy:
                settings = proxy_listener(config, proxy)
                listener = open_now.get(place_of(settings))
                if listener is None or listener.listening.lost_its_file:
                    opened = ListeningSocket.open(settings.endpoint, settings.mode)
                    sockets[proxy.name] = undo.enter_context(contextlib.closing(opened))
                else:
                    before = listener.context.settings.mode
                    switch_mode(listener.listening, before, settings.mode, undo)
            yield sockets
            undo.pop_all()

    def apply(
        self, front: FrontEnd, config: Config, sockets: Mapping[str, ListeningSocket]
    ) -> list[ProxyListener]:
        """Follow the configuration; returns the proxies opened, on `reserved` sockets."""
        self._follow(config)
        before, self.proxies, opened = self._by_place(), {}, []
        for proxy in config.bitcoin.proxy:
            settings = proxy_listener(config, proxy)
            if proxy.name in sockets:
                sock = sockets[proxy.name]
                listener = ProxyListener(front, self.carrier, config, proxy, sock)
                opened.append(listener)
            else:
                listener = before.pop(place_of(settings))
                listener.configure(config, proxy)
            self.proxies[proxy.name] = listener
        self._closing = [gone.close() for gone in before.values()]
        return opened

    async def settled(self) -> None:
        """Wait until the addresses of proxies that are gone are free."""
        await asyncio.gather(*self._closing, return_exceptions=True)

    def view(self) -> BitcoinView:
        """What is open, and what has been carried."""
        proxies = [listener.view(name) for name, listener in self.proxies.items()]
        return BitcoinView(proxies, self.registry.sorted_flows(), self.registry.totals())

    async def close(self) -> None:
        """Close all proxies and end their connections."""
        tasks = [listener.close() for listener in self.proxies.values()]
        self.proxies.clear()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _follow(self, config: Config) -> None:
        self.carrier.settings = carry_settings(config.bitcoin)

    def _by_place(self) -> dict[Hashable, ProxyListener]:
        return {place_of(listener.context.settings): listener for listener in self.proxies.values()}
