"""The second phase: a name is resolved if it is one of ours, and Tor is dialled.

Theory of operation
    A plain request is dialled at once, without a task.  A name that Namecoin resolves is
    looked up first, in a task, under the key of the request.  What is for a Bitcoin peer
    has a purpose of its own, and so circuits of its own; its early bytes are kept back
    until it is known how to say them.  That it is for one, the port says or what the client
    says first, which may come later (`watching`).

Invariants
    Nothing is dialled but the target of the request, or what its name stands for.
    A client that breaks its connection takes its dial or look-up with it.  As Tor sees it,
    a client that ends before it was answered, and has said nothing to be sent, has left.
"""

from __future__ import annotations

import asyncio
import socket
from ipaddress import ip_address

from isoproxy.bitcoin.flow import Flow
from isoproxy.errors import ErrorKind, IsoproxyError
from isoproxy.front.carrying import CarryingPhase
from isoproxy.front.closing import ClosingPhase
from isoproxy.front.connection import Connection, Phase
from isoproxy.front.direction import Direction
from isoproxy.front.judgement import Answers, ProxyRequest
from isoproxy.front.relaying import RelayingPhase
from isoproxy.front.states import Event
from isoproxy.front.watching import WatchingPhase
from isoproxy.isolation import APP, P2P
from isoproxy.namecoin.resolve.answer import Want
from isoproxy.net.reactor import BROKEN, PEER_SHUT, READABLE
from isoproxy.socks import Address, Command
from isoproxy.tor.dial import Dial


class OpeningPhase(Phase):
    """Fulfils `request`, and answers it in the words of `handshake`.

    `readable` says that the client's socket may hold more, which no event will announce.
    """

    __slots__ = (
        "_dial",
        "_early",
        "_ending",
        "_handshake",
        "_readable",
        "_request",
        "_spoke",
        "_target",
        "_task",
        "_watched",
    )

    def __init__(
        self,
        connection: Connection,
        handshake: Answers,
        request: ProxyRequest,
        *,
        readable: bool,
    ) -> None:
        super().__init__(connection)
        self._handshake = handshake
        self._request = request
        self._target = request.target
        self._early = handshake.leftover
        self._spoke = bool(self._early)
        self._readable = self._ending = readable
        self._watched = False
        self._dial: Dial | None = None
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        connection, request = self.connection, self._request
        connection.request = request
        if request.resolve_first:
            self._task = connection.services.spawn(connection, self._resolve_and_dial())
        else:
            self._dial_target()

    def on_events(self, events: int) -> None:
        if events & (READABLE | PEER_SHUT):
            self._readable = True
            self._ending = self._ending or bool(events & PEER_SHUT)
        if events & BROKEN or (events & PEER_SHUT and self._has_said_nothing()):
            self.abort()

    def abort(self) -> None:
        self._give_up()
        self.connection.hang_up()

    # Before Tor's answer

    async def _resolve_and_dial(self) -> None:
        connection, request = self.connection, self._request
        names = connection.services.settings.names
        if names is None:  # a reload took them away since the rule of this client was made
            self._refuse(ErrorKind.NAME_NEVER_SENT_TO_TOR)
            return
        resolves = request.command is Command.RESOLVE
        try:
            self._target = await names.address_of(
                request.target,
                request.key,
                Want.ADDRESS if resolves else Want.STREAM,
                connection.client_id,
            )
        except IsoproxyError as error:
            self._refuse(error.kind)
            return
        if resolves and self._target.is_ip:
            self._answer_address(ip_address(self._target.host))
        elif resolves and self._target.is_onion:
            self._refuse(ErrorKind.NAME_NO_ADDRESS)
        else:
            self._dial_target()

    def _dial_target(self) -> None:
        connection, request, target = self.connection, self._request, self._target
        services, optimistic = connection.services, b""
        connects = request.command is Command.CONNECT
        peer_to_peer = connects and target.port in services.bitcoin_ports
        if connects and not peer_to_peer and services.bitcoin is not None:
            found = services.bitcoin.is_v1(self._early)
            peer_to_peer, self._watched = bool(found), found is None
        connection.purpose = P2P if peer_to_peer else APP
        if not peer_to_peer and not self._watched:
            optimistic, self._early = self._early, b""
        try:
            dial = services.dialer.start(
                request.key,
                connection.purpose,
                target,
                self._dialled,
                command=request.command,
                client=connection.client_id,
                optimistic_data=optimistic,
                read_ahead=not peer_to_peer,
                listener=connection.statistics.listener,
            )
        except IsoproxyError as error:
            self._refuse(error.kind)
            return
        if connection.phase is self:
            self._dial = dial

    def _has_said_nothing(self) -> bool:
        """Whether the client, which has ended, left no bytes for the far end."""
        if self._spoke:
            return False
        try:
            return not self.connection.sock.recv(1, socket.MSG_PEEK)
        except OSError:
            return True

    def _give_up(self) -> None:
        """End what is under way."""
        if self._dial is not None:
            self._dial.cancel()
            self._dial = None
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()
        self._task = None

    # Tor's answer

    def _dialled(self, dial: Dial) -> None:
        self._dial = None
        command = self._request.command
        self.connection.statistics.dialled(dial.age_s)
        if dial.error is not None or dial.reply is None:
            self._refuse(dial.error.kind if dial.error is not None else ErrorKind.INTERNAL)
        elif command is Command.CONNECT:
            self._join(dial)
        elif command is Command.RESOLVE and not isinstance(dial.reply.host, bytes):
            self._answer_address(dial.reply.host)
        elif command is Command.RESOLVE_PTR and isinstance(dial.reply.host, bytes):
            self._answer_name(dial.reply.host)
        else:
            self._refuse(ErrorKind.TOR_PROTOCOL)

    def _join(self, dial: Dial) -> None:
        """The stream is open: tell the client and let the bytes flow."""
        connection, services = self.connection, self.connection.services
        if not connection.send(self._handshake.succeed()):
            self.abort()
            return
        connection.statistics.opened()
        sock, upstream = connection.sock, dial.take_socket()
        if connection.purpose is P2P and services.bitcoin is not None:
            flow = Flow(self._request.key, self._target)
            phase: Phase = CarryingPhase(connection, services.bitcoin, flow, upstream, self._early)
        else:
            early = b"" if self._watched else self._early
            up = Direction(sock, upstream, early, readable=self._readable, ending=self._ending)
            down = Direction(
                upstream, sock, dial.leftover, readable=dial.readable, ending=dial.ending
            )
            phase = self._relaying(up, down)
        connection.enter(Event.OPENED, phase)

    def _relaying(self, up: Direction, down: Direction) -> Phase:
        connection, bitcoin = self.connection, self.connection.services.bitcoin
        if not self._watched or bitcoin is None:
            return RelayingPhase(connection, up, down)
        return WatchingPhase(connection, bitcoin, self._target, self._early, up, down)

    # The answer to a client that gets no stream

    def _answer_address(self, address: Address) -> None:
        self._close(self._handshake.resolved(address), None)

    def _answer_name(self, name: bytes) -> None:
        if name:
            self._close(self._handshake.resolved_name(name), None)
        else:
            self._refuse(ErrorKind.TOR_PROTOCOL)

    def _refuse(self, kind: ErrorKind) -> None:
        self._close(self._handshake.refuse(kind), kind)

    def _close(self, reply: bytes, refusal: ErrorKind | None) -> None:
        self.connection.statistics.answered(self._request.command, refusal)
        self.connection.enter(Event.ANSWERED, ClosingPhase(self.connection, reply))
