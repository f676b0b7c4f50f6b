"""The life of a client as a table: in which state what may happen, and what comes then.

Theory of operation
    A connection is in one state at a time, and each state has one phase, an object with
    exactly what is valid in it.  A phase ends with an event and names the phase that comes
    next; `Connection.enter` looks the event up here.  What is not in the table cannot
    happen.  The diagram in docs/architecture.md is drawn from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final


class State(Enum):
    """Where a connection is in its life; the value is shown by `isoproxy status`."""

    __hash__ = object.__hash__  # a member is itself alone; Enum hashes its name, in Python

    HANDSHAKE = "handshake"
    OPENING = "opening"
    RELAYING = "relaying"
    CLOSING = "closing"
    CLOSED = "closed"


class Event(Enum):
    """How a phase ends."""

    __hash__ = object.__hash__  # a member is itself alone; Enum hashes its name, in Python

    REQUESTED = "the request is complete and may be tried"
    ANSWERED = "the client is told the answer, or why there is none"
    OPENED = "Tor has opened the stream"
    FOR_BITCOIN = "the client speaks Bitcoin v1 on a port that is not listed"
    ENDED = "both sides have ended, or one broke"


TRANSITIONS: Final[Mapping[State, Mapping[Event, State]]] = {
    State.HANDSHAKE: {
        Event.REQUESTED: State.OPENING,
        Event.ANSWERED: State.CLOSING,
        Event.ENDED: State.CLOSED,
    },
    State.OPENING: {
        Event.OPENED: State.RELAYING,
        Event.ANSWERED: State.CLOSING,
        Event.ENDED: State.CLOSED,
    },
    State.RELAYING: {
        Event.FOR_BITCOIN: State.OPENING,
        Event.ENDED: State.CLOSED,
    },
    State.CLOSING: {
        Event.ENDED: State.CLOSED,
    },
    State.CLOSED: {},
}
