"""One Bitcoin flow: whose it is, how far it is, and what a status page shows of it.

Theory of operation
    `TRANSITIONS` holds the states of `carry` and what leads from one to the next.  A
    translation is one state, v2's handshake included: whether that is over, the translator
    knows.  The names of transports are Bitcoin Core's (`getpeerinfo`,
    `transport_protocol_type`), and `untouched` for what was not ours to translate.

Invariants
    `carry` alone moves a flow on.  A flow refers to its translator, never the other way:
    the buffers of a flow go when it does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from isoproxy.bitcoin.converter import Ending
from isoproxy.bitcoin.messages import Network
from isoproxy.bitcoin.translator import Translator
from isoproxy.errors import ErrorKind
from isoproxy.isolation import IsolationKey
from isoproxy.net.target import Target


class TransportType(Enum):
    """What is spoken with the peer; DETECTING until its version packet is authenticated."""

    DETECTING = "detecting"
    V1 = "v1"
    V2 = "v2"
    UNTOUCHED = "untouched"


class State(Enum):
    """How far a flow is."""

    SNIFFING = "sniffing"
    TRANSLATING = "translating"
    REDIALLING = "redialling"
    V1 = "v1"
    UNTOUCHED = "untouched"
    CLOSED = "closed"


class Event(Enum):
    """What moves a flow on."""

    V1_CLIENT = "the client speaks v1"
    OTHER_CLIENT = "the client speaks something else"
    V1_PEER = "the peer is a v1 peer, and v1 is allowed"
    NO_V2 = "the peer has no v2, and v1 is allowed"
    DIALLED = "a second stream is open"
    ENDED = "one side has ended"


TRANSITIONS: Final[Mapping[State, Mapping[Event, State]]] = {
    State.SNIFFING: {
        Event.V1_CLIENT: State.TRANSLATING,
        Event.V1_PEER: State.V1,
        Event.OTHER_CLIENT: State.UNTOUCHED,
        Event.ENDED: State.CLOSED,
    },
    State.TRANSLATING: {
        Event.NO_V2: State.REDIALLING,
        Event.ENDED: State.CLOSED,
    },
    State.REDIALLING: {
        Event.DIALLED: State.V1,
        Event.ENDED: State.CLOSED,
    },
    State.V1: {
        Event.ENDED: State.CLOSED,
    },
    State.UNTOUCHED: {
        Event.ENDED: State.CLOSED,
    },
    State.CLOSED: {},
}


class ClosedBy(Enum):
    """Whose doing the end of a flow was; the value is the metric label.

    CLIENT is the program on this side, the local node of a flow that came in.  PEER is the
    far end, or the path to it: both look the same from here.
    """

    CLIENT = "client"
    PEER = "peer"
    US = "us"
    TOR = "tor"

    def mirrored(self) -> ClosedBy:
        """The same, seen from the other side."""
        return {ClosedBy.CLIENT: ClosedBy.PEER, ClosedBy.PEER: ClosedBy.CLIENT}.get(self, self)


_CLOSED_BY: Final = {
    Ending.CLIENT_CLOSED: ClosedBy.CLIENT,
    Ending.PEER_CLOSED: ClosedBy.PEER,
    Ending.DIAL_FAILED: ClosedBy.TOR,
}
"""All others are ours, where no relay says whose."""

_SPOKEN: Final = {State.V1: TransportType.V1, State.UNTOUCHED: TransportType.UNTOUCHED}


class V1Reason(Enum):
    """Why a peer is, or would have had to be, spoken to in v1; the value is the metric label."""

    PEER_CLOSED = "peer_closed"
    PEER_SILENT = "peer_silent"
    PEER_SPEAKS_V1 = "peer_speaks_v1"
    REMEMBERED = "remembered"


@dataclass(slots=True)
class RelayedBytes:
    """What was carried as it is, up from who opened the connection, and down to it."""

    bytes_up: int = 0
    bytes_down: int = 0


class Flow:
    """One connection between a program on this side and a peer.

    `key` is None for a peer that came in (`inbound`); `peer` is then the local node.
    `network` is None until it is known.  `ended` says how it ended and `closed_by` by whose
    doing, None while it runs, `v1_reason` why v2 was not possible, `dial_error` why there is
    no second stream.
    """

    __slots__ = (
        "_spoken",
        "closed_by",
        "dial_error",
        "ended",
        "inbound",
        "key",
        "network",
        "peer",
        "relayed",
        "state",
        "translator",
        "v1_reason",
    )

    def __init__(self, key: IsolationKey | None, peer: Target, *, inbound: bool = False) -> None:
        self.key = key
        self.peer = peer
        self.inbound = inbound
        self.state = State.SNIFFING
        self._spoken: TransportType | None = None
        self.network: Network | None = None
        self.translator: Translator | None = None
        self.relayed = RelayedBytes()
        self.v1_reason: V1Reason | None = None
        self.ended: Ending | None = None
        self.closed_by: ClosedBy | None = None
        self.dial_error: ErrorKind | None = None

    def on(self, event: Event) -> None:
        """Move on; a KeyError would be an internal error."""
        self.state = TRANSITIONS[self.state][event]
        self._spoken = _SPOKEN.get(self.state, self._spoken)

    def translate(self, translator: Translator) -> None:
        """`translator` stands between client and peer from now on."""
        self.on(Event.V1_CLIENT)
        self.translator = translator

    def end(self, ending: Ending, closed_by: ClosedBy | None = None) -> None:
        """It is over; what is said about that first stays."""
        if self.ended is None:
            self.on(Event.ENDED)
            self.ended = ending
            self.closed_by = closed_by or self._closed_by(ending)

    def _closed_by(self, ending: Ending) -> ClosedBy:
        if ending is Ending.V2_REQUIRED and self.v1_reason is V1Reason.PEER_CLOSED:
            return ClosedBy.PEER
        return _CLOSED_BY.get(ending, ClosedBy.US)

    @property
    def transport(self) -> TransportType:
        if self._spoken is None and self.translator is not None and self.translator.ready:
            return TransportType.V2
        return self._spoken or TransportType.DETECTING

    @property
    def fell_back(self) -> bool:
        """Whether v1 was spoken with a peer that was to be spoken to in v2."""
        return self.v1_reason is not None and self._spoken is TransportType.V1

    @property
    def session_id(self) -> str:
        """As the peer shows it: 64 hex digits, "" while there is none."""
        return self.translator.session_id if self.translator is not None else ""

    @property
    def bytes_up(self) -> int:
        """Bytes sent to the peer, on all its streams."""
        translated = self.translator.to_peer.wire if self.translator is not None else 0
        relayed = self.relayed
        return translated + (relayed.bytes_down if self.inbound else relayed.bytes_up)

    @property
    def bytes_down(self) -> int:
        """Bytes received from the peer."""
        translated = self.translator.to_client.wire if self.translator is not None else 0
        relayed = self.relayed
        return translated + (relayed.bytes_up if self.inbound else relayed.bytes_down)
