"""Listeners at start and at a reload: what did not move stays open, with its flows."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Hashable, Mapping

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
    """Open all listeners; one called NAME takes the inherited socket `socks-NAME`.

    Raises OperationError when an address cannot be had, or an inherited socket does not go
    with the listener's rule.
    """
    opened = []
    for name, settings in wanted.items():
        sockets = inherited.get(f"socks-{name}")
        opened.append(front.open(settings, sockets.pop(0) if sockets else None))
        _check_place(opened[-1], settings)
    for name, left in inherited.items():
        for sock in left:
            _log.warn("inherited_socket_unused", name=name, expected="socks-LISTENER")
            sock.close()
    return opened


def switch_listeners(front: FrontEnd, wanted: Mapping[str, ListenerSettings]) -> list[Listener]:
    """Open what is new, change what stays, close what is gone; returns what was opened.

    Raises OperationError when a new address cannot be had, or a socket's file not its new
    mode; then nothing has changed.
    """
    before = front.listeners
    by_place = {place_of(old.settings): old for old in before.values()}
    kept: dict[str, Listener] = {}
    for name, settings in wanted.items():
        listener = by_place.pop(place_of(settings), None)
        if listener is not None:
            _check_place(listener, settings)
            kept[name] = listener
    front.listeners = dict(kept)
    opened: list[Listener] = []
    try:
        for name, settings in wanted.items():
            if name not in kept:
                opened.append(front.open(settings))
        with contextlib.ExitStack() as undo:
            for name, listener in kept.items():
                switch_mode(listener.listening, listener.settings.mode, wanted[name].mode, undo)
            undo.pop_all()
    except OperationError:
        for listener in opened:
            listener.close()
        front.listeners = before
        raise
    for name, listener in kept.items():
        listener.follow(wanted[name])
    for gone in by_place.values():
        gone.close()
    return opened


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
