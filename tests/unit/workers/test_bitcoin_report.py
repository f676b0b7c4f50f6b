"""What is told of Bitcoin flows arrives, and what is nothing of that kind does not."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from isoproxy.bitcoin.converter import Ending
from isoproxy.bitcoin.flow import ClosedBy, Flow, TransportType, V1Reason
from isoproxy.bitcoin.flows import FlowEnd, FlowRegistry, Outcome
from isoproxy.bitcoin.messages import MAINNET
from isoproxy.errors import ErrorKind
from isoproxy.isolation import P2P, CredentialForm, upstream_credentials
from isoproxy.net.target import Target
from isoproxy.observe.log import SCRUBBED, reveal
from isoproxy.workers.bitcoin_report import (
    FLOWS_PER_MESSAGE,
    MESSAGE_TYPES,
    BitcoinReport,
    CarriedView,
    ProxyCounts,
    read_sums,
    view_of,
)
from isoproxy.workers.channel import MAX_MESSAGE
from isoproxy.workers.checked import parse
from isoproxy.workers.report import Report, decode, encode, merged
from tests.unit.bitcoin.ends import key
from tests.unit.bitcoin.peers import established, v1

FORM = CredentialForm.PROP351
KEY = key()


ENDS = Counter(
    {
        FlowEnd(Outcome.V2, Ending.STOPPED, None, ClosedBy.US): 1,
        FlowEnd(Outcome.REFUSED, Ending.V2_REQUIRED, V1Reason.PEER_CLOSED, ClosedBy.PEER): 2,
        FlowEnd(Outcome.V2, Ending.DIAL_FAILED, ErrorKind.ONION_NOT_FOUND, ClosedBy.TOR): 1,
    }
)


def flow() -> Flow:
    session = established()
    session.from_client(v1("ping", bytes(8)))
    flow = Flow(KEY, Target.parse("marked.example", 8333))
    flow.network = MAINNET
    flow.translate(session.translator)
    return flow


def full() -> BitcoinReport:
    registry, its = FlowRegistry(), flow()
    with registry.entry(flow()):
        pass
    for refused in (flow(), flow()):
        with registry.entry(refused):
            refused.v1_reason = V1Reason.PEER_CLOSED
            refused.end(Ending.V2_REQUIRED)
    undialled = flow()
    with registry.entry(undialled):
        undialled.dial_error = ErrorKind.ONION_NOT_FOUND
        undialled.end(Ending.DIAL_FAILED)
    its.v1_reason = V1Reason.REMEMBERED
    with registry.entry(its):
        report = BitcoinReport([view_of(its)], registry.totals())
    report.proxies["a"] = ProxyCounts(1, 2, Counter({ErrorKind.BUSY: 3}))
    return report


def there(report: BitcoinReport, *, safe: bool = True) -> BitcoinReport:
    parts = list(encode(Report(bitcoin=report), 1, FORM, safe=safe))
    assert safe is not (b"marked" in b"".join(parts))
    return merged(decode(parse(part), lambda name: name == "a") for part in parts).bitcoin


@pytest.mark.parametrize("safe", [True, False])
def test_flows_and_sums_arrive_but_keys_and_peers(safe: bool) -> None:
    sent = full()
    report = there(sent, safe=safe)
    (got,), (view,) = report.flows, sent.flows
    assert got.carrier == upstream_credentials(KEY, P2P, FORM)
    shown = SCRUBBED if safe else "marked.example:8333"
    assert reveal(got.target, safe=False) == shown
    assert (got.key, got.network, got.transport) == (KEY.label, "mainnet", TransportType.V2)
    assert got.session_id == view.session_id != ""
    assert (got.bytes_up, got.bytes_down) == (view.bytes_up, view.bytes_down)
    assert (got.to_peer, got.to_client) == (view.to_peer, view.to_client)
    assert got.to_peer is not None
    assert got.to_peer.messages["ping"] == (1, 8)
    assert got.v1_reason is view.v1_reason is V1Reason.REMEMBERED
    assert report.totals == sent.totals
    assert report.totals.ends == ENDS
    assert report.proxies == {"a": ProxyCounts(1, 2, Counter({ErrorKind.BUSY: 3}))}


def test_a_peer_that_came_in_has_no_key() -> None:
    inbound = Flow(None, Target.parse("127.0.0.1", 8333), inbound=True)
    (got,) = there(BitcoinReport([view_of(inbound)]), safe=True).flows
    assert (got.key, got.carrier, got.session_id) == ("", None, "")
    assert got.to_peer is got.to_client is None


def test_reports_of_processes_are_summed_and_flows_end_with_theirs() -> None:
    report = full()
    report.add(full())
    assert len(report.flows) == 2
    assert report.totals.to_peer.messages["ping"] == 10
    assert report.totals.ends == ENDS + ENDS
    assert report.proxies["a"] == ProxyCounts(2, 4, Counter({ErrorKind.BUSY: 6}))
    rest = report.ended()
    cut = FlowEnd(Outcome.V2, Ending.STOPPED, V1Reason.REMEMBERED, ClosedBy.US)
    assert rest.flows == []
    assert rest.totals.ends == report.totals.ends + Counter({cut: 2})
    assert rest.totals.to_peer == report.totals.to_peer
    assert rest.proxies["a"] == ProxyCounts(0, 4, Counter({ErrorKind.BUSY: 6}))
    assert report.proxies["a"].open == 2


def test_parts_of_the_longest_flows_fit_a_message() -> None:
    (view,) = full().flows
    most = CarriedView(
        1 << 62, 1 << 62, 1 << 62, 1 << 62, dict.fromkeys(MESSAGE_TYPES, (1 << 62, 1 << 62))
    )
    longest = replace(view, to_peer=most, to_client=most, bytes_up=1 << 62, bytes_down=1 << 62)
    report = Report(bitcoin=BitcoinReport([longest] * FLOWS_PER_MESSAGE * 2))
    assert max(map(len, encode(report, 1, FORM, safe=False))) < MAX_MESSAGE


PEER: list[Any] = [
    *("abcdef", None, "[scrubbed]", None, "v2", "", False, None, False, 1, 2, None, None)
]
CARRIED: list[Any] = [1, 2, 3, 4, {"ping": [1, 8]}]


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (0, "no label"),
        (1, ["!", ""]),
        (1, [""]),
        (2, None),
        (2, "x" * 400),
        (3, "x" * 33),
        (4, "v3"),
        (4, {}),
        (5, "ab"),
        (5, "G" * 64),
        (6, 0),
        (7, "for no reason"),
        (8, None),
        (9, -1),
        (10, 1e999),
        (11, CARRIED[:4]),
        (11, [*CARRIED[:4], {"mysterious": [1, 8]}]),
        (11, [*CARRIED[:4], {"ping": [1]}]),
        (12, [-1, *CARRIED[1:]]),
    ],
)
def test_what_is_no_flow_is_refused(place: int, value: object) -> None:
    right = [*PEER[:11], CARRIED, CARRIED]
    assert len(decode({"part": 1, "peers": [right]}, lambda name: True).bitcoin.flows) == 1
    right[place] = value
    with pytest.raises(ValueError):  # noqa: PT011  its text is for nobody
        decode({"part": 1, "peers": [right]}, lambda name: True)


SUMS: dict[str, Any] = {
    "corrupt": 1,
    "ends": [["v2", "idle", None, "us", 1]],
    "directions": [[1, 2, 3, 4, {"ping": 1}], [0, 0, 0, 0, {}]],
    "proxies": {"a": [1, 2, [["busy", 3]]]},
}


@pytest.mark.parametrize(
    "change",
    [
        {"corrupt": -1},
        {"ends": [["v3", "idle", None, "us", 1]]},
        {"ends": [["v2", "bored", None, "us", 1]]},
        {"ends": [["v2", "idle", "for no reason", "us", 1]]},
        {"ends": [["v2", "idle", None, "fate", 1]]},
        {"ends": [["v2", "idle", None, "us", -1]]},
        {"ends": [["v2", 1]]},
        {"directions": [[1, 2, 3, 4, {}]]},
        {"directions": [[1, 2, 3, 4, {"mysterious": 1}], [0, 0, 0, 0, {}]]},
        {"proxies": {"another": [1, 2, []]}},
        {"proxies": {"a": [1, 2]}},
        {"proxies": {"a": [1, 2, [["no such kind", 1]]]}},
    ],
)
def test_what_are_no_sums_is_refused(change: dict[str, Any]) -> None:
    assert read_sums(SUMS, lambda name: name == "a").proxies["a"].accepted == 2
    with pytest.raises(ValueError):  # noqa: PT011  its text is for nobody
        read_sums(SUMS | change, lambda name: name == "a")
