"""bcoin, a v1 node that speaks first, and bans whom it cannot read: met as it is."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from isoproxy.bitcoin.carry import CarrySettings
from isoproxy.bitcoin.converter import Ending
from isoproxy.bitcoin.flow import Flow, V1Reason
from isoproxy.bitcoin.options import Fallback
from tests.interop.nodes import BcoinNode, wait_for
from tests.interop.proxy import Proxy, proxy
from tests.kit.dial import dial
from tests.network.bitcoin_ends import V1Client, version

pytestmark = pytest.mark.interop


@pytest.fixture
def node(tmp_path: Path) -> Iterator[BcoinNode]:
    with contextlib.ExitStack() as stack:
        started = BcoinNode(tmp_path / "bcoin", "127.0.0.1")
        stack.callback(started.stop)
        yield started


def connect(through: Proxy, node: BcoinNode, user: bytes) -> V1Client:
    return V1Client(dial(("127.0.0.1", through.port), "127.0.0.1", node.port, user=user))


def ended(through: Proxy) -> list[Flow]:
    """The flows, once all have ended."""
    wait_for(lambda: all(flow.ended is not None for flow in through.flows))
    return through.flows


def test_it_is_met_in_v1_again_and_again_and_bans_nobody(node: BcoinNode) -> None:
    """It bans an address for ten headers that it cannot read in one connection."""
    with proxy(CarrySettings(Fallback.ALWAYS)) as through:
        for user in (b"alice",) * 10 + (b"bob",) * 10:
            peer = connect(through, node, user)
            with contextlib.closing(peer.sock):
                peer.hello()
                peer.ping()
        reasons = [flow.v1_reason for flow in ended(through)]
    assert len(reasons) == 20
    assert set(reasons) <= {V1Reason.PEER_SPEAKS_V1, V1Reason.REMEMBERED}
    assert len(through.dialled) <= 22, "it was troubled with v2 twice under one key"
    assert "Ignoring banned peer" not in node.log


def test_where_v1_is_not_allowed_it_is_refused_for_what_it_speaks(node: BcoinNode) -> None:
    with proxy(CarrySettings(Fallback.ONION_ONLY)) as through:
        peer = connect(through, node, b"alice")
        peer.sock.sendall(version())
        assert peer.ended()
        (flow,) = ended(through)
    assert (flow.ended, flow.v1_reason) == (Ending.V2_REQUIRED, V1Reason.PEER_SPEAKS_V1)
