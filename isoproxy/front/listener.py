"""A port that clients come to, TCP or unix, its budgets, and how it survives fd_exhaustion.

Theory of operation
    The listening socket is watched level-triggered; each event accepts a batch.  When
    descriptors run out (EMFILE, ENFILE) accepting pauses for a moment instead of
    spinning: the clients wait in the kernel's backlog.

    Beyond a budget, for one client or in total (`admission`), a connection is refused at once
    with the SOCKS5 words "no acceptable methods", so that it does not hang.

Invariants
    A listener never outlives `close`; a unix socket's file goes with it, unless it was
    inherited from a service manager.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Hashable
from dataclasses import dataclass, replace
from functools import lru_cache
from ipaddress import ip_address
from typing import Final

from isoproxy.errors import ErrorKind
from isoproxy.front.admission import ConnectionTable
from isoproxy.front.connection import Connection, Phase
from isoproxy.front.handshake import HandshakePhase
from isoproxy.front.judgement import HandshakeRule
from isoproxy.front.services import FrontServices
from isoproxy.front.statistics import ListenerStatistics
from isoproxy.isolation import client_of_address, client_of_uid
from isoproxy.net.endpoint import Endpoint
from isoproxy.net.listening import ListeningSocket
from isoproxy.net.unix_socket import peer_credentials
from isoproxy.tor.dial import OUT_OF_RESOURCES

ACCEPT_BATCH: Final = 64
SHARED_BATCH: Final = 2
"""Of a socket that other processes accept on too: leave them some."""
FD_EXHAUSTION_PAUSE_S: Final = 0.25
_REFUSAL: Final = b"\x05\xff"
_UNPACED: Final = b"reno"
"""The congestion control that every kernel has and every user may choose."""
_TRANSIENT: Final = frozenset(
    {errno.ECONNABORTED, errno.EPROTO, errno.EINTR, errno.EPERM, errno.ENETDOWN}
)

_client_of_address = lru_cache(maxsize=4096)(client_of_address)


@dataclass(frozen=True, slots=True)
class ListenerSettings:
    """One listener as configured.

    name     what status and metrics call it
    mode     permission bits of a unix socket's file
    """

    name: str
    endpoint: Endpoint
    rule: HandshakeRule
    mode: int = 0o600

    @property
    def place(self) -> Hashable:
        """What stays open over a reload as long as this stays equal."""
        any_port = self.endpoint.path is None and self.endpoint.port == 0
        return self.endpoint, self.name if any_port else ""


def _tune(sock: socket.socket) -> None:
    """Set a TCP listener up for what is said through it; accepted sockets inherit it.

    Loopback loses nothing, and a congestion control that paces (BBR, where it is the
    system's own) pays a timer for every segment there, for nothing.
    """
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if ip_address(sock.getsockname()[0].partition("%")[0]).is_loopback:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, _UNPACED)


class ListenerContext:
    """Where clients come in: the rule they follow, the budgets, what is counted.

    `unix` says that they come over a unix socket, and are told apart by user id.
    """

    def __init__(
        self,
        services: FrontServices,
        connections: ConnectionTable,
        settings: ListenerSettings,
        *,
        unix: bool,
    ) -> None:
        self._services = services
        self._connections = connections
        self._ended = connections.remove
        self._unix = unix
        self.statistics = ListenerStatistics(settings.name, services.counters, services.accepted)
        self.follow(settings)

    def follow(self, settings: ListenerSettings) -> None:
        """Serve by other settings from now on; connections stay as they are."""
        self.settings = settings
        self.rule = replace(settings.rule, unix=self._unix)
        self.statistics.listener = settings.name

    def admit(self, sock: socket.socket, peer: object) -> None:
        """Serve a client; `peer` is its address, as `accept` gave it."""
        self.statistics.admitted()
        try:
            sock.setblocking(False)
            client_id = self._client_field(sock, peer)
        except OSError:
            sock.close()
            return
        if not self._connections.make_room(client_id):
            self.statistics.refused(ErrorKind.BUSY)
            with contextlib.suppress(OSError):
                sock.send(_REFUSAL)
            sock.close()
            return
        connection = Connection(self._services, self.statistics, sock, client_id, self._ended)
        self._connections.add(connection)
        try:
            connection.start(self._first_phase(connection))
        except OSError:
            connection.abort()

    def _first_phase(self, connection: Connection) -> Phase:
        return HandshakePhase(connection, self.rule)

    def _client_field(self, sock: socket.socket, peer: object) -> bytes:
        if self._unix:
            return client_of_uid(peer_credentials(sock).uid)
        assert isinstance(peer, tuple)
        return _client_of_address(peer[0], *peer[3:])


class Listener(ListenerContext):
    """A listening socket of a front end and the connections that came in on it.

    `sock` is inherited from a service manager, or opened here when None; `batch` clients
    are accepted in one turn.
    """

    def __init__(
        self,
        services: FrontServices,
        connections: ConnectionTable,
        settings: ListenerSettings,
        sock: socket.socket | None = None,
        *,
        batch: int = ACCEPT_BATCH,
    ) -> None:
        self.listening = (
            ListeningSocket.open(settings.endpoint, settings.mode)
            if sock is None
            else ListeningSocket(sock)
        )
        self._batch = batch
        sock = self.listening.socket
        super().__init__(services, connections, settings, unix=self.listening.is_unix)
        self._sock: socket.socket | None = sock
        self._family = sock.family
        sock.setblocking(False)
        if not self._unix:
            _tune(sock)
        self._resume()

    @property
    def socket(self) -> socket.socket:
        """The listening socket, for a process that is to accept on it as well."""
        assert self._sock is not None, "a closed listener serves no client"
        return self._sock

    def address(self) -> str:
        """Where it listens: `host:port` or `unix:path`."""
        if self._sock is None:
            return str(self.settings.endpoint)
        return self.listening.address()

    def on_events(self, fd: int, events: int) -> None:
        for _ in range(self._batch):
            if self._sock is None:
                return
            try:
                fd, peer = self._sock._accept()  # type: ignore[attr-defined]
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in OUT_OF_RESOURCES:
                    self._pause()
                elif error.errno not in _TRANSIENT:
                    raise
                return
            # `socket.accept`, less its look at the family, which it makes an Enum's member of
            self.admit(socket.socket(self._family, socket.SOCK_STREAM, 0, fd), peer)

    def close(self) -> None:
        """Stop listening; connections that are open stay."""
        sock, self._sock = self._sock, None
        if sock is None:
            return
        self._services.reactor.unregister(sock.fileno())  # others may hold the socket too
        self.listening.close()

    def _pause(self) -> None:
        if self._sock is not None:
            self._services.out_of_descriptors()
            self._services.reactor.unregister(self._sock.fileno())
            self._services.loop.call_later(FD_EXHAUSTION_PAUSE_S, self._resume)

    def _resume(self) -> None:
        if self._sock is not None:
            self._services.reactor.register_listener(self._sock.fileno(), self)
