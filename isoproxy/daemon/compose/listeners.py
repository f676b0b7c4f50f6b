"""Listeners at start and at a reload: what did not move stays open, with its flows."""

from __future__ import annotations

import contextlib
import socket
from collections import defaultdict
from collections.abc import Hashable, Mapping
from dataclasses import replace

from isoproxy.daemon.status.snapshot import ListenerView
from isoproxy.errors import OperationError
from isoproxy.front.frontend import FrontEnd
from isoproxy.front.listener import Listener, ListenerSettings
from isoproxy.isolation import Isolate
from isoproxy.net.endpoint import Endpoint
from isoproxy.net.listening import ListeningSocket
from isoproxy.observe.log import logger

_log = logger("daemon")


def open_listeners(
    front: FrontEnd,
    wanted: Mapping[str, ListenerSettings],
    inherited: dict[str, list[socket.socket]],
) -> list[Listener]:
    """Open all listeners; one called NAME takes the inherited sockets `socks-NAME`.

    Raises OperationError when an address cannot be had, an inherited socket is no use, or it
    does not go with the listener's rule.
    """
    opened = []
    for name, settings in wanted.items():
        sockets = inherited.pop(f"socks-{name}", [])
        for sock in sockets:
            ListeningSocket.inherited(sock, f"socks-{name}")
        for index, each in enumerate(sockets or [None]):
            opened.append(front.open(_numbered(settings, index), each))
            _check_place(opened[-1], settings)
    for name, left in inherited.items():
        for sock in left:
            _log.warn("inherited_socket_unused", name=name, expected="socks-LISTENER")
            sock.close()
    return opened


def switch_listeners(front: FrontEnd, wanted: Mapping[str, ListenerSettings]) -> list[Listener]:
    """Open what is new, change what stays, close what is gone; returns what was opened.

    A unix socket whose file has vanished is made again.  Raises OperationError when a new
    address cannot be had, or a socket's file not its new mode; then nothing has changed.
    """
    before = front.listeners
    by_place: defaultdict[Hashable, list[Listener]] = defaultdict(list)
    for old in before.values():
        if not old.listening.lost_its_file:
            by_place[place_of(old.settings)].append(old)
    kept: dict[str, Listener] = {}
    changed: dict[str, ListenerSettings] = {}
    for settings in wanted.values():
        for index, listener in enumerate(by_place.pop(place_of(settings), ())):
            own = _numbered(settings, index)
            _check_place(listener, own)
            kept[own.name], changed[own.name] = listener, own
    front.listeners = dict(kept)
    opened: list[Listener] = []
    try:
        for name, settings in wanted.items():
            if name not in kept:
                opened.append(front.open(settings))
        with contextlib.ExitStack() as undo:
            for name, listener in kept.items():
                switch_mode(listener.listening, listener.settings.mode, changed[name].mode, undo)
            undo.pop_all()
    except OperationError:
        for listener in opened:
            listener.close()
        front.listeners = before
        raise
    for name, listener in kept.items():
        listener.settings, listener.rule = changed[name], changed[name].rule
    for gone in before.values():
        if gone not in kept.values():
            gone.close()
    return opened


def view_listeners(front: FrontEnd) -> list[ListenerView]:
    """The listeners that are open."""
    return [
        ListenerView(listener.settings.name, listener.address(), listener.rule.listener.isolate)
        for listener in front.listeners.values()
    ]


def _numbered(settings: ListenerSettings, index: int) -> ListenerSettings:
    """A listener's settings for each of its sockets: the others are of the same rule."""
    return settings if not index else replace(settings, name=f"{settings.name}-{index + 1}")


def switch_mode(
    listening: ListeningSocket, before: int, mode: int, undo: contextlib.ExitStack
) -> None:
    """Give a unix socket's file another mode, until `undo`; OperationError says why not."""
    if mode != before:
        listening.change_mode(mode)
        undo.callback(listening.change_mode, before)


def _check_place(listener: Listener, settings: ListenerSettings) -> None:
    """Raise OperationError if other machines reach `listener` and are not kept apart.

    The configuration is checked for that, but an inherited socket may be somewhere else.
    """
    if Isolate.CLIENT_ADDR in settings.rule.listener.isolate:
        return
    if (
        listener.socket.family != socket.AF_UNIX
        and not Endpoint.parse_listening(listener.address()).is_loopback
    ):
        raise OperationError(
            f"listener {settings.name}: other machines reach the socket that the service manager "
            "handed over, so it must keep them apart; add ClientAddr to isolate"
        )


def place_of(settings: ListenerSettings) -> Hashable:
    """What stays open as long as this stays equal."""
    endpoint = settings.endpoint
    any_port = endpoint.path is None and endpoint.port == 0
    return endpoint, settings.name if any_port else ""
