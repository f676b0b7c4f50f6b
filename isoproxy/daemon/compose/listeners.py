"""Listening sockets at start and at a reload: what did not move stays open, with its flows.

The main process opens them, for listeners and for Bitcoin proxies alike, and accepts on none:
clients wait in the kernel's backlog while no stream process serves.
"""

from __future__ import annotations

import contextlib
import socket
from collections import defaultdict
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import NamedTuple

from isoproxy.config import Config
from isoproxy.daemon.settings.bitcoin import proxy_listener
from isoproxy.daemon.settings.front import listener_settings
from isoproxy.daemon.status.snapshot import ListenerView
from isoproxy.errors import OperationError
from isoproxy.front.listener import ListenerSettings
from isoproxy.isolation import Isolate
from isoproxy.net.endpoint import Endpoint
from isoproxy.net.listening import ListeningSocket
from isoproxy.observe.log import logger

_log = logger("daemon")


class Kind(Enum):
    """What a listening socket is for."""

    LISTENER = "listener"
    PROXY = "proxy"


class Named(NamedTuple):
    """A listener or a proxy by its name."""

    kind: Kind
    name: str


@dataclass(slots=True)
class OpenSocket:
    """A listening socket, and how those who come to it are served."""

    settings: ListenerSettings
    listening: ListeningSocket

    def address(self) -> str:
        """Where it listens: `host:port` or `unix:path`."""
        if self.listening.socket.fileno() < 0:
            return str(self.settings.endpoint)
        return self.listening.address()


def wanted_sockets(config: Config) -> dict[Named, ListenerSettings]:
    """All that `config` has."""
    wanted = {
        Named(Kind.LISTENER, name): settings for name, settings in listener_settings(config).items()
    }
    for proxy in config.bitcoin.proxy:
        wanted[Named(Kind.PROXY, proxy.name)] = proxy_listener(config, proxy)
    return wanted


class ListeningSockets:
    """The listening sockets that are open."""

    def __init__(self) -> None:
        self._open: dict[Named, OpenSocket] = {}

    def of(self, kind: Kind) -> dict[str, OpenSocket]:
        """Those of one kind, by name."""
        return {named.name: each for named, each in self._open.items() if named.kind is kind}

    def views(self, kind: Kind) -> list[ListenerView]:
        """Those of one kind as a status shows them."""
        return [
            ListenerView(name, each.address(), each.settings.rule.listener.isolate)
            for name, each in self.of(kind).items()
        ]

    def open(
        self,
        wanted: Mapping[Named, ListenerSettings],
        inherited: dict[str, list[socket.socket]],
    ) -> list[Named]:
        """Open all; a listener called NAME takes the inherited sockets `socks-NAME`.

        Raises OperationError when an address cannot be had, an inherited socket is no use, or
        it does not go with the listener's rule.
        """
        for named, settings in wanted.items():
            unit = f"socks-{named.name}"
            given = inherited.pop(unit, []) if named.kind is Kind.LISTENER else []
            its = [ListeningSocket.inherited(sock, unit) for sock in given]
            for index, listening in enumerate(its or [_opened(settings)]):
                self._add(self._open, named, _numbered(settings, index), listening)
        for name, left in inherited.items():
            for sock in left:
                _log.warn("inherited_socket_unused", name=name, expected="socks-LISTENER")
                sock.close()
        return list(self._open)

    def switch(self, wanted: Mapping[Named, ListenerSettings]) -> list[Named]:
        """Open what is new, change what stays, close what is gone; returns what was opened.

        A unix socket whose file has vanished is made again.  Raises OperationError when a new
        address cannot be had, or a socket's file not its new mode; then nothing has changed.
        """
        places: defaultdict[Hashable, list[OpenSocket]] = defaultdict(list)
        for named, each in self._open.items():
            if not each.listening.lost_its_file:
                places[named.kind, each.settings.place].append(each)
        now: dict[Named, OpenSocket] = {}
        opened: list[Named] = []
        with contextlib.ExitStack() as undo:
            for named, settings in wanted.items():
                kept = places.pop((named.kind, settings.place), [])
                for index, old in enumerate(kept):
                    own = _numbered(settings, index)
                    self._add(now, named, own, old.listening)
                    if own.mode != old.settings.mode:
                        old.listening.change_mode(own.mode)
                        undo.callback(old.listening.change_mode, old.settings.mode)
                if not kept:
                    listening = undo.enter_context(contextlib.closing(_opened(settings)))
                    opened.append(self._add(now, named, settings, listening))
            undo.pop_all()
        before, self._open = self._open, now
        for gone in before.values():
            if all(gone.listening is not each.listening for each in now.values()):
                gone.listening.close()
        return opened

    @staticmethod
    def _add(
        sockets: dict[Named, OpenSocket],
        named: Named,
        settings: ListenerSettings,
        listening: ListeningSocket,
    ) -> Named:
        own = Named(named.kind, settings.name)
        sockets[own] = OpenSocket(settings, listening)
        _check_place(own, listening, settings)
        return own

    def close(self) -> None:
        """Close all."""
        for each in self._open.values():
            each.listening.close()


def _opened(settings: ListenerSettings) -> ListeningSocket:
    return ListeningSocket.open(settings.endpoint, settings.mode)


def _numbered(settings: ListenerSettings, index: int) -> ListenerSettings:
    """A listener's settings for each of its sockets: the others have names that no listener can."""
    return settings if not index else replace(settings, name=f"{settings.name}.{index + 1}")


def _check_place(named: Named, listening: ListeningSocket, settings: ListenerSettings) -> None:
    """Raise OperationError if other machines reach a listener and are not kept apart.

    The configuration is checked for that, but an inherited socket may be somewhere else.
    """
    if named.kind is Kind.PROXY or Isolate.CLIENT_ADDR in settings.rule.listener.isolate:
        return
    if not listening.is_unix and not Endpoint.parse_listening(listening.address()).is_loopback:
        raise OperationError(
            f"listener {named.name}: other machines reach the socket that the service manager "
            "handed over, so it must keep them apart; add ClientAddr to isolate"
        )
