"""The only way out: streams through Tor's SocksPort, each with a key.

Theory of operation
    `Dialer.start` begins a `Dial`: it waits for a slot if its circuit has to be built
    (see `circuits`), connects to the SocksPort, and runs the SOCKS5 handshake with
    credentials derived from (key, purpose), without a task; `connect` is the same for
    callers that await.

    Bytes behind Tor's reply are the far end's.  They are left in the kernel: the
    handshake never reads more than it needs.

Invariants
    * No key, no dial: there is no argument whose absence means "not isolated".  A key of
      an old epoch is refused.
    * Only a validated `Target` is written to Tor, and never one whose top-level label
      means nothing there.
    * Nothing but the SocksPort is ever connected to.
    * Every dial ends: by reply, by error or by its deadline; its socket is closed unless
      it was handed over.
"""

from __future__ import annotations

import asyncio
import errno
import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from isoproxy.errors import ErrorKind, PolicyRefusal
from isoproxy.isolation import (
    CredentialForm,
    IsolationKey,
    Isolator,
    Purpose,
    upstream_credentials,
)
from isoproxy.net.deadlines import Deadlines
from isoproxy.net.endpoint import Endpoint
from isoproxy.net.reactor import Reactor
from isoproxy.net.target import NEVER_SENT_TO_TOR, Target
from isoproxy.socks import Client, Command
from isoproxy.tor.circuits import CircuitBudget
from isoproxy.tor.dial import Dial

DIAL_TIMEOUT_S: Final = 120.0
_LABEL: Final = "[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_STRICT: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
SEND_BUFFER: Final = 16384
"""Bytes of SO_SNDBUF towards Tor: a fast local upload can otherwise keep Tor reading."""


@dataclass(frozen=True, slots=True)
class DialerSettings:
    """What a dialer is built with.

    never_sent_to_tor    top-level labels refused here, whoever asks
    timeout_s            seconds a stream may take to open, queueing included
    max_pending_circuits Tor allows 32
    send_buffer          bytes of SO_SNDBUF towards Tor, 0 for the system's own
    onions_of_listeners  onion services (without .onion) for which Tor has a client key, and the
                         one listener whose clients may go there
    strict_names         refuse names on which an Arti hangs up: those with underscores, with
                         hyphens at the end of a label, and with labels of more than 63 bytes
    """

    socks: Endpoint
    never_sent_to_tor: frozenset[str] = NEVER_SENT_TO_TOR
    timeout_s: float = DIAL_TIMEOUT_S
    max_pending_circuits: int = 24
    send_buffer: int = SEND_BUFFER
    onions_of_listeners: Mapping[str, str] = field(default_factory=dict)
    strict_names: bool = False


class Dialer:
    """Opens streams through one SocksPort."""

    def __init__(
        self,
        reactor: Reactor,
        isolator: Isolator,
        settings: DialerSettings,
        *,
        form: CredentialForm = CredentialForm.PROP351,
    ) -> None:
        self.reactor = reactor
        self.loop = reactor.loop
        self.isolator = isolator
        self.form = form
        self.circuits = CircuitBudget(self.loop)
        self.follow(settings)
        self._deadlines = Deadlines(self.loop)
        self._active: set[Dial] = set()
        isolator.on_new_epoch(self.circuits.forget_all)

    def follow(self, settings: DialerSettings) -> None:
        """Dial by other settings from now on; dials under way stay as they are."""
        self.settings = settings
        pending, socks = settings.max_pending_circuits, settings.socks
        self.circuits.resize(pending, reserve=pending // 4)
        self._address = None if socks.is_none else socks.address
        self._family = socks.family

    @property
    def pending(self) -> int:
        """Dials that are not over."""
        return len(self._active)

    def start(
        self,
        key: IsolationKey,
        purpose: Purpose,
        target: Target,
        done: Callable[[Dial], None],
        *,
        command: Command = Command.CONNECT,
        client: bytes = b"",
        optimistic_data: bytes = b"",
        timeout: float | None = None,
        read_ahead: bool = False,
        listener: str = "",
    ) -> Dial:
        """Begin a dial; `done(dial)` is called when it is over, possibly before the return.

        `client` says on whose behalf, for fairness among those that wait for circuits.
        With `read_ahead` the far end's first bytes may come in `dial.leftover`; without,
        they stay in the kernel.  `listener` is where the client came in.
        Raises PolicyRefusal for a target that must never reach Tor or that none could take
        (there is no stream to port 0), and for an onion service whose client key is another
        listener's.
        """
        if not target.may_be_sent_to_tor(self.settings.never_sent_to_tor):
            raise PolicyRefusal(kind=ErrorKind.NAME_NEVER_SENT_TO_TOR)
        if target.is_onion and not self._may_visit(target.host, listener):
            raise PolicyRefusal(kind=ErrorKind.ONION_AUTH_MISSING)
        if self.settings.strict_names and not (target.is_ip or _STRICT.fullmatch(target.host)):
            raise PolicyRefusal(kind=ErrorKind.NAME_SYNTAX)
        if command is Command.CONNECT and not target.port:
            raise PolicyRefusal(kind=ErrorKind.NAME_SYNTAX)
        credentials = upstream_credentials(key, purpose, self.form)
        handshake = Client(
            command,
            target.host if target.is_ip else target.host.encode("ascii"),
            target.port,
            username=credentials.username,
            password=credentials.password,
            optimistic_data=optimistic_data,
        )
        # A number will do: it is remembered for hours, and all that it decides is who waits.
        circuit = hash((credentials.username, credentials.password))
        dial = Dial(
            self.reactor,
            self.isolator,
            key,
            circuit,
            handshake,
            self._open_socket,
            self._over,
            done,
            read_ahead=read_ahead,
        )
        self._active.add(dial)
        self._deadlines.set(dial, self.settings.timeout_s if timeout is None else timeout)
        if self.circuits.stands(circuit):
            dial.begin()
        else:
            dial.want_slot(self.circuits.request(circuit, client, dial.begin))
        return dial

    def _may_visit(self, host: str, listener: str) -> bool:
        """Whether no other listener has the client key of the onion service at `host`."""
        return self.settings.onions_of_listeners.get(host.split(".")[-2], listener) == listener

    async def connect(
        self,
        key: IsolationKey,
        purpose: Purpose,
        target: Target,
        *,
        client: bytes = b"",
        timeout: float | None = None,
        listener: str = "",
    ) -> socket.socket:
        """A connected, non-blocking socket through Tor; raises DialError or PolicyRefusal."""
        outcome: asyncio.Future[socket.socket] = self.loop.create_future()

        def done(dial: Dial) -> None:
            if outcome.done():
                return
            if dial.error is not None:
                outcome.set_exception(dial.error)
                return
            sock = dial.take_socket()
            self.reactor.unregister(sock.fileno())
            outcome.set_result(sock)

        dial = self.start(
            key, purpose, target, done, client=client, timeout=timeout, listener=listener
        )
        try:
            return await outcome
        except asyncio.CancelledError:
            dial.cancel()
            if outcome.done() and not outcome.cancelled() and outcome.exception() is None:
                outcome.result().close()
            raise

    def move(self, socks: Endpoint) -> bool:
        """Dial through the SocksPort at `socks` from now on; says whether it was another."""
        moved = self.settings.socks != socks
        if moved:
            self.follow(replace(self.settings, socks=socks))
        return moved

    def close(self) -> None:
        """End every dial with an error and open no more timers."""
        for dial in tuple(self._active):
            dial.fail(ErrorKind.TOR_UNREACHABLE)
        self._deadlines.close()
        self.circuits.close()

    def _open_socket(self) -> socket.socket:
        """A socket that is connected, or connecting, to the SocksPort; raises OSError."""
        if self._address is None:
            raise OSError(errno.EDESTADDRREQ, "there is no SocksPort")
        sock = socket.socket(self._family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            if self.settings.send_buffer:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self.settings.send_buffer)
            if self._family is not socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            code = sock.connect_ex(self._address)
            if code not in (0, errno.EINPROGRESS):
                raise OSError(code, "the SocksPort does not answer")
        except BaseException:
            sock.close()
            raise
        return sock

    def _over(self, dial: Dial) -> None:
        if dial.reply is not None:
            self.circuits.succeeded(dial.circuit)
        self._deadlines.clear(dial)
        self._active.discard(dial)
