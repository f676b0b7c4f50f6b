"""btcd, Go's full node, as v2 responder and initiator, and as a v1 client of ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from isoproxy.bitcoin.carry import CarrySettings
from isoproxy.bitcoin.flow import TransportType
from isoproxy.bitcoin.inbound import InboundSettings
from isoproxy.bitcoin.messages import REGTEST
from isoproxy.bitcoin.options import Deadlines, DecoyPolicy, Fallback, TransportOptions
from isoproxy.bitcoin.v1 import VersionRewrite
from isoproxy.net.target import Target
from tests.interop.nodes import BcoinSpv, Btcd, Kyoto, wait_for
from tests.interop.proxy import inbound, inbound_service, proxy

pytestmark = pytest.mark.interop


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def btcd(stack: ExitStack, folder: Path, *arguments: str, v2: bool, listen: bool = True) -> Btcd:
    node = Btcd(folder, *arguments, v2=v2, listen=listen)
    stack.callback(node.stop)
    return node


def test_a_v1_node_syncs_from_a_v2_node_through_socks(stack: ExitStack, tmp_path: Path) -> None:
    server = btcd(stack, tmp_path / "server", v2=True)
    server.call("generate", 120)
    policy = DecoyPolicy(per_minute=600, before_version=2)
    settings = CarrySettings(Fallback.NEVER, TransportOptions(decoys=policy))
    made = stack.enter_context(proxy(settings))
    peer = f"127.0.0.1:{server.port}"
    client = btcd(
        stack,
        tmp_path / "client",
        f"--proxy=127.0.0.1:{made.port}",
        f"--connect={peer}",
        v2=False,
        listen=False,
    )
    wait_for(lambda: client.height == 120)
    flow = made.flows[0]
    assert flow.transport is TransportType.V2
    assert len(flow.session_id) == 64
    assert not flow.fell_back
    server.call("generate", 300)
    wait_for(lambda: client.height == 420)
    assert client.call("getbestblockhash") == server.call("getbestblockhash")
    translator = flow.translator
    assert translator is not None
    got = translator.to_client.by_type()
    assert got["block"][0] >= 420
    assert got["verack"][0] == 1
    assert translator.to_client.v2_bytes < translator.to_client.v1_bytes
    assert translator.to_client.dropped == 0


def test_a_v2_node_comes_to_a_v1_node_of_ours(stack: ExitStack, tmp_path: Path) -> None:
    node = btcd(stack, tmp_path / "node", v2=False)
    node.call("generate", 120)
    settings = InboundSettings(REGTEST, Target.parse("127.0.0.1", node.port), advertise_v2=True)
    service = inbound_service(settings)
    port = stack.enter_context(inbound(service))
    visitor = btcd(
        stack, tmp_path / "visitor", f"--connect=127.0.0.1:{port}", v2=True, listen=False
    )
    wait_for(lambda: visitor.height == 120)
    (flow,) = service.registry.flows
    assert flow.transport is TransportType.V2
    assert len(flow.session_id) == 64
    (peer,) = visitor.call("getpeerinfo")
    assert int(peer["services"]) & 0x800
    assert visitor.call("getbestblockhash") == node.call("getbestblockhash")


def test_a_v1_node_may_still_come_in(stack: ExitStack, tmp_path: Path) -> None:
    node = btcd(stack, tmp_path / "node", v2=False)
    node.call("generate", 20)
    service = inbound_service(InboundSettings(REGTEST, Target.parse("127.0.0.1", node.port)))
    port = stack.enter_context(inbound(service))
    visitor = btcd(
        stack, tmp_path / "visitor", f"--connect=127.0.0.1:{port}", v2=False, listen=False
    )
    wait_for(lambda: visitor.height == 20)
    assert [flow.transport for flow in service.registry.flows] == [TransportType.V1]


def test_a_node_that_speaks_v2_itself_is_left_alone(stack: ExitStack, tmp_path: Path) -> None:
    server = btcd(stack, tmp_path / "server", v2=True)
    server.call("generate", 20)
    made = stack.enter_context(proxy())
    client = btcd(
        stack,
        tmp_path / "client",
        f"--proxy=127.0.0.1:{made.port}",
        f"--connect=127.0.0.1:{server.port}",
        v2=True,
        listen=False,
    )
    wait_for(lambda: client.height == 20)
    assert [flow.transport for flow in made.flows] == [TransportType.UNTOUCHED]


@pytest.mark.parametrize("fallback", [Fallback.ALWAYS, Fallback.NEVER])
def test_a_v1_only_server(stack: ExitStack, tmp_path: Path, fallback: Fallback) -> None:
    server = btcd(stack, tmp_path / "server", v2=False)
    server.call("generate", 20)
    settings = CarrySettings(fallback, TransportOptions(), Deadlines(first_byte=3))
    made = stack.enter_context(proxy(settings))
    client = btcd(
        stack,
        tmp_path / "client",
        f"--proxy=127.0.0.1:{made.port}",
        f"--connect=127.0.0.1:{server.port}",
        v2=False,
        listen=False,
    )
    if fallback is Fallback.ALWAYS:
        wait_for(lambda: client.height == 20)
        assert made.flows[0].transport is TransportType.V1
        assert [key for key, _ in made.dialled] == [made.flows[0].key] * 2
    else:
        wait_for(lambda: made.flows and made.flows[0].ended is not None)
        assert client.height == 0
        assert len(made.dialled) == len(made.flows)


def test_bcoins_light_client_syncs_through_socks(stack: ExitStack, tmp_path: Path) -> None:
    server = btcd(stack, tmp_path / "server", v2=True)
    server.call("generate", 120)
    options = TransportOptions(version=VersionRewrite(scrub=True))
    made = stack.enter_context(proxy(CarrySettings(Fallback.NEVER, options)))
    client = BcoinSpv(tmp_path / "bcoin", made.port, f"127.0.0.1:{server.port}")
    stack.callback(client.stop)
    wait_for(lambda: client.height == 120)
    server.call("generate", 5)
    wait_for(lambda: client.height == 125)
    flow = made.flows[0]
    assert flow.transport is TransportType.V2
    assert flow.translator is not None
    assert "filterload" in flow.translator.to_peer.by_type()
    assert flow.translator.to_client.by_type().keys() & {"headers", "merkleblock"}


def test_kyotos_own_v2_comes_to_a_v1_node_of_ours(stack: ExitStack, tmp_path: Path) -> None:
    node = btcd(stack, tmp_path / "node", v2=False)
    node.call("generate", 300)  # more filters than packets between two changes of keys
    decoys = TransportOptions(decoys=DecoyPolicy(per_minute=600, before_version=2))
    service = inbound_service(
        InboundSettings(REGTEST, Target.parse("127.0.0.1", node.port), options=decoys)
    )
    port = stack.enter_context(inbound(service))
    visitor = Kyoto(tmp_path / "kyoto", f"127.0.0.1:{port}", v2=True)
    stack.callback(visitor.stop)
    wait_for(lambda: visitor.height == 300)
    wait_for(lambda: visitor.block == node.call("getbestblockhash"))
    (flow,) = service.registry.flows
    assert flow.transport is TransportType.V2
    assert len(flow.session_id) == 64
