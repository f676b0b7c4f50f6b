"""Clients that say nothing of where they go: nftables redirected them, and the kernel knows.

Theory of operation
    The original destination of a connection (`net.original_destination`) is an address that
    stands for a name (`transparent.virtual_addresses`), or an address as it is.  With that the
    handshake is over before it began: the request is judged as one of SOCKS, and opened.  All
    such clients are told is that their connection ends.

    A listener serves whoever reaches it, each address a client of its own, or one program
    (`Program`), whose identity is known beforehand.

Invariants
    A virtual address that stands for nothing, and a connection that was not redirected, are
    refused; a virtual address is never dialled.  Queries to name servers over TCP are refused:
    an exit, or a server of the client's choice, would be asked for names of ours.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from isoproxy.errors import ErrorKind, PolicyRefusal
from isoproxy.front.admission import ConnectionTable
from isoproxy.front.closing import ClosingPhase
from isoproxy.front.connection import Connection, Phase
from isoproxy.front.judgement import ProxyRequest, judge
from isoproxy.front.listener import Listener, ListenerSettings
from isoproxy.front.opening import OpeningPhase
from isoproxy.front.services import FrontServices
from isoproxy.front.states import Event
from isoproxy.isolation import ClientProtocol, IsolationTuple
from isoproxy.net.original_destination import original_destination
from isoproxy.net.target import Target
from isoproxy.socks import Address, Command
from isoproxy.transparent.virtual_addresses import ClientMaps, is_virtual

DNS_PORTS: Final = frozenset({53, 853})

Destination = tuple[IPv4Address | IPv6Address, int]


@dataclass(frozen=True, slots=True, repr=False)
class Program:
    """The one program that a listener is for.

    `client` is its client field, `label` the identity it was given; without a label `nonce`
    makes it one that no other program has.
    """

    client: bytes
    label: bytes | None
    nonce: bytes | None


class Silent:
    """What a client is told that knows of no proxy: nothing."""

    leftover: Final = b""

    def succeed(self) -> bytes:
        return b""

    def resolved(self, address: Address) -> bytes:
        return b""

    def resolved_name(self, name: bytes) -> bytes:
        return b""

    def refuse(self, kind: ErrorKind) -> bytes:
        return b""


def target_of(
    destination: Destination | None, name_at: Callable[[IPv4Address | IPv6Address], str | None]
) -> Target:
    """Where a connection with this original destination is to go; raises PolicyRefusal."""
    if destination is None:
        raise PolicyRefusal(kind=ErrorKind.ADDRESS_REFUSED)
    address, port = destination
    if port in DNS_PORTS:
        raise PolicyRefusal(kind=ErrorKind.NOT_ALLOWED)
    if not is_virtual(address):
        return Target.parse(str(address), port)
    name = name_at(address)
    if name is None:
        raise PolicyRefusal(kind=ErrorKind.ADDRESS_REFUSED)
    return Target.parse(name, port)


class RedirectedPhase(Phase):
    """The first phase of a client of `listener`: its request is complete, or refused."""

    __slots__ = ("_listener",)

    def __init__(self, connection: Connection, listener: TransparentListener) -> None:
        super().__init__(connection)
        self._listener = listener

    def begin(self) -> None:
        """Raises OSError when the kernel does not watch the socket."""
        connection = self.connection
        connection.services.reactor.register(connection.sock.fileno(), connection)
        try:
            request = self._listener.request_of(connection)
        except PolicyRefusal as error:
            connection.statistics.greeted(ClientProtocol.TRANSPARENT, error.kind)
            connection.enter(Event.ANSWERED, ClosingPhase(connection, b""))
            return
        connection.statistics.requested(request)
        opening = OpeningPhase(connection, Silent(), request, readable=True)
        connection.enter(Event.REQUESTED, opening)

    def abort(self) -> None:
        self.connection.hang_up()


class TransparentListener(Listener):
    """A listening socket that connections are redirected to.

    `maps` knows what virtual addresses stand for; `program` is the one it is for, if any.
    """

    def __init__(
        self,
        services: FrontServices,
        connections: ConnectionTable,
        settings: ListenerSettings,
        sock: socket.socket,
        maps: ClientMaps,
        program: Program | None = None,
        *,
        batch: int,
    ) -> None:
        self._maps = maps
        self._program = program
        super().__init__(services, connections, settings, sock, batch=batch)

    def request_of(self, connection: Connection) -> ProxyRequest:
        """What a connection wants, under its key; raises PolicyRefusal."""
        services, client, program = connection.services, connection.client_id, self._program
        now = services.loop.time()
        destination = original_destination(connection.sock)
        target = target_of(destination, lambda at: self._maps.name_at(client, at, now))
        return judge(
            self.rule,
            services.isolator,
            Command.CONNECT,
            target,
            tuple_of(client, program, target),
        )

    def _first_phase(self, connection: Connection) -> Phase:
        return RedirectedPhase(connection, self)

    def _client_field(self, sock: socket.socket, peer: object) -> bytes:
        if self._program is not None:
            return self._program.client
        return super()._client_field(sock, peer)


def tuple_of(client: bytes, program: Program | None, target: Target) -> IsolationTuple:
    """The isolation tuple of a redirected stream."""
    return IsolationTuple(
        client,
        ClientProtocol.TRANSPARENT,
        None if program is None else program.label,
        None if program is None else program.nonce,
        target.host.encode("ascii"),
        target.port,
    )
