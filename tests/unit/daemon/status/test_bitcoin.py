"""What is shown and counted of Bitcoin's flows."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest

from isoproxy.bitcoin.bridge import Flow
from isoproxy.bitcoin.flows import FlowRegistry
from isoproxy.bitcoin.messages import MAINNET
from isoproxy.daemon.compose.bitcoin import Bitcoin
from isoproxy.daemon.status.bitcoin import MESSAGE_TYPES, bitcoin_status, collect_bitcoin
from isoproxy.isolation import P2P
from isoproxy.net.target import Target
from isoproxy.observe.log import SCRUBBED
from isoproxy.observe.metrics import Metrics
from tests.unit.bitcoin.ends import key
from tests.unit.bitcoin.peers import established, v1


def test_metrics_count_by_known_types_alone() -> None:
    session = established()
    session.from_client(v1("ping", bytes(8)) + v1("mysterious"))
    registry = FlowRegistry()
    flow = Flow(key(), Target.parse("peer.example", 8333), MAINNET, session.translator)
    flow.transport = "v2"
    with registry.entry(flow):
        pass
    metrics = Metrics((), MESSAGE_TYPES)
    collect_bitcoin(metrics, registry.totals())
    text = metrics.exposition()
    assert 'isoproxy_p2p_messages_total{direction="up",type="ping"} 1\n' in text
    assert 'isoproxy_p2p_messages_total{direction="up",type="(other)"} 1\n' in text
    assert 'isoproxy_v2_sessions_total{outcome="v2"} 1\n' in text
    assert f'isoproxy_p2p_bytes_total{{direction="up",transport="wire"}} {flow.bytes_up}\n' in text
    assert "mysterious" not in text
    assert "peer.example" not in text


@pytest.mark.parametrize(("safe", "shown"), [(True, SCRUBBED), (False, "peer.example:8333")])
def test_who_the_peer_is_shows_only_where_logging_is_not_safe(safe: bool, shown: str) -> None:
    session = established()
    flow = Flow(key(), Target.parse("peer.example", 8333), MAINNET, session.translator)
    bitcoin = SimpleNamespace(registry=FlowRegistry(), doors={})
    with bitcoin.registry.entry(flow):
        answer = bitcoin_status(cast(Bitcoin, bitcoin), [flow], {(flow.key, P2P): ["7"]}, safe=safe)
        assert answer["open"] == 1
    (told,) = cast("list[dict[str, object]]", answer["flows"])
    assert (told["target"], told["circuits"]) == (shown, ["7"])
