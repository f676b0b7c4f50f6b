"""The Bitcoin side of a stream process: the front end's ports, proxies, peers that come in.

Theory of operation
    All of them share one registry of flows, and ask the main process what peers
    have spoken.  A proxy has a `ListenerContext` of the front end beside it: its isolation rule
    holds for the proxy's own connections as well as for its clients that speak SOCKS,
    which are handed to the front end with nothing read.

    A proxy whose place did not change keeps its connections when settings change, and is
    given the new ones; one that is gone ends its connections.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Hashable, Iterator, Sequence

from isoproxy.bitcoin.carry import Carrier, RelayStream
from isoproxy.bitcoin.flows import FlowEnd, FlowRegistry
from isoproxy.bitcoin.inbound import Inbound, InboundSettings
from isoproxy.bitcoin.proxy import BitcoinProxy
from isoproxy.front.frontend import FrontEnd
from isoproxy.isolation import IsolationKey
from isoproxy.namecoin.resolve.answer import Want
from isoproxy.namecoin.value.name import Route
from isoproxy.net.target import Target
from isoproxy.observe.log import logger
from isoproxy.workers.bitcoin_report import BitcoinReport, PeerFlowView, ProxyCounts, view_of
from isoproxy.workers.messages import BitcoinSettings, ProxyPlan
from isoproxy.workers.remote import MainProcess

_log = logger("bitcoin")


def log_end(end: FlowEnd, inbound: bool) -> None:
    """Tell the log of a flow that ended, in words of ours alone."""
    _log.info("bitcoin_flow_ended", inbound=inbound, **end._asdict())


class ProxyListener:
    """One proxy that is open; it owns its listening socket."""

    def __init__(
        self,
        front: FrontEnd,
        names: MainProcess,
        carrier: Carrier,
        plan: ProxyPlan,
        listener: socket.socket,
    ) -> None:
        self._names = names
        self._listener = listener
        listener.setblocking(False)
        unix = listener.family == socket.AF_UNIX
        self.context = front.context(plan.listener, unix=unix)
        self.proxy = BitcoinProxy(
            plan.proxy,
            carrier.sibling(plan.carrying),
            front.isolator,
            resolve=self._resolve,
            socks=self._admit,
        )
        serving = self.proxy.serve(listener)
        self.task = front.loop.create_task(serving, name="bitcoin proxy")
        self.task.add_done_callback(self._closed)

    def configure(self, plan: ProxyPlan) -> None:
        """Follow other settings, for connections to come."""
        self.context.follow(plan.listener)
        self.proxy.settings = plan.proxy
        self.proxy.carrier.settings = plan.carrying

    def counts(self) -> ProxyCounts:
        """How many clients it has, and had."""
        proxy = self.proxy
        count = len(proxy.connections) + self.context.statistics.open
        return ProxyCounts(count, proxy.accepted, proxy.refused.copy())

    def close(self) -> asyncio.Task[None]:
        """End all connections; the task ends with the last one."""
        self.task.cancel()
        return self.task

    async def stop_accepting(self) -> None:
        """The task ends with the connections that are there."""
        await self.proxy.connections.stop()
        self._listener.close()

    def _closed(self, task: asyncio.Task[None]) -> None:
        self._listener.close()
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.err("internal_error", proxy=self.context.settings.name, error=error)

    async def _resolve(self, target: Target, key: IsolationKey, client: bytes) -> Target:
        if target.is_ip or self.context.rule.top_levels.route(target.host) is not Route.NAMECOIN:
            return target
        return await self._names.address_of(target, key, Want.STREAM, client)

    async def _admit(self, client: socket.socket) -> None:
        """Make a SOCKS client the front end's."""
        sock = socket.socket(fileno=client.detach())
        sock.setblocking(False)
        peer = None if sock.family == socket.AF_UNIX else sock.getpeername()
        self.context.admit(sock, peer)


class InboundListener:
    """Where peers come in to one local node; it owns its listening socket."""

    def __init__(self, inbound: Inbound, listener: socket.socket) -> None:
        self._inbound = inbound
        self._listener = listener
        listener.setblocking(False)
        serving = inbound.serve(listener)
        self.task = asyncio.get_running_loop().create_task(serving, name="inbound peers")
        self.task.add_done_callback(lambda _: listener.close())

    async def stop_accepting(self) -> None:
        """The task ends with the connections that are there."""
        await self._inbound.connections.stop()
        self._listener.close()


class BitcoinSide:
    """All that a stream process has to do with Bitcoin.

    `carrier` is the front end's; `relay` carries what is not translated.
    """

    def __init__(
        self, main: MainProcess, carrier: Carrier, registry: FlowRegistry, relay: RelayStream
    ) -> None:
        self._main = main
        self._carrier = carrier
        self._registry = registry
        self._relay = relay
        self._proxies: dict[Hashable, ProxyListener] = {}
        self._inbound: dict[str, InboundListener] = {}
        self._ended = BitcoinReport()
        self._closing: set[asyncio.Task[None]] = set()

    async def settled(self) -> None:
        """Wait until the addresses of proxies that are gone are free."""
        await asyncio.gather(*self._closing, return_exceptions=True)

    def serve(
        self, front: FrontEnd, settings: BitcoinSettings, sockets: Sequence[socket.socket]
    ) -> None:
        """Follow `settings`; `sockets` are those of its proxies, then of its inbound services."""
        self._carrier.settings = settings.carrying
        count = len(settings.proxies)
        before, self._proxies = self._proxies, {}
        for plan, sock in zip(settings.proxies, sockets[:count], strict=True):
            place = plan.listener.place
            proxy = before.pop(place, None)
            if proxy is None:
                proxy = ProxyListener(front, self._main, self._carrier, plan, sock)
            else:
                proxy.configure(plan)
                sock.close()
            self._proxies[place] = proxy
        for gone in before.values():
            self._let_go(gone)
        for (name, service), sock in zip(settings.inbound.items(), sockets[count:], strict=True):
            self._let_in(name, service, sock)

    def flows(self) -> Iterator[PeerFlowView]:
        """A view of each flow that it carries, as it is asked for."""
        return (view_of(flow) for flow in list(self._registry.flows) if flow.ended is None)

    def report(self) -> BitcoinReport:
        """What it has carried, as of now."""
        report = BitcoinReport([], self._registry.totals())
        report.add(self._ended)
        for proxy in self._proxies.values():
            report.add(_of(proxy))
        return report

    async def stop_accepting(self) -> None:
        """Accept no client any more; connections stay."""
        await asyncio.gather(*(listener.stop_accepting() for listener in self._listeners()))

    async def drain(self, seconds: float) -> None:
        """Give connections `seconds`, then end them."""
        await self.stop_accepting()
        tasks = [listener.task for listener in self._listeners()]
        if tasks and seconds > 0:
            await asyncio.wait(tasks, timeout=seconds)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _listeners(self) -> list[ProxyListener | InboundListener]:
        return [*self._proxies.values(), *self._inbound.values()]

    def _let_go(self, proxy: ProxyListener) -> None:
        self._ended.add(_of(proxy).ended())
        task = proxy.close()
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def _let_in(self, name: str, settings: InboundSettings, listener: socket.socket) -> None:
        """Serve peers that come in, from the first time they are spoken of until the end."""
        if name in self._inbound:
            listener.close()
            return
        inbound = Inbound(settings, self._relay, self._registry)
        self._inbound[name] = InboundListener(inbound, listener)


def _of(proxy: ProxyListener) -> BitcoinReport:
    return BitcoinReport(proxies={proxy.context.settings.name: proxy.counts()})
