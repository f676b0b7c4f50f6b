"""What a front end counts, and how one of its connections is shown.

Invariants
    Nothing in here identifies a client or says where a stream goes: counts belong to
    listeners, protocols, commands and kinds of refusals.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from isoproxy.errors import ErrorKind
from isoproxy.front.judgement import ProxyRequest
from isoproxy.isolation import ClientProtocol, Credentials, IsolationKey, Purpose
from isoproxy.observe.log import Sensitive, logger
from isoproxy.observe.metrics import Histogram
from isoproxy.socks import Command
from isoproxy.tls.outcome import TlsOutcome

_log: Final = logger("front")


@dataclass(slots=True)
class Counters:
    """What has happened since the start, in all listeners of a process."""

    opened: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    spliced_up: int = 0
    """Of the bytes up, those that were moved within the kernel."""
    spliced_down: int = 0
    defects: int = 0
    fd_exhaustion: int = 0
    refusals: Counter[ErrorKind] = field(default_factory=Counter)
    handshakes: Counter[tuple[str, ClientProtocol | None, ErrorKind | None]] = field(
        default_factory=Counter
    )
    """By listener, protocol (None: it never became clear) and refusal (None: complete)."""
    requests: Counter[tuple[str, Command, ErrorKind | None]] = field(default_factory=Counter)
    """By listener, command and refusal (None: fulfilled)."""
    dials: Histogram = field(default_factory=Histogram)
    """Seconds from a request to Tor's answer."""
    https: Counter[TlsOutcome] = field(default_factory=Counter)
    """What became of streams that were answered with TLS."""

    def add(self, other: Counters) -> None:
        """Count what another process has counted as well."""
        self.opened += other.opened
        self.bytes_up += other.bytes_up
        self.bytes_down += other.bytes_down
        self.spliced_up += other.spliced_up
        self.spliced_down += other.spliced_down
        self.defects += other.defects
        self.fd_exhaustion += other.fd_exhaustion
        self.refusals.update(other.refusals)
        self.handshakes.update(other.handshakes)
        self.requests.update(other.requests)
        self.dials.add(other.dials)
        self.https.update(other.https)


class ListenerStatistics:
    """What one listener counts, into the `counters` of its process.

    `listener` is its name, which a reload may change; `accepted` counts its clients, and
    `open` those that are still there.
    """

    __slots__ = ("accepted", "counters", "listener", "open")

    def __init__(self, listener: str, counters: Counters, accepted: Counter[str]) -> None:
        self.listener = listener
        self.counters = counters
        self.accepted = accepted
        self.open = 0

    def admitted(self) -> None:
        """Count a client that came, served or not."""
        self.accepted[self.listener] += 1

    def greeted(self, protocol: ClientProtocol | None, refusal: ErrorKind | None) -> None:
        """Count a handshake that came to an end, with a request or with a refusal."""
        self.counters.handshakes[self.listener, protocol, refusal] += 1
        if refusal is not None:
            self.refused(refusal)

    def requested(self, request: ProxyRequest) -> None:
        """Count a handshake that became a request; say in the log, to those who debug, which."""
        stream = request.stream
        self.greeted(stream.protocol, None)
        if _log.debugging:
            _log.debug(
                "request",
                listener=self.listener,
                protocol=stream.protocol.name,
                command=request.command.name,
                key=request.key.label,
                target=Sensitive(request.target.host),
                port=Sensitive(request.target.port),
                username=Sensitive(stream.username),
                password=Sensitive(stream.password),
            )

    def answered(self, command: Command, refusal: ErrorKind | None) -> None:
        """Count a request that was fulfilled, or refused."""
        self.counters.requests[self.listener, command, refusal] += 1
        if refusal is not None:
            self.refused(refusal)

    def refused(self, kind: ErrorKind) -> None:
        """Count a client that was refused."""
        self.counters.refusals[kind] += 1
        _log.debug("refused", listener=self.listener, kind=kind)

    def opened(self) -> None:
        """Count a stream that was opened."""
        self.counters.opened += 1
        self.answered(Command.CONNECT, None)

    def dialled(self, seconds: float) -> None:
        """Count a dial that was answered after `seconds`."""
        self.counters.dials.observe(seconds)

    def secured(self, outcome: TlsOutcome | None) -> None:
        """Count what became of a stream that was to be answered with TLS; None: it was left."""
        if outcome is not None:
            self.counters.https[outcome] += 1

    def relayed(self, up: int, down: int, spliced: tuple[int, int]) -> None:
        """Count the bytes of a stream that has ended; `spliced` of them up and down."""
        counters = self.counters
        counters.bytes_up += up
        counters.bytes_down += down
        counters.spliced_up += spliced[0]
        counters.spliced_down += spliced[1]


@dataclass(frozen=True, slots=True)
class FlowView:
    """One connection as `isoproxy status` shows it: no name, no address, no credential.

    `carrier` is what its circuit is chosen by (of a worker's, what Tor knows it by), None
    before it is known; `target` is what the client asked for, which shows where safe
    logging is off.
    """

    listener: str
    stage: str
    key: str
    age_s: float
    bytes_up: int
    bytes_down: int
    spliced: tuple[int, int] = (0, 0)
    carrier: tuple[IsolationKey, Purpose] | Credentials | None = None
    target: Sensitive | None = None


def destinations_without_credentials(requests: Iterable[ProxyRequest]) -> int:
    """To how many hosts the busiest identity without user name and password is connected.

    Only the number leaves: a program that sends no credentials where they alone tell
    identities apart lets all its destinations be linked.
    """
    hosts: defaultdict[IsolationKey, set[str]] = defaultdict(set)
    for request in requests:
        if not request.stream.username and not request.stream.password:
            hosts[request.key].add(request.target.host)
    return max(map(len, hosts.values()), default=0)
