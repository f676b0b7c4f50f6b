"""Messages of any length, with any number of sockets, arrive whole."""

from __future__ import annotations

import socket
from dataclasses import replace

import pytest

from isoproxy.bitcoin.known_peers import Spoken
from isoproxy.errors import ErrorKind
from isoproxy.front.judgement import HandshakeRule
from isoproxy.front.listener import ListenerSettings
from isoproxy.front.services import Limits
from isoproxy.isolation import Isolator, ListenerRule, own_group
from isoproxy.namecoin.value.name import Route, TopLevels
from isoproxy.net.endpoint import Endpoint
from isoproxy.net.target import Target
from isoproxy.tor.dialer import DialerSettings
from isoproxy.workers.channel import MAX_MESSAGE, MAX_SOCKETS
from isoproxy.workers.messages import (
    Begin,
    BitcoinSettings,
    Configure,
    Drain,
    Epoch,
    Inbox,
    NameReply,
    Order,
    PeerReply,
    Reply,
    Settings,
    StatsRequest,
    packets,
)

SETTINGS = Settings(
    (ListenerSettings("a", Endpoint.tcp("127.0.0.1", 1), HandshakeRule(ListenerRule(b"a"))),),
    Limits(),
    DialerSettings(Endpoint.unix("/socks")),
    BitcoinSettings(),
    60.0,
    ("notice", "text", True),
)


def arrived(message: Order | Reply, sockets: list[socket.socket]) -> tuple[object, int, int]:
    """The message as it arrives, with how many sockets, in how many packets."""
    inbox, count = Inbox(), 0
    for packet, its in packets(message, sockets):
        count += 1
        assert len(packet) <= MAX_MESSAGE
        assert len(its) <= MAX_SOCKETS
        whole = inbox.take(packet, list(its))
        if whole is not None:
            break
    assert whole is not None
    return whole[0], len(whole[1]), count


@pytest.mark.parametrize(
    "message",
    [
        Epoch(1, Isolator().export_state()),
        StatsRequest(2),
        Drain(3, 1.5),
        NameReply(4, Target.parse("192.0.2.1", 80)),
        NameReply(5, kind=ErrorKind.NAME_ABSENT),
        PeerReply(6, Spoken.V1),
    ],
)
def test_a_message_arrives_as_it_was(message: Order | Reply) -> None:
    assert arrived(message, []) == (message, 0, 1)


def test_settings_arrive_whole() -> None:
    order = Begin(1, Isolator().export_state(), False, 2, SETTINGS)
    (told, _, _) = arrived(order, [])
    assert isinstance(told, Begin)
    assert told.epoch == order.epoch
    (there,), (here,) = told.settings.listeners, SETTINGS.listeners
    assert (there.name, there.endpoint, there.rule.listener) == (
        "a",
        here.endpoint,
        here.rule.listener,
    )
    assert told.settings.bitcoin.carrying.options == SETTINGS.bitcoin.carrying.options
    networks = [network.name for network in told.settings.bitcoin.carrying.networks]
    assert "mainnet" in networks


def test_many_listeners_and_names_take_several_packets() -> None:
    table = TopLevels({f"name{number}.example": Route.REFUSE for number in range(9000)})
    rule = HandshakeRule(ListenerRule(own_group("a")), top_levels=table)
    listener = replace(SETTINGS.listeners[0], rule=rule)
    settings = replace(SETTINGS, listeners=(listener,) * (MAX_SOCKETS + 1))
    with socket.socket() as sock:
        sockets = [sock] * (MAX_SOCKETS + 1)
        told, count, parts = arrived(Configure(1, settings), sockets)
    assert isinstance(told, Configure)
    (rules,) = {listener.rule.top_levels for listener in told.settings.listeners}
    assert rules.route("a.name8999.example") is Route.REFUSE
    assert count == MAX_SOCKETS + 1
    assert parts >= 2


def test_a_message_shows_no_secret() -> None:
    state = Isolator().export_state()
    for message in (Begin(1, state, False, 2, SETTINGS), Epoch(1, state)):
        assert state.hex() not in repr(message)
        assert repr(state)[2:-1] not in repr(message)
