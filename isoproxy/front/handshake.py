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
from isoproxy.front.judgement import ClientHandshake, FinalReply, HandshakeRule, ProxyRequest
from isoproxy.front.opening import OpeningPhase
from isoproxy.front.states import Event
from isoproxy.net.reactor import BROKEN, PEER_SHUT

_CHUNK: Final = 1 << 14


def replay(handshake: ClientHandshake, heard: bytes) -> ProxyRequest | None:
    """Take what a worker has heard; None when it is no request by the rule of now."""
    try:
        outcome = handshake.receive(heard)
    except RemoteProtocolError:
        return None
    handshake.data_to_send()
    return outcome if isinstance(outcome, ProxyRequest) else None


class HandshakePhase(Phase):
    """A client of a listener with this `rule`."""

    __slots__ = ("_handshake", "_heard", "_place")

    def __init__(
        self, connection: Connection, rule: HandshakeRule, place: tuple[str, str] = ("", "")
    ) -> None:
        super().__init__(connection)
        self._place = place
        self._heard = b""
        isolator = connection.services.isolator
        self._handshake = ClientHandshake(rule, isolator, connection.client_id)

    def begin(self) -> None:
        """Raises OSError when the kernel does not watch the socket."""
        connection, services = self.connection, self.connection.services
        services.reactor.register(connection.sock.fileno(), connection)
        services.deadlines.set(connection, services.settings.limits.handshake_timeout_s)

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
        self.connection.hang_up()

    def _receive(self, data: bytes, readable: bool) -> bool:
        """Judge what was read; True when this phase is over."""
        connection, handshake = self.connection, self._handshake
        if connection.services.main is not None:
            self._heard += data
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
        main = connection.services.main
        if main is not None and main.takes(outcome):
            connection.services.reactor.unregister(connection.sock.fileno())
            main.take(*self._place, self._heard, connection.sock)
            connection.end()
            return True
        connection.statistics.requested(outcome)
        opening = OpeningPhase(connection, handshake, outcome, readable=readable)
        connection.enter(Event.REQUESTED, opening)
        return True

    def resume(self, heard: bytes) -> None:
        """Go on where a worker stopped, which has answered all but the request itself."""
        connection = self.connection
        request = replay(self._handshake, heard)
        if request is None:
            self.abort()
            return
        connection.statistics.requested(request)
        opening = OpeningPhase(connection, self._handshake, request, readable=True)
        connection.enter(Event.REQUESTED, opening)

    def _close(self, reply: bytes) -> None:
        self.connection.enter(Event.ANSWERED, ClosingPhase(self.connection, reply))
