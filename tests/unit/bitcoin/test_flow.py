"""The states of a flow, and what is shown in each."""

from __future__ import annotations

import pytest

from isoproxy.bitcoin.converter import Ending
from isoproxy.bitcoin.flow import TRANSITIONS, Event, Flow, State, TransportType, V1Reason
from isoproxy.net.target import Target
from tests.unit.bitcoin.ends import key
from tests.unit.bitcoin.peers import Session, established

PEER = Target.parse("peer.example", 8333)


def test_every_state_can_be_reached_and_ends() -> None:
    reached = {State.SNIFFING}
    for _ in State:
        reached |= {to for state in reached for to in TRANSITIONS[state].values()}
    assert reached == set(State)
    for state in set(State) - {State.CLOSED}:
        assert TRANSITIONS[state][Event.ENDED] is State.CLOSED


def test_what_ended_does_not_begin_again() -> None:
    flow = Flow(key(), PEER)
    flow.end(Ending.CLIENT_CLOSED)
    flow.end(Ending.PEER_CLOSED)
    assert (flow.state, flow.ended) == (State.CLOSED, Ending.CLIENT_CLOSED)
    with pytest.raises(KeyError):
        flow.on(Event.V1_CLIENT)


def test_the_transport_is_v2_once_the_peer_is_authenticated() -> None:
    flow = Flow(key(), PEER)
    assert flow.transport is TransportType.DETECTING
    flow.translate(Session().translator)
    assert (flow.transport, flow.session_id) == (TransportType.DETECTING, "")
    flow = Flow(key(), PEER)
    flow.translate(established().translator)
    assert flow.transport is TransportType.V2
    assert len(flow.session_id) == 64
    flow.end(Ending.PEER_CLOSED)
    assert flow.transport is TransportType.V2


def test_a_fallback_counts_the_bytes_of_both_streams() -> None:
    flow = Flow(key(), PEER)
    translator = Session().translator
    flow.translate(translator)
    flow.v1_reason = V1Reason.PEER_CLOSED
    shown = [flow.fell_back]
    for event in (Event.NO_V2, Event.DIALLED):
        flow.on(event)
        shown.append(flow.fell_back)
    assert shown == [False, False, True]
    assert flow.transport is TransportType.V1
    flow.relayed.bytes_up, flow.relayed.bytes_down = 100, 50
    assert (flow.bytes_up, flow.bytes_down) == (translator.to_peer.wire + 100, 50)
    flow.end(Ending.HANDED_ON)
    assert flow.transport is TransportType.V1


def test_a_flow_prints_nothing() -> None:
    assert "peer.example" not in repr(Flow(key(), PEER))
