"""What stream processes serve by now, and the sockets that go with it: from all that is open."""

from __future__ import annotations

import socket

from isoproxy.config import Config, state_directory
from isoproxy.daemon.compose.dns_and_onions import DnsAndOnions
from isoproxy.daemon.compose.listeners import Kind, ListeningSockets
from isoproxy.daemon.compose.tls import Intermediates
from isoproxy.daemon.compose.transparent import TransparentSockets
from isoproxy.daemon.programs import RunningPrograms
from isoproxy.daemon.settings.streams import stream_settings
from isoproxy.daemon.status.snapshot import ListenerView
from isoproxy.net.endpoint import Endpoint
from isoproxy.workers.messages import Settings
from isoproxy.workers.supervisor import Workers


class StreamParts:
    """All that is open for streams: `programs`, what is `transparent` and the `intermediates`
    that sign for names under bit are kept here."""

    def __init__(self, sockets: ListeningSockets, beside: DnsAndOnions, workers: Workers) -> None:
        self.sockets = sockets
        self.beside = beside
        self.programs = RunningPrograms(workers.count, workers.configure)
        self.transparent = TransparentSockets(workers.count)
        self.intermediates = Intermediates(state_directory())

    def listener_views(self) -> list[ListenerView]:
        """All listeners as a status shows them."""
        return [*self.sockets.views(Kind.LISTENER), *self.transparent.views()]

    def settings(self, config: Config, socks: Endpoint, index: int, count: int) -> Settings:
        """What the stream process `index` of `count` serves by."""
        listeners = tuple(each.settings for each in self.sockets.of(Kind.LISTENER).values())
        trusted = self.beside.trusted.listeners
        redirected = self.transparent.plans(config, index)
        plans = (*redirected, *self.programs.plans(config.names, index))
        more = (self.beside.inbound, trusted, plans, index, count)
        return stream_settings(config, socks, listeners, *more, self.intermediates.issuer)

    def sockets_of(self, settings: Settings) -> list[socket.socket]:
        """The sockets of these settings, in their order."""
        listeners, proxies = self.sockets.of(Kind.LISTENER), self.sockets.of(Kind.PROXY)
        return [
            *(listeners[listener.name].listening.socket for listener in settings.listeners),
            *(sock for plan in settings.transparent for sock in self.transparent.sockets_of(plan)),
            *(sock for plan in settings.transparent for sock in self.programs.sockets_of(plan)),
            *(proxies[plan.listener.name].listening.socket for plan in settings.bitcoin.proxies),
            *(self.beside.sockets[name] for name in settings.bitcoin.inbound),
        ]
