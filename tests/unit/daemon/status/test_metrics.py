"""Metrics of a snapshot."""

from __future__ import annotations

import pytest

from isoproxy.bitcoin.converter import Ending
from isoproxy.bitcoin.flow import ClosedBy, Flow, V1Reason
from isoproxy.bitcoin.flows import FlowEnd, FlowRegistry, Outcome, Totals
from isoproxy.bitcoin.messages import MAINNET
from isoproxy.config.option import choice, options_of
from isoproxy.config.schema import TorConfig
from isoproxy.daemon.status.metrics import collect, collect_bitcoin
from isoproxy.daemon.status.snapshot import TorView
from isoproxy.errors import ErrorKind
from isoproxy.front.statistics import Counters
from isoproxy.isolation import ClientProtocol
from isoproxy.net.target import Target
from isoproxy.observe.metrics import Metrics
from isoproxy.socks import Command
from isoproxy.workers.bitcoin_report import MESSAGE_TYPES
from isoproxy.workers.report import Report
from tests.unit.bitcoin.ends import key
from tests.unit.bitcoin.peers import established, v1
from tests.unit.daemon.status.kit import snapshot, traffic
from tests.unit.daemon.status.test_overview import report


def test_metrics_count_by_known_types_alone() -> None:
    session = established()
    session.from_client(v1("ping", bytes(8)) + v1("mysterious"))
    registry = FlowRegistry()
    flow = Flow(key(), Target.parse("peer.example", 8333))
    flow.network = MAINNET
    flow.translate(session.translator)
    with registry.entry(flow):
        pass
    metrics = Metrics((), sorted(MESSAGE_TYPES))
    collect_bitcoin(metrics, registry.totals())
    text = metrics.exposition()
    assert 'isoproxy_p2p_messages_total{direction="up",type="ping"} 1\n' in text
    assert 'isoproxy_p2p_messages_total{direction="up",type="(other)"} 1\n' in text
    assert 'isoproxy_v2_sessions_total{outcome="v2"} 1\n' in text
    assert f'isoproxy_p2p_bytes_total{{direction="up",transport="wire"}} {flow.bytes_up}\n' in text
    assert "mysterious" not in text
    assert "peer.example" not in text


@pytest.mark.parametrize("outcome", Outcome)
@pytest.mark.parametrize("ending", Ending)
def test_every_end_of_a_bitcoin_flow_has_its_place(outcome: Outcome, ending: Ending) -> None:
    metrics, totals = Metrics((), sorted(MESSAGE_TYPES)), Totals()
    for closed_by in ClosedBy:
        for reason in (*V1Reason, ErrorKind.BUSY, None):
            totals.ends[FlowEnd(outcome, ending, reason, closed_by)] = 2
    collect_bitcoin(metrics, totals)
    text, ends = metrics.exposition(), 2 * (len(V1Reason) + 2)
    assert f'isoproxy_v2_sessions_total{{outcome="{outcome.value}"}} {4 * ends}\n' in text
    for who in ClosedBy:
        labels = f'ending="{ending.value}",closed_by="{who.value}"'
        assert f"isoproxy_p2p_ends_total{{{labels}}} {ends}\n" in text
    for why in V1Reason:
        labels = f'reason="{why.value}",outcome="{outcome.value}"'
        assert f"isoproxy_p2p_v1_reasons_total{{{labels}}} 8\n" in text


def test_flows_are_counted_without_a_name() -> None:
    metrics = Metrics(["default"], sorted(MESSAGE_TYPES))
    collect(metrics, snapshot(traffic=traffic(report())))
    text = metrics.exposition()
    for line in (
        'isoproxy_connections{listener="default",state="relaying"} 1',
        'isoproxy_connections{listener="default",state="handshake"} 1',
        'isoproxy_relay_bytes_total{direction="up",path="copy"} 105',
        'isoproxy_relay_bytes_total{direction="up",path="splice"} 3',
        "isoproxy_isolation_keys 8",
        "isoproxy_upstream_up 1",
        "isoproxy_control_up 1",
        "isoproxy_name_cache_entries 5",
        'isoproxy_isolation_evictions_total{reason="new_identity"} 3',
    ):
        assert line + "\n" in text, line
    assert "marked" not in text


def test_what_is_over_is_no_longer_open() -> None:
    metrics = Metrics(["default"], sorted(MESSAGE_TYPES))
    collect(metrics, snapshot(traffic=traffic(report())))
    away = TorView("system", "away", False, None, "connecting", False, None)
    collect(metrics, snapshot(tor=away))
    text = metrics.exposition()
    assert 'isoproxy_connections{listener="default",state="relaying"} 0\n' in text
    assert "isoproxy_upstream_up 0\n" in text
    assert "isoproxy_control_up 0\n" in text


def test_handshakes_and_requests_of_a_listener_that_a_reload_took_away() -> None:
    counters = Counters(fd_exhaustion=4)
    counters.handshakes["old", ClientProtocol.SOCKS5, None] = 2
    counters.handshakes["old", None, ErrorKind.BUSY] = 1
    counters.requests["old", Command.CONNECT, ErrorKind.BUSY] = 3
    counters.refusals[ErrorKind.BUSY] += 1
    counters.dials.observe(0.2)
    metrics = Metrics(["default"], sorted(MESSAGE_TYPES))
    collect(metrics, snapshot(traffic=traffic(Report(counters))))
    text = metrics.exposition()
    for line in (
        'isoproxy_handshakes_total{listener="old",protocol="socks5",outcome="ok"} 2',
        'isoproxy_handshakes_total{listener="old",protocol="unknown",outcome="busy"} 1',
        'isoproxy_requests_total{listener="old",command="connect",kind="busy"} 3',
        'isoproxy_policy_refusals_total{kind="busy"} 1',
        'isoproxy_dial_seconds_count{upstream="system"} 1',
        "isoproxy_accept_pauses_total 4",
    ):
        assert line + "\n" in text, line


FRONT_DOOR = (
    *(ClientProtocol.SOCKS4, ClientProtocol.SOCKS5, ClientProtocol.HTTP_CONNECT),
    *(ClientProtocol.BITCOIN, ClientProtocol.TRANSPARENT),
)
MODES = options_of(TorConfig)["mode"][1].read


@pytest.mark.parametrize("mode", MODES.words if isinstance(MODES, choice) else ())
def test_every_form_of_tor_has_its_place(mode: str) -> None:
    counters = Counters()
    counters.dials.observe(0.2)
    metrics = Metrics(["default"], sorted(MESSAGE_TYPES))
    tor = TorView(mode, "ready", True, None, "off", False, None)
    collect(metrics, snapshot(tor=tor, traffic=traffic(Report(counters))))
    assert f'isoproxy_dial_seconds_count{{upstream="{mode}"}} 1\n' in metrics.exposition()


@pytest.mark.parametrize("command", Command)
def test_every_outcome_of_a_request_has_its_place(command: Command) -> None:
    counters, outcomes = Counters(), [None, *ErrorKind]
    for kind in outcomes:
        counters.requests["default", command, kind] = 17
        for protocol in FRONT_DOOR:
            counters.handshakes["default", protocol, kind] = 19
    metrics = Metrics(["default"], sorted(MESSAGE_TYPES))
    collect(metrics, snapshot(traffic=traffic(Report(counters))))
    text = metrics.exposition()
    assert text.count("} 17\n") == len(outcomes)
    assert text.count("} 19\n") == len(outcomes) * len(FRONT_DOOR)
