"""What became of flows, counted once, and nothing kept that belongs to anybody."""

from __future__ import annotations

import pytest

from isoproxy.bitcoin.converter import Ending
from isoproxy.bitcoin.flow import ClosedBy, Event, Flow, V1Reason
from isoproxy.bitcoin.flows import FlowEnd, FlowRegistry, Outcome
from isoproxy.bitcoin.messages import MAINNET
from isoproxy.bitcoin.translator import Translator
from isoproxy.errors import ErrorKind
from isoproxy.net.target import Target
from tests.unit.bitcoin.ends import key
from tests.unit.bitcoin.peers import established, short, v1

PEER = Target.parse("peer.example", 8333)
US = ClosedBy.US


def translated() -> Flow:
    """A flow with a ping each way, after VERSION."""
    session = established()
    session.from_client(v1("ping", bytes(8)))
    session.from_peer(short("pong", bytes(8)))
    session.from_peer(b"\xff")
    return flow_of(session.translator)


def flow_of(translator: Translator | None, *events: Event, inbound: bool = False) -> Flow:
    """A flow of a v1 client, after `events`."""
    flow = Flow(None if inbound else key(), PEER, inbound=inbound)
    flow.network = MAINNET
    flow.translator = translator
    for event in events:
        flow.on(event)
    return flow


def test_flows_under_way_and_flows_that_ended_count_alike() -> None:
    registry = FlowRegistry()
    flow = translated()
    with registry.entry(flow):
        before = registry.totals()
        assert registry.flows == {flow}
    after = registry.totals()
    assert not registry.flows
    assert after.to_peer == before.to_peer
    assert after.to_client == before.to_client
    assert after.to_peer.messages == {"version": 1, "ping": 1}
    assert after.to_client.messages == {"pong": 1}
    assert after.to_client.dropped == 1
    assert after.to_client.v1 - after.to_client.v2 == 3  # a short id saves three bytes
    assert after.to_peer.wire == flow.bytes_up
    assert (before.outcomes, after.outcomes) == ({}, {Outcome.V2: 1})
    with registry.entry(translated()):
        pass
    assert registry.totals().to_peer.messages["ping"] == 2


def test_what_is_not_translated_counts_in_bytes_alone() -> None:
    registry = FlowRegistry()
    flow = Flow(key(), PEER)
    with registry.entry(flow), registry.entry(flow):
        flow.on(Event.OTHER_CLIENT)
        flow.relayed.bytes_up += 5
    totals = registry.totals()
    assert (totals.to_peer.wire, totals.to_peer.v1) == (5, 0)
    assert totals.outcomes == {Outcome.UNTOUCHED: 1}


def ended(flow: Flow, ending: Ending) -> Flow:
    flow.end(ending)
    return flow


@pytest.mark.parametrize(
    ("flow", "outcome"),
    [
        (Flow(key(), PEER), Outcome.UNTOUCHED),
        (
            flow_of(None, Event.V1_CLIENT, Event.NO_V2, Event.DIALLED),
            Outcome.V1_FALLBACK,
        ),
        (flow_of(None, Event.V1_PEER, inbound=True), Outcome.V1_INBOUND),
        (ended(flow_of(None, Event.V1_CLIENT), Ending.V2_REQUIRED), Outcome.REFUSED),
        (ended(flow_of(None, Event.V1_CLIENT), Ending.HANDSHAKE_TIMEOUT), Outcome.FAILED),
        (ended(translated(), Ending.IDLE), Outcome.V2),
    ],
)
def test_outcomes(flow: Flow, outcome: Outcome) -> None:
    assert Outcome.of(flow) is outcome


REFUSED = Outcome.REFUSED, Ending.V2_REQUIRED


@pytest.mark.parametrize(
    ("ending", "reason", "end"),
    [
        (Ending.CLIENT_CLOSED, None, (Outcome.FAILED, Ending.CLIENT_CLOSED, ClosedBy.CLIENT)),
        (Ending.PEER_CLOSED, None, (Outcome.FAILED, Ending.PEER_CLOSED, ClosedBy.PEER)),
        (Ending.PEER_BROKE_PROTOCOL, None, (Outcome.FAILED, Ending.PEER_BROKE_PROTOCOL, US)),
        (Ending.V2_REQUIRED, V1Reason.PEER_CLOSED, (*REFUSED, ClosedBy.PEER)),
        (Ending.V2_REQUIRED, V1Reason.PEER_SILENT, (*REFUSED, US)),
        (None, None, (Outcome.FAILED, Ending.STOPPED, US)),
    ],
)
def test_who_closed_and_why_is_counted(
    ending: Ending | None,
    reason: V1Reason | None,
    end: tuple[Outcome, Ending, ClosedBy],
) -> None:
    told: list[tuple[FlowEnd, bool]] = []
    registry = FlowRegistry(lambda end, inbound: told.append((end, inbound)))
    flow = flow_of(None, Event.V1_CLIENT)
    with registry.entry(flow):
        flow.v1_reason = reason
        if ending is not None:
            flow.end(ending)
    outcome, how, closed_by = end
    assert registry.totals().ends == {FlowEnd(outcome, how, reason, closed_by): 1}
    assert told == [(FlowEnd(outcome, how, reason, closed_by), False)]


def test_a_dial_that_failed_is_tors() -> None:
    registry, flow = FlowRegistry(), Flow(key(), PEER)
    with registry.entry(flow):
        flow.dial_error = ErrorKind.ONION_NOT_FOUND
        flow.end(Ending.DIAL_FAILED)
    assert registry.totals().ends == {
        FlowEnd(Outcome.FAILED, Ending.DIAL_FAILED, ErrorKind.ONION_NOT_FOUND, ClosedBy.TOR): 1
    }


def test_an_internal_error_is_counted_too() -> None:
    registry = FlowRegistry()
    with pytest.raises(RuntimeError), registry.entry(flow_of(None)):
        raise RuntimeError
    assert registry.totals().outcomes == {Outcome.FAILED: 1}
