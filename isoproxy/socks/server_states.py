"""The listener's side of a SOCKS handshake as a table (RFC 1928 §3-4, RFC 1929 §2, SOCKS4a).

In a state only the events of its row can happen; what else a client says breaks the
protocol, or waits.  The diagram in docs/architecture.md is drawn from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final


class ServerState(Enum):
    """What the client is expected to send next."""

    __hash__ = object.__hash__  # a member is itself alone; Enum hashes its name, in Python

    VERSION = "version"
    AUTHENTICATION = "authentication"
    REQUEST = "request"
    SOCKS4 = "socks4"
    REQUESTED = "requested"
    CLOSED = "closed"


class ServerEvent(Enum):
    """What the client has sent, or is refused for."""

    __hash__ = object.__hash__  # a member is itself alone; Enum hashes its name, in Python

    OFFERED_CREDENTIALS = "SOCKS5, a user name and password are asked for"
    OFFERED_NO_AUTH = "SOCKS5, none are asked for"
    SPOKE_SOCKS4 = "SOCKS4"
    SENT_UNASKED = "credentials all the same"
    AUTHENTICATED = "credentials"
    REQUESTED = "a request"
    REFUSED = "refused"


SERVER_TRANSITIONS: Final[Mapping[ServerState, Mapping[ServerEvent, ServerState]]] = {
    ServerState.VERSION: {
        ServerEvent.OFFERED_CREDENTIALS: ServerState.AUTHENTICATION,
        ServerEvent.OFFERED_NO_AUTH: ServerState.REQUEST,
        ServerEvent.SPOKE_SOCKS4: ServerState.SOCKS4,
        ServerEvent.REFUSED: ServerState.CLOSED,
    },
    ServerState.AUTHENTICATION: {
        ServerEvent.AUTHENTICATED: ServerState.REQUEST,
        ServerEvent.REFUSED: ServerState.CLOSED,
    },
    ServerState.REQUEST: {
        ServerEvent.SENT_UNASKED: ServerState.AUTHENTICATION,
        ServerEvent.REQUESTED: ServerState.REQUESTED,
        ServerEvent.REFUSED: ServerState.CLOSED,
    },
    ServerState.SOCKS4: {
        ServerEvent.REQUESTED: ServerState.REQUESTED,
        ServerEvent.REFUSED: ServerState.CLOSED,
    },
    ServerState.REQUESTED: {},
    ServerState.CLOSED: {},
}
