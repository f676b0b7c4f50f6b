"""One client from its first byte to its last.

Theory of operation
    A connection goes through four stages, each with a deadline: *handshake* (bytes go to
    the session), *opening* (a name is being resolved or Tor is being dialled), *relaying*
    (a relay, or another program for the stream such as the Bitcoin bridge, has taken
    over), *closing* (the client is told why there is no stream).

Invariants
    Whatever happens, both sockets are closed and `front.ended(self)` is called once.  A
    client that breaks its connection takes its dial or look-up with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Coroutine
from enum import Enum
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final

from isoproxy.bitcoin.bridge import Flow
from isoproxy.errors import ErrorKind, IsoproxyError, RemoteProtocolError
from isoproxy.front.direction import Direction
from isoproxy.front.relay import Relay
from isoproxy.front.services import Bitcoin
from isoproxy.front.session import Answer, ProxyRequest, Session
from isoproxy.front.timed_relay import TimedRelay
from isoproxy.isolation import APP, P2P, Purpose
from isoproxy.namecoin.resolve.answer import Want
from isoproxy.net.lingering_close import LingeringClose
from isoproxy.net.reactor import BROKEN, PEER_SHUT, READABLE
from isoproxy.net.target import Target
from isoproxy.socks import Address, Command
from isoproxy.tor.dial import Dial

if TYPE_CHECKING:
    from isoproxy.front.listener import ListenerContext

_CHUNK: Final = 1 << 14


class Stage(Enum):
    """Where a connection is in its life."""

    HANDSHAKE = "handshake"
    OPENING = "opening"
    RELAYING = "relaying"
    CLOSING = "closing"
    CLOSED = "closed"


class Connection:
    """A client of `listener`; `client` is its field of the isolation tuple."""

    __slots__ = (
        "_dial",
        "_early",
        "_ending",
        "_farewell",
        "_heard",
        "_p2p",
        "_readable",
        "_session",
        "_sock",
        "_spoke",
        "_target",
        "_task",
        "client",
        "flow",
        "listener",
        "relay",
        "request",
        "since",
        "stage",
    )

    def __init__(
        self, listener: ListenerContext, sock: socket.socket, client: bytes | None
    ) -> None:
        front = listener.front
        self.listener = listener
        self.client = client
        self.stage = Stage.HANDSHAKE
        self.since = front.loop.time()
        self.request: ProxyRequest | None = None
        self.relay: Relay | None = None
        self.flow: Flow | None = None
        self._sock = sock
        self._session: Session | None = Session(listener.rule, front.isolator, client)
        self._dial: Dial | None = None
        self._task: asyncio.Task[None] | None = None
        self._early = b""
        self._heard = b""
        """All that the client has said, where it may have to be said again."""
        self._p2p = False
        self._target: Target | None = None
        self._spoke = False
        self._readable = True
        self._ending = False
        self._farewell: LingeringClose | None = None
        front.services.deadlines.set(self, front.settings.limits.handshake_timeout_s)
        front.reactor.register(sock.fileno(), self)

    @property
    def bytes_up(self) -> int:
        return sum(carried.bytes_up for carried in (self.flow, self.relay) if carried)

    @property
    def bytes_down(self) -> int:
        return sum(carried.bytes_down for carried in (self.flow, self.relay) if carried)

    @property
    def bytes_spliced(self) -> tuple[int, int]:
        """Of the bytes up and down, those that were moved within the kernel."""
        relay = self.relay
        return (relay.up.spliced, relay.down.spliced) if relay is not None else (0, 0)

    @property
    def purpose(self) -> Purpose:
        """What its stream to Tor is for."""
        return P2P if self._p2p else APP

    def resume(self, heard: bytes) -> None:
        """Go on where a worker stopped, which has answered all but the request itself."""
        session = self._session
        assert session is not None
        request = session.replay(heard)
        if request is None:
            self._close()
            return
        self._early = session.leftover
        self._spoke = bool(self._early)
        self._open(request)

    def on_events(self, fd: int, events: int) -> None:
        if self.stage is Stage.HANDSHAKE:
            self._read_handshake(bool(events & (PEER_SHUT | BROKEN)))
        elif self.stage is Stage.OPENING:
            if events & (READABLE | PEER_SHUT):
                self._readable = True
                self._ending = self._ending or bool(events & PEER_SHUT)
            # As Tor sees it: a client that ends before it was answered, and has said
            # nothing to be sent, has left.
            if events & BROKEN or (events & PEER_SHUT and self._has_said_nothing()):
                self.abort()

    def on_deadline(self) -> None:
        if self.stage is Stage.HANDSHAKE:
            self._refuse(ErrorKind.HANDSHAKE_TIMEOUT)
        else:
            self.abort()

    def abort(self) -> None:
        """End now, whatever the stage."""
        if self.relay is not None:
            self.relay.abort()
        elif self.stage is Stage.RELAYING and self._task is not None:
            self._task.cancel()
        elif self._farewell is not None:
            self._farewell.close()
        else:
            self._close()

    # Handshake

    def _read_handshake(self, to_the_end: bool) -> None:
        """Feed the session; `to_the_end` when the client has announced that nothing follows."""
        try:
            data = self._sock.recv(_CHUNK)
            while data:
                self._readable = self._ending = to_the_end or len(data) == _CHUNK
                complete = self._take(data)
                if complete or not (to_the_end or len(data) == _CHUNK):
                    return
                data = self._sock.recv(_CHUNK)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            pass
        self._close()

    def _take(self, data: bytes) -> bool:
        """Give bytes to the session; True when the handshake is over, either way."""
        session, main = self._session, self.listener.front.main
        assert session is not None
        if main is not None:
            self._heard += data
        try:
            outcome = session.receive(data)
        except RemoteProtocolError as error:
            self.listener.greeted(session.protocol, error.kind)
            self._say_and_close(error.reply)
            return True
        if isinstance(outcome, Answer):
            self.listener.greeted(session.protocol, None)
            self.listener.answered(outcome.command, outcome.kind)
            self._say_and_close(outcome.reply)
            return True
        out = session.data_to_send()
        if out and not self._say(out):
            self._close()
            return True
        if outcome is None:
            return False
        if main is not None:
            if main.takes(outcome):
                self.listener.front.reactor.unregister(self._sock.fileno())
                main.take(self.listener.settings, self._heard, self._sock)
                self._forget()
                return True
            self._heard = b""
        self._early = session.leftover
        self._spoke = bool(self._early)
        self._open(outcome)
        return True

    # Opening

    def _has_said_nothing(self) -> bool:
        """Whether the client, which has ended, left no bytes for the far end."""
        if self._spoke:
            return False
        try:
            return not self._sock.recv(1, socket.MSG_PEEK)
        except OSError:
            return True

    def _open(self, request: ProxyRequest) -> None:
        front = self.listener.front
        self.request = request
        self.stage = Stage.OPENING
        self.listener.requested(request)
        front.services.deadlines.clear(self)
        if request.resolve_first:
            self._start(self._resolve_and_dial(request))
        else:
            self._start_dial(request, request.target)

    def _start_dial(self, request: ProxyRequest, target: Target) -> None:
        """Dial for a request; what is for a Bitcoin peer waits until it is known how to say it."""
        front = self.listener.front
        ports = front.services.bitcoin_ports
        self._p2p = request.command is Command.CONNECT and target.port in ports
        optimistic = b"" if self._p2p else self._early
        if not self._p2p:
            self._early = b""
        self._target = target
        try:
            dial = front.dialer.start(
                request.key,
                self.purpose,
                target,
                self._dialled,
                command=request.command,
                client=self.client or b"",
                optimistic_data=optimistic,
                read_ahead=not self._p2p,
            )
        except IsoproxyError as error:
            self._refuse(error.kind)
            return
        if self.stage is Stage.OPENING:
            self._dial = dial

    async def _resolve_and_dial(self, request: ProxyRequest) -> None:
        front = self.listener.front
        if (
            front.settings.names is None
        ):  # a reload took them away since the rule of this client was made
            self._refuse(ErrorKind.NAME_NEVER_SENT_TO_TOR)
            return
        try:
            target = await front.settings.names.address_of(
                request.target,
                request.key,
                Want.ADDRESS if request.command is Command.RESOLVE else Want.STREAM,
                self.client,
            )
        except IsoproxyError as error:
            self._refuse(error.kind)
            return
        if self.stage is not Stage.OPENING:
            return
        if request.command is Command.RESOLVE:
            if target.is_ip:
                self._answer_resolve(ip_address(target.host))
            elif target.is_onion:
                self._refuse(ErrorKind.NAME_NO_ADDRESS)
            else:
                self._start_dial(request, target)
            return
        self._start_dial(request, target)

    def _dialled(self, dial: Dial) -> None:
        self._dial = None
        if self.stage is not Stage.OPENING:
            return
        session, request = self._session, self.request
        self.listener.front.counters.dials.observe(dial.age_s)
        assert session is not None
        assert request is not None
        if dial.error is not None or dial.reply is None:
            kind = dial.error.kind if dial.error is not None else ErrorKind.INTERNAL
            self._refuse(kind)
        elif request.command is Command.RESOLVE_PTR:
            name = dial.reply.host
            if isinstance(name, bytes) and name:
                self.listener.answered(request.command, None)
                self._say_and_close(session.resolved_name(name))
            else:
                self._refuse(ErrorKind.TOR_PROTOCOL)
        elif request.command is Command.RESOLVE:
            if isinstance(dial.reply.host, bytes):
                self._refuse(ErrorKind.TOR_PROTOCOL)
            else:
                self._answer_resolve(dial.reply.host)
        else:
            self._join(dial, session)

    def _answer_resolve(self, address: Address) -> None:
        assert self._session is not None
        self.listener.answered(Command.RESOLVE, None)
        self._say_and_close(self._session.resolved(address))

    def _join(self, dial: Dial, session: Session) -> None:
        """The stream is open: tell the client and let the bytes flow."""
        front = self.listener.front
        if not self._say(session.succeed()):
            self._close()
            return
        self._session = None
        self.stage = Stage.RELAYING
        front.counters.opened += 1
        self.listener.answered(Command.CONNECT, None)
        early, self._early = self._early, b""
        upstream = dial.take_socket()
        if self._p2p and front.services.bitcoin is not None:
            front.reactor.unregister(self._sock.fileno())
            front.reactor.unregister(upstream.fileno())
            self._start(self._carry(front.services.bitcoin, upstream, early))
            return
        up = Direction(self._sock, upstream, early, readable=self._readable, ending=self._ending)
        down = Direction(
            upstream, self._sock, dial.leftover, readable=dial.readable, ending=dial.ending
        )
        self._relay(up, down)

    def _relay(self, up: Direction, down: Direction) -> None:
        services = self.listener.front.services
        services.deadlines.clear(self)
        timed = TimedRelay(services, up, down, self._relayed)
        self.relay = timed.relay
        self.relay.run()

    async def _carry(self, bitcoin: Bitcoin, upstream: socket.socket, early: bytes) -> None:
        """Hand both sockets to the Bitcoin side, which ends with them or gives them back."""
        reactor, request, target = self.listener.front.reactor, self.request, self._target
        assert request is not None
        assert target is not None
        flow = self.flow = Flow(request.key, target)
        untranslated = await bitcoin.carry(self._sock, early, upstream, flow, self.client or b"")
        if untranslated is not None:
            reactor.register(self._sock.fileno(), self)
            reactor.register(upstream.fileno(), self)
            up = Direction(self._sock, upstream, untranslated.first)
            self._relay(up, Direction(upstream, self._sock))

    def _relayed(self) -> None:
        counters = self.listener.front.counters
        counters.bytes_up += self.bytes_up
        counters.bytes_down += self.bytes_down
        spliced_up, spliced_down = self.bytes_spliced
        counters.spliced_up += spliced_up
        counters.spliced_down += spliced_down
        self._forget()

    # Closing

    def _refuse(self, kind: ErrorKind) -> None:
        if self.stage in (Stage.CLOSING, Stage.CLOSED):
            return
        if self.request is None:
            self.listener.greeted(None, kind)
        else:
            self.listener.answered(self.request.command, kind)
        self._say_and_close(self._session.refuse(kind) if self._session is not None else b"")

    def _say(self, data: bytes) -> bool:
        """Write a few bytes to a client whose buffer is empty; False when it is gone."""
        try:
            return self._sock.send(data) == len(data)
        except OSError:
            return False

    def _say_and_close(self, words: bytes) -> None:
        front = self.listener.front
        self.stage = Stage.CLOSING
        self._session = None
        front.services.deadlines.clear(self)
        self._farewell = LingeringClose(
            front.reactor, front.services.deadlines, self._sock, words, self._forget
        )

    def _close(self) -> None:
        if self.stage is Stage.CLOSED:
            return
        self.listener.front.reactor.forget(self._sock.fileno())
        self._sock.close()
        self._forget()

    def _forget(self) -> None:
        front = self.listener.front
        self.stage = Stage.CLOSED
        self._session = None
        if self._dial is not None:
            self._dial.cancel()
            self._dial = None
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()
        self._task = None
        front.services.deadlines.clear(self)
        front.ended(self)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._task = self.listener.front.services.spawn(work)
        task.add_done_callback(self._task_ended)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        if self._task is task:
            self._task = None
        if self.stage is Stage.RELAYING and self.relay is None:
            self._relayed()
        with contextlib.suppress(asyncio.CancelledError):
            error = task.exception()
            if error is not None:
                self.listener.front.internal_error(self, error)
