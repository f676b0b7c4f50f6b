"""What the main process tells a stream process.

Theory of operation
    Orders and replies are pickled: a stream process believes its parent, over a socket
    nobody else has.  The other direction is JSON that is checked (`report`, `questions`),
    because a stream process reads what clients send.  Each order has a ticket, which the
    report that answers it names; each reply has the number of its question.

    What is too long for a packet of the channel, or brings more sockets than one can
    carry, goes in several: the first byte of each says whether more follow.
"""

from __future__ import annotations

import pickle
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from isoproxy.bitcoin.carry import CarrySettings
from isoproxy.bitcoin.inbound import InboundSettings
from isoproxy.bitcoin.known_peers import Spoken
from isoproxy.bitcoin.proxy import ProxySettings
from isoproxy.errors import ErrorKind
from isoproxy.front.listener import ListenerSettings
from isoproxy.front.services import Limits
from isoproxy.front.transparent import Program
from isoproxy.net.target import Target
from isoproxy.tls.certificates import Issuer
from isoproxy.tor.dialer import DialerSettings
from isoproxy.workers.channel import MAX_MESSAGE, MAX_SOCKETS

_MORE, _LAST = b"+", b"."


@dataclass(frozen=True, slots=True)
class ProxyPlan:
    """A Bitcoin proxy: where it listens, how it serves, and how it carries flows."""

    listener: ListenerSettings
    proxy: ProxySettings
    carrying: CarrySettings


@dataclass(frozen=True, slots=True)
class BitcoinSettings:
    """How streams to and from Bitcoin peers are carried.

    `carrying` is for the front end's streams; `inbound` is by the onion service's name.
    """

    carrying: CarrySettings = field(default_factory=CarrySettings)
    proxies: tuple[ProxyPlan, ...] = ()
    inbound: Mapping[str, InboundSettings] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TransparentPlan:
    """Listeners for programs that know no proxy, and the DNS that goes with them.

    `place` tells it from all others; `listeners` of its `sockets` are for TCP, the rest for
    DNS over UDP; `families` are the record types that are answered; `program` is the one that
    all is for, None where clients are told apart by address.
    """

    place: str
    listener: ListenerSettings
    listeners: int
    sockets: int
    families: frozenset[int]
    program: Program | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """What a stream process serves by.

    The sockets of listeners, transparent plans, proxies and inbound services come with the
    order, in that sequence.  Budgets are this process's part.

    name_deadline_s     seconds in which the main process has an answer for a name
    log                 level, form, and whether it is scrubbed
    tls                 signs for names under bit, where a listener answers TLS
    """

    listeners: tuple[ListenerSettings, ...]
    limits: Limits
    dialer: DialerSettings
    bitcoin: BitcoinSettings
    name_deadline_s: float
    log: tuple[str, str, bool]
    transparent: tuple[TransparentPlan, ...] = ()
    tls: Issuer | None = None


@dataclass(frozen=True, slots=True, repr=False)
class Begin:
    """The first order.

    `epoch` comes from `Isolator.export_state`; `processes` is how many carry streams.
    """

    ticket: int
    epoch: bytes
    verbatim: bool
    processes: int
    settings: Settings


@dataclass(frozen=True, slots=True)
class Configure:
    """Serve by other settings from now on; connections stay."""

    ticket: int
    settings: Settings


@dataclass(frozen=True, slots=True, repr=False)
class Epoch:
    """A new epoch began, or an identity of this one was given another key.

    The answer says that nothing of what is over opens anything now.
    """

    ticket: int
    epoch: bytes


@dataclass(frozen=True, slots=True)
class StatsRequest:
    """Report, with all flows."""

    ticket: int


@dataclass(frozen=True, slots=True)
class SumsRequest:
    """Answer, to show that you can; as any answer it brings what has been counted."""

    ticket: int


@dataclass(frozen=True, slots=True)
class Drain:
    """Accept no client any more, give connections `seconds`, and end."""

    ticket: int
    seconds: float


Order = Begin | Configure | Epoch | StatsRequest | SumsRequest | Drain


@dataclass(frozen=True, slots=True, repr=False)
class NameReply:
    """What the name of question `number` stands for, or why that is not known.

    `tlsa` is of a site (`Want.SITE`): the data of its TLSA records.
    """

    number: int
    target: Target | None = None
    kind: ErrorKind | None = None
    tlsa: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class PeerReply:
    """What the peer of question `number` has spoken."""

    number: int
    spoken: Spoken


Reply = NameReply | PeerReply


def packets(
    message: Order | Reply, sockets: Sequence[socket.socket] = ()
) -> Iterator[tuple[bytes, Sequence[socket.socket]]]:
    """The packets that bring `message` and `sockets`."""
    words, size = pickle.dumps(message), MAX_MESSAGE - 1
    count = max(1, -(-len(words) // size), -(-len(sockets) // MAX_SOCKETS))
    for number in range(count):
        mark = _LAST if number == count - 1 else _MORE
        with_it = sockets[number * MAX_SOCKETS : (number + 1) * MAX_SOCKETS]
        yield mark + words[number * size : (number + 1) * size], with_it


class Inbox:
    """Puts the packets of the parent's messages together."""

    def __init__(self) -> None:
        self._words = bytearray()
        self._sockets: list[socket.socket] = []

    def take(
        self, packet: bytes, sockets: list[socket.socket]
    ) -> tuple[Order | Reply, list[socket.socket]] | None:
        """The message that `packet` completes, and its sockets; None if more follows."""
        self._words += packet[1:]
        self._sockets += sockets
        if packet[:1] == _MORE:
            return None
        message = pickle.loads(self._words)  # noqa: S301 - the parent's own words
        assert isinstance(message, Order | Reply)
        whole, self._words, self._sockets = self._sockets, bytearray(), []
        return message, whole
