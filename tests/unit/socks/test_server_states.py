"""The server walks its table: each event is something that a client can send."""

from __future__ import annotations

import contextlib

import pytest

from isoproxy.errors import LocalProtocolError, RemoteProtocolError
from isoproxy.socks.server import Server
from isoproxy.socks.server_states import SERVER_TRANSITIONS, ServerEvent, ServerState

LEADS_TO = {
    ServerState.VERSION: b"",
    ServerState.AUTHENTICATION: b"\x05\x01\x02",
    ServerState.REQUEST: b"\x05\x01\x00",
    ServerState.SOCKS4: b"\x04",
    ServerState.REQUESTED: b"\x05\x01\x00\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x50",
    ServerState.CLOSED: b"\x06",
}
SOCKS5_REQUEST = b"\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x50"
SAYS = {
    (ServerState.VERSION, ServerEvent.OFFERED_CREDENTIALS): b"\x05\x02\x00\x02",
    (ServerState.VERSION, ServerEvent.OFFERED_NO_AUTH): b"\x05\x01\x00",
    (ServerState.VERSION, ServerEvent.SPOKE_SOCKS4): b"\x04",
    (ServerState.VERSION, ServerEvent.REFUSED): b"\x05\x01\x09",
    (ServerState.AUTHENTICATION, ServerEvent.AUTHENTICATED): b"\x01\x01u\x01p",
    (ServerState.AUTHENTICATION, ServerEvent.REFUSED): b"\x02",
    (ServerState.REQUEST, ServerEvent.SENT_UNASKED): b"\x01\x01",
    (ServerState.REQUEST, ServerEvent.REQUESTED): SOCKS5_REQUEST,
    (ServerState.REQUEST, ServerEvent.REFUSED): b"\x06",
    (ServerState.SOCKS4, ServerEvent.REQUESTED): b"\x01\x00\x50\x7f\x00\x00\x01\x00",
    (ServerState.SOCKS4, ServerEvent.REFUSED): b"\x09\x00\x50\x7f\x00\x00\x01\x00",
}
WALKS = [
    (state, event, after)
    for state, row in SERVER_TRANSITIONS.items()
    for event, after in row.items()
]


def server_in(state: ServerState) -> Server:
    server = Server()
    with contextlib.suppress(RemoteProtocolError):
        server.receive(LEADS_TO[state])
    assert server.state is state
    return server


@pytest.mark.parametrize(("state", "event", "after"), WALKS)
def test_every_transition_is_walked(
    state: ServerState, event: ServerEvent, after: ServerState
) -> None:
    server = server_in(state)
    refused = False
    try:
        server.receive(SAYS[state, event])
    except RemoteProtocolError:
        refused = True
    assert server.state is after
    assert refused is (event is ServerEvent.REFUSED)


def test_after_a_refusal_nothing_is_taken() -> None:
    with pytest.raises(LocalProtocolError):
        server_in(ServerState.CLOSED).receive(b"\x05\x01\x00")
