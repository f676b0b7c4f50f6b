"""The first phase: what the client says, up to its one request.

Theory of operation
    Bytes go from the socket to the judgement (`judgement`), answers to the greeting back.
    A complete request goes on to `opening`, a refused one to `closing`.

Invariants
    A client has `limits.handshake_timeout_s` seconds for all of it.
"""

from __future__ import annotations

from typing import Final

from isoproxy.errors import ErrorKind, RemoteProtocolError
from isoproxy.front.closing import ClosingPhase
from isoproxy.front.connection import Connection, Phase
from isoproxy.front.judgement import ClientHandshake, FinalReply, HandshakeRule
from isoproxy.front.opening import OpeningPhase
from isoproxy.front.securing import SiteOpeningPhase
from isoproxy.front.states import Event
from isoproxy.net.reactor import BROKEN, PEER_SHUT

_CHUNK: Final = 1 << 14


class HandshakePhase(Phase):
    """A client of a listener with this `rule`."""

    __slots__ = ("_handshake",)

    def __init__(self, connection: Connection, rule: HandshakeRule) -> None:
        super().__init__(connection)
        isolator = connection.services.isolator
        self._handshake = ClientHandshake(rule, isolator, connection.client_id)

    def begin(self) -> None:
        """Raises OSError when the kernel does not watch the socket."""
        connection, services = self.connection, self.connection.services
        services.reactor.register(connection.sock.fileno(), connection)
        services.deadlines.set(self, services.settings.limits.handshake_timeout_s)

    def on_events(self, events: int) -> None:
        ending = bool(events & (PEER_SHUT | BROKEN))
        try:
            while data := self.connection.sock.recv(_CHUNK):
                # A short read has emptied the socket, unless nothing more will come.
                readable = ending or len(data) == _CHUNK
                if self._receive(data, readable) or not readable:
                    return
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            pass
        self.abort()

    def on_deadline(self) -> None:
        kind = ErrorKind.HANDSHAKE_TIMEOUT
        self.connection.statistics.greeted(None, kind)
        self._close(self._handshake.refuse(kind))

    def abort(self) -> None:
        self._stop_waiting()
        self.connection.hang_up()

    def _receive(self, data: bytes, readable: bool) -> bool:
        """Judge what was read; True when this phase is over."""
        connection, handshake = self.connection, self._handshake
        try:
            outcome = handshake.receive(data)
        except RemoteProtocolError as error:
            connection.statistics.greeted(handshake.protocol, error.kind)
            self._close(error.reply)
            return True
        if isinstance(outcome, FinalReply):
            connection.statistics.greeted(handshake.protocol, None)
            connection.statistics.answered(outcome.command, outcome.kind)
            self._close(outcome.reply)
            return True
        out = handshake.data_to_send()
        if out and not connection.send(out):
            self.abort()
            return True
        if outcome is None:
            return False
        connection.statistics.requested(outcome)
        self._stop_waiting()
        phase = SiteOpeningPhase if outcome.tls else OpeningPhase
        opening = phase(connection, handshake, outcome, readable=readable)
        connection.enter(Event.REQUESTED, opening)
        return True

    def _stop_waiting(self) -> None:
        self.connection.services.deadlines.clear(self)

    def _close(self, reply: bytes) -> None:
        self._stop_waiting()
        self.connection.enter(Event.ANSWERED, ClosingPhase(self.connection, reply))
