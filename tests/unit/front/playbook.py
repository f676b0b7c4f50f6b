"""A connection in a scripted world: no socket, no reactor, no clock, no Tor.

A test says what happens, one event after the other, and looks at what the connection did.
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Callable
from typing import Any, cast

from isoproxy.errors import DialError, ErrorKind
from isoproxy.front.connection import Connection, Phase
from isoproxy.front.handshake import HandshakePhase
from isoproxy.front.judgement import HandshakeRule
from isoproxy.front.pipes import PipePool
from isoproxy.front.services import Bitcoin, FrontServices, FrontSettings, Names
from isoproxy.front.states import Event, State
from isoproxy.front.statistics import ListenerStatistics
from isoproxy.isolation import Isolator, ListenerRule, client_of_address, own_group
from isoproxy.namecoin.value.name import TopLevels
from isoproxy.net.deadlines import Deadlines, Expires
from isoproxy.net.reactor import BROKEN, PEER_SHUT, READABLE, Handler, Reactor
from isoproxy.net.target import Target
from isoproxy.socks import Command, Reply, encode_reply
from isoproxy.tor.dialer import Dialer

GREETING = b"\x05\x01\x00"
REQUEST = b"\x05\x01\x00\x03\x06a.test\x00\x50"
TO_PEER = b"\x05\x01\x00\x03\x06a.test\x20\x8d"
OUR_NAME = b"\x05\x01\x00\x03\x05d.bit\x00\x50"
RESOLVE = b"\x05\xf0\x00\x03\x06a.test\x00\x00"
RESOLVE_PTR = b"\x05\xf1\x00\x01\xc0\x00\x02\x01\x00\x00"
OK = encode_reply(0)

CLIENT = client_of_address("127.0.0.1")
RULE = HandshakeRule(ListenerRule(own_group("test")), top_levels=TopLevels())


class ScriptedSocket:
    """What a test puts in comes out of `recv`; `sent` is what was written."""

    def __init__(self, fd: int) -> None:
        self.incoming: list[bytes] = []
        self.ended = False
        self.reset = False
        self.gone = False
        self.sent = b""
        self.shut = False
        self.closed = False
        self._fd = fd

    def fileno(self) -> int:
        return -1 if self.closed else self._fd

    def recv(self, size: int, flags: int = 0) -> bytes:
        if self.reset:
            raise ConnectionResetError
        if not self.incoming:
            if self.ended:
                return b""
            raise BlockingIOError
        data = self.incoming[0][:size]
        if not flags & socket.MSG_PEEK:
            rest = self.incoming.pop(0)[size:]
            self.incoming[:0] = [rest] if rest else []
        return data

    def recv_into(self, buffer: memoryview) -> int:
        data = self.recv(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def send(self, data: bytes | memoryview) -> int:
        if self.gone or self.shut:
            raise BrokenPipeError
        self.sent += data
        return len(data)

    def shutdown(self, how: int) -> None:
        self.shut = True

    def setsockopt(self, *_: object) -> None:
        self.reset = True

    def close(self) -> None:
        self.closed = True

    def take(self) -> bytes:
        """What was written since the last look."""
        sent, self.sent = self.sent, b""
        return sent


class ScriptedReactor:
    """Who would get the events of which descriptor."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.handlers: dict[int, Handler] = {}

    def register(self, fd: int, handler: Handler) -> None:
        self.handlers[fd] = handler

    set_handler = register

    def forget(self, fd: int) -> None:
        self.handlers.pop(fd, None)

    unregister = forget

    def watch_writable(self, fd: int) -> None:
        assert fd in self.handlers

    def reschedule(self, handler: Handler, fd: int) -> None:
        handler.on_events(fd, 0)


class ScriptedDeadlines:
    """Deadlines that pass when the test says so."""

    def __init__(self) -> None:
        self.due: dict[Expires, float] = {}

    def set(self, who: Expires, seconds: float) -> None:
        self.due[who] = seconds

    def clear(self, who: Expires) -> None:
        self.due.pop(who, None)


class ScriptedDial:
    """A dial that is over when the test says so."""

    age_s = 0.5
    readable = False
    ending = False

    def __init__(self, target: Target, options: dict[str, Any], done: Callable[[Any], None]):
        self.target = target
        self.command: Command = options.get("command", Command.CONNECT)
        self.optimistic_data: bytes = options.get("optimistic_data", b"")
        self.purpose: object = options["purpose"]
        self.leftover = b""
        self.reply: Reply | None = None
        self.error: DialError | None = None
        self.cancelled = self.taken = False
        self.sock = ScriptedSocket(20)
        self._done = done

    def take_socket(self) -> ScriptedSocket:
        self.taken = True
        return self.sock

    def cancel(self) -> None:
        self.cancelled = True

    def over(self) -> None:
        assert not self.cancelled
        self._done(self)


class RecordingConnection(Connection):
    """Remembers every transition."""

    __slots__ = ("walked",)

    def start(self, first: Phase) -> None:
        self.walked: list[tuple[State, Event]] = []
        super().start(first)

    def enter(self, event: Event, phase: Phase) -> None:
        self.walked.append((self.state, event))
        super().enter(event, phase)

    def end(self) -> None:
        self.walked.append((self.state, Event.ENDED))
        super().end()


class Playbook:
    """One client from its first event on; `names` and `bitcoin` are the test's own."""

    def __init__(self, *, names: Names | None = None, bitcoin: Bitcoin | None = None) -> None:
        self.client = ScriptedSocket(10)
        self.reactor = ScriptedReactor()
        self.deadlines = ScriptedDeadlines()
        self.dials: list[ScriptedDial] = []
        self.ended = 0
        self.services = FrontServices(
            cast("Reactor", self.reactor),
            Isolator(),
            cast("Dialer", self),
            cast("Deadlines", self.deadlines),
            PipePool(1 << 16, 0),
            bitcoin,
            FrontSettings(names=names),
        )
        statistics = ListenerStatistics("test", self.services.counters, Counter())
        sock = cast("socket.socket", self.client)
        self.connection = RecordingConnection(self.services, statistics, sock, CLIENT, self._on_end)
        self.connection.start(HandshakePhase(self.connection, RULE))

    def start(
        self, key: object, purpose: object, target: Target, done: Callable[[Any], None], **rest: Any
    ) -> ScriptedDial:
        """What the dialer would do."""
        dial = ScriptedDial(target, {"purpose": purpose, **rest}, done)
        self.dials.append(dial)
        return dial

    @property
    def dial(self) -> ScriptedDial:
        """The dial under way; those before it are over."""
        *before, dial = self.dials
        assert all(one.taken for one in before)
        return dial

    @property
    def state(self) -> State:
        return self.connection.state

    def happens(self, sock: ScriptedSocket, events: int) -> None:
        """Events at a socket go to whoever handles it."""
        handler = self.reactor.handlers.get(sock.fileno())
        if handler is not None:
            handler.on_events(sock.fileno(), events)

    def says(self, data: bytes, *, ending: bool = False) -> bytes:
        """The client says something; what it is told at once."""
        self.client.incoming.append(data)
        self.client.ended = ending
        self.happens(self.client, READABLE | (PEER_SHUT if ending else 0))
        return self.client.take()

    def leaves(self, *, broken: bool = False) -> None:
        """The client ends its side, or breaks the connection."""
        self.client.ended, self.client.reset = not broken, broken
        self.happens(self.client, PEER_SHUT | READABLE | (BROKEN if broken else 0))

    def tor_says(self, data: bytes = b"", *, ending: bool = False) -> None:
        """Tor's side of the stream says something, or ends."""
        sock = self.dial.sock
        sock.incoming += [data] if data else []
        sock.ended = ending
        self.happens(sock, READABLE | (PEER_SHUT if ending else 0))

    def tor_opens(self, leftover: bytes = b"") -> bytes:
        """Tor answers the request; what the client is told."""
        return self.tor_answers(b"", leftover)

    def tor_answers(self, host: Any, leftover: bytes = b"") -> bytes:
        dial = self.dial
        dial.reply = cast("Reply", _Reply(host))
        dial.leftover = leftover
        self.reactor.register(dial.sock.fileno(), cast("Handler", dial))
        dial.over()
        if not dial.taken:  # as a dial does with a socket that is left to it
            self.reactor.forget(dial.sock.fileno())
        return self.client.take()

    def tor_refuses(self, kind: ErrorKind) -> bytes:
        self.dial.error = DialError(kind=kind)
        self.dial.over()
        return self.client.take()

    def time_passes(self) -> bytes:
        """Every deadline that is set passes; what the client is told."""
        for who in list(self.deadlines.due):
            if self.deadlines.due.pop(who, None) is not None:
                who.on_deadline()
        return self.client.take()

    def is_over(self) -> bool:
        """Whether nothing is left of it."""
        return (
            self.state is State.CLOSED
            and self.connection.phase is None
            and self.client.closed
            and self.ended == 1
            and not self.deadlines.due
            and not self.reactor.handlers
        )

    def _on_end(self, connection: Connection) -> None:
        assert connection is self.connection
        self.ended += 1


class _Reply:
    def __init__(self, host: Any) -> None:
        self.host = host


def opening(book: Playbook, request: bytes = REQUEST, early: bytes = b"") -> Playbook:
    """The book at the moment when the request is complete."""
    assert book.says(GREETING) == b"\x05\x00"
    assert book.says(request + early) == b""
    assert book.state is State.OPENING
    return book


async def turns() -> None:
    """Let tasks go on."""
    for _ in range(5):
        await asyncio.sleep(0)
