"""What the main process tells its workers.

Orders are pickled: a worker believes its parent, over a socket nobody else has.  The
other direction is JSON that is checked (`report`), because a worker reads what clients
send.  Each order has a ticket, which the answer names.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass, replace

from isoproxy.errors import ErrorKind
from isoproxy.front.listener import ListenerSettings
from isoproxy.front.services import Limits
from isoproxy.net.target import Target
from isoproxy.tor.dialer import DialerSettings
from isoproxy.workers.channel import MAX_MESSAGE, MAX_SOCKETS

_BESIDE_SETTINGS = 1024
"""Bytes of an order that are not its settings, and more."""
SMALLEST_SHARE = 64
"""Connections; where a worker's share of a budget would be smaller it gets no clients."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What a worker serves by; the sockets of `listeners` come with the order.

    ports_of_main   destination ports whose streams the main process carries
    log             level, form, and whether it is scrubbed
    """

    listeners: tuple[ListenerSettings, ...]
    limits: Limits
    dialer: DialerSettings
    ports_of_main: frozenset[int]
    log: tuple[str, str, bool]


@dataclass(frozen=True, slots=True, repr=False)
class Begin:
    """The first order.  `epoch` comes from `Isolator.export_state`; `workers` counts all."""

    ticket: int
    epoch: bytes
    verbatim: bool
    workers: int
    settings: Settings


@dataclass(frozen=True, slots=True)
class Configure:
    """Serve by other settings from now on; connections stay."""

    ticket: int
    settings: Settings


@dataclass(frozen=True, slots=True, repr=False)
class Epoch:
    """A new epoch began; the answer says that nothing of the old one opens anything now."""

    ticket: int
    epoch: bytes


@dataclass(frozen=True, slots=True)
class Tell:
    """Report; without `flows` the counts only."""

    ticket: int


@dataclass(frozen=True, slots=True)
class Drain:
    """Accept nobody any more, give connections `seconds`, and end."""

    ticket: int
    seconds: float


Order = Begin | Configure | Epoch | Tell | Drain


@dataclass(frozen=True, slots=True)
class NameReply:
    """What a name stands for, or why that is not known; it answers a question's number."""

    number: int
    target: Target | None = None
    kind: ErrorKind | None = None

    def __repr__(self) -> str:
        return f"<NameReply {self.number}>"


@dataclass(frozen=True, slots=True)
class ProvenReply:
    """Whether a peer is proven to speak v2."""

    number: int
    proven: bool


Reply = NameReply | ProvenReply


def encode(order: Order) -> bytes:
    return pickle.dumps(order)


def decode(message: bytes) -> Order:
    order = pickle.loads(message)  # noqa: S301 - the parent's own words
    assert isinstance(order, Order)
    return order


def fitting(settings: Settings) -> Settings:
    """`settings` with as many listeners as an order can bring: the main process has them all."""
    fewer = replace(settings, listeners=settings.listeners[:MAX_SOCKETS])
    fits = len(pickle.dumps(fewer)) <= MAX_MESSAGE - _BESIDE_SETTINGS
    return fewer if fits else replace(settings, listeners=())


def share_of(limits: Limits, processes: int) -> Limits:
    """A worker's part of the budgets; zero connections where that would be too few."""
    total = limits.max_connections // processes
    per_client = limits.max_connections_per_client // processes
    if min(total, per_client) < SMALLEST_SHARE:
        total = per_client = 0
    return replace(limits, max_connections=total, max_connections_per_client=per_client)


def rest_of(limits: Limits, processes: int) -> Limits:
    """What is left of the budgets for the main process: all parts together are the whole."""
    share, others = share_of(limits, processes), processes - 1
    return replace(
        limits,
        max_connections=limits.max_connections - others * share.max_connections,
        max_connections_per_client=limits.max_connections_per_client
        - others * share.max_connections_per_client,
    )
