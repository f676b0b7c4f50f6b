"""What is shown and counted of Bitcoin's flows."""

from __future__ import annotations

from collections import Counter
from typing import cast

import pytest

from isoproxy.bitcoin.converter import Ending
from isoproxy.bitcoin.flow import Flow, V1Reason
from isoproxy.bitcoin.flows import FlowRegistry
from isoproxy.bitcoin.messages import MAINNET
from isoproxy.daemon.status.bitcoin import bitcoin_status
from isoproxy.daemon.status.snapshot import ListenerView, Traffic
from isoproxy.errors import ErrorKind
from isoproxy.isolation import P2P, Isolate
from isoproxy.net.target import Target
from isoproxy.observe.log import SCRUBBED
from isoproxy.workers.bitcoin_report import BitcoinReport, ProxyCounts, view_of
from isoproxy.workers.report import Report
from tests.unit.bitcoin.ends import key
from tests.unit.bitcoin.peers import established


@pytest.mark.parametrize(("safe", "shown"), [(True, SCRUBBED), (False, "peer.example:8333")])
def test_who_the_peer_is_shows_only_where_logging_is_not_safe(safe: bool, shown: str) -> None:
    session = established()
    own = key()
    flow = Flow(own, Target.parse("peer.example", 8333))
    flow.network = MAINNET
    flow.translate(session.translator)
    registry = FlowRegistry()
    proxy = ListenerView("one", "127.0.0.1:1324", Isolate.DEST_ADDR)
    counts = {"one": ProxyCounts(3, 9, Counter({ErrorKind.BUSY: 2}))}
    refused = Flow(own, Target.parse("marked.example", 8333))
    with registry.entry(refused):
        refused.v1_reason = V1Reason.PEER_SILENT
        refused.end(Ending.V2_REQUIRED)
    with registry.entry(flow):
        report = BitcoinReport([view_of(flow)], registry.totals(), counts)
    traffic = Traffic((), [proxy], Report(bitcoin=report))
    answer = bitcoin_status(traffic, report.flows, {(own, P2P): ["7"]}, safe=safe)
    assert answer["open"] == 1
    assert answer["proxies"] == [
        {
            "name": "one",
            "address": "127.0.0.1:1324",
            "isolate": ["DestAddr"],
            "open": 3,
            "accepted": 9,
            "refusals": {"busy": 2},
        }
    ]
    assert cast("dict[str, object]", answer["totals"])["ends"] == [
        {
            "outcome": "refused",
            "ending": "v2_required",
            "reason": "peer_silent",
            "closed_by": "us",
            "count": 1,
        }
    ]
    assert "marked" not in str(answer)
    (told,) = cast("list[dict[str, object]]", answer["flows"])
    assert (told["target"], told["circuits"]) == (shown, ["7"])
