"""Promise: unchanged Bitcoin programs that speak v1 sync from v2 peers, through Tor.

bcoin's light client, neutrino, kyoto, btcd, bitcoinj and nakamoto as v1 clients, btcd with v2
behind an exit, on regtest.  btcd says of its peers that they speak v2, but shows no session ID; our
own inbound side does, and so does a peer made of the Rust crate bip324.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import pytest

from isoproxy.bitcoin.inbound import InboundSettings
from isoproxy.bitcoin.messages import REGTEST
from isoproxy.net.target import Target
from tests.interop.nodes import (
    BcoinNode,
    BcoinSpv,
    Bitcoinj,
    Btcd,
    Kyoto,
    Nakamoto,
    Neutrino,
    V2Front,
    wait_for,
)
from tests.interop.proxy import inbound, inbound_service
from tests.kit.isoproxy_process import Isoproxy
from tests.kit.tornet import TorNetwork
from tests.kit.witness import Witness
from tests.network.test_bitcoin import flows, isoproxy

pytestmark = pytest.mark.interop


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def node(stack: ExitStack, folder: Path, net: TorNetwork, *, v2: bool) -> Btcd:
    """A peer with a chain of 120 blocks."""
    made = Btcd(folder, v2=v2, host=net.server_ip)
    stack.callback(made.stop)
    made.call("generate", 120)
    return made


class Client(Protocol):
    """A program that tells how many blocks it knows."""

    @property
    def height(self) -> int: ...


def reaches(program: Client, height: int) -> None:
    wait_for(lambda: program.height == height, 60)


def v1_client(
    stack: ExitStack, folder: Path, proxy: Isoproxy, peer: tuple[str, int], user: str
) -> Btcd:
    """A v1 node whose only way out is isoproxy."""
    made = Btcd(
        folder,
        f"--proxy={proxy.host_and_port}",
        f"--proxyuser={user}",
        "--proxypass=x",
        "--connect={}:{}".format(*peer),
        v2=False,
        listen=False,
    )
    stack.callback(made.stop)
    return made


def test_btcd_in_v1_syncs_from_btcd_in_v2(
    stack: ExitStack, tmp_path: Path, tor_network: TorNetwork
) -> None:
    server = node(stack, tmp_path / "server", tor_network, v2=True)
    peer = (tor_network.server_ip, server.port)
    proxy = stack.enter_context(
        isoproxy(tmp_path, tor_network, [server.port], "bitcoin.v1_fallback=never")
    )
    witness = stack.enter_context(Witness(tor_network.client))
    start = witness.mark()
    clients = [v1_client(stack, tmp_path / user, proxy, peer, user) for user in ("alice", "bob")]
    for client in clients:
        reaches(client, 120)
    server.call("generate", 10)
    for client in clients:
        reaches(client, 130)
        assert client.call("getbestblockhash") == server.call("getbestblockhash")
    assert [peer["v2_connection"] for peer in server.call("getpeerinfo")] == [True, True]
    shown = flows(proxy)
    assert [flow["transport"] for flow in shown] == ["v2", "v2"]
    assert len({flow["session_id"] for flow in shown}) == 2
    assert len({tuple(flow["circuits"]) for flow in shown}) == 2
    witness.settle()
    witness.assert_isolated(witness.streams(after=start))
    for flow in shown:
        got = flow["to_client"]
        assert got["messages"]["block"]["count"] >= 130
        assert got["v2_bytes"] < got["v1_bytes"]


def test_bcoins_light_client_syncs_from_btcd_in_v2(
    stack: ExitStack, tmp_path: Path, tor_network: TorNetwork
) -> None:
    server = node(stack, tmp_path / "server", tor_network, v2=True)
    proxy = stack.enter_context(
        isoproxy(tmp_path, tor_network, [server.port], "bitcoin.v1_fallback=never")
    )
    light = BcoinSpv(tmp_path / "bcoin", proxy.address[1], f"{tor_network.server_ip}:{server.port}")
    stack.callback(light.stop)
    reaches(light, 120)
    server.call("generate", 5)
    reaches(light, 125)
    (peer,) = server.call("getpeerinfo")
    assert peer["v2_connection"]
    assert "bcoin" in peer["subver"]
    (flow,) = flows(proxy)
    assert flow["transport"] == "v2"
    assert len(flow["circuits"]) == 1
    assert "filterload" in flow["to_peer"]["messages"]
    assert flow["to_client"]["messages"].keys() & {"headers", "merkleblock"}


def test_neutrino_syncs_from_btcd_in_v2(
    stack: ExitStack, tmp_path: Path, tor_network: TorNetwork
) -> None:
    server = node(stack, tmp_path / "server", tor_network, v2=True)
    proxy = stack.enter_context(
        isoproxy(tmp_path, tor_network, [server.port], "bitcoin.v1_fallback=never")
    )
    peer = f"{tor_network.server_ip}:{server.port}"
    light = Neutrino(tmp_path / "neutrino", proxy.address[1], peer)
    stack.callback(light.stop)
    reaches(light, 120)
    server.call("generate", 5)
    reaches(light, 125)
    (there,) = server.call("getpeerinfo")
    assert there["v2_connection"]
    assert "neutrino" in there["subver"]
    (flow,) = flows(proxy)
    assert flow["transport"] == "v2"
    assert {"headers", "cfheaders"} <= flow["to_client"]["messages"].keys()


def test_kyoto_syncs_from_btcd_in_v2(
    stack: ExitStack, tmp_path: Path, tor_network: TorNetwork
) -> None:
    server = node(stack, tmp_path / "server", tor_network, v2=True)
    proxy = stack.enter_context(
        isoproxy(tmp_path, tor_network, [server.port], "bitcoin.v1_fallback=never")
    )
    peer = f"{tor_network.server_ip}:{server.port}"
    light = Kyoto(tmp_path / "kyoto", peer, proxy_port=proxy.address[1])
    stack.callback(light.stop)
    reaches(light, 120)
    server.call("generate", 5)
    reaches(light, 125)
    wait_for(lambda: light.block == server.call("getbestblockhash"))
    (there,) = server.call("getpeerinfo")
    assert there["v2_connection"]
    assert "BIP-157" in there["subver"]
    (flow,) = flows(proxy)
    assert flow["transport"] == "v2"
    assert len(flow["circuits"]) == 1
    assert {"headers", "cfheaders", "block"} <= flow["to_client"]["messages"].keys()
    assert flow["to_client"]["messages"]["cfilter"]["count"] >= 125


def test_bitcoinj_syncs_from_bcoin_behind_our_inbound_side(
    stack: ExitStack, tmp_path: Path, tor_network: TorNetwork
) -> None:
    """btcd ends it: bitcoinj says sendaddrv2 in a version of the protocol that has none."""
    server = BcoinNode(tmp_path / "server", "127.0.0.1")
    stack.callback(server.stop)
    server.generate(120)
    service = inbound_service(InboundSettings(REGTEST, Target.parse("127.0.0.1", server.port)))
    port = stack.enter_context(inbound(service, tor_network.server_ip))
    proxy = stack.enter_context(
        isoproxy(tmp_path, tor_network, [port], "bitcoin.v1_fallback=never")
    )
    peer = f"{tor_network.server_ip}:{port}"
    light = Bitcoinj(tmp_path / "bitcoinj", proxy.address[1], peer)
    stack.callback(light.stop)
    reaches(light, 120)
    server.generate(5)
    reaches(light, 125)
    wait_for(lambda: len(flows(proxy)) == len(service.registry.flows) == 1)
    (flow,), (there,) = flows(proxy), service.registry.flows
    assert flow["transport"] == "v2"
    assert flow["session_id"] == there.session_id
    assert flow["to_client"]["messages"]["block"]["count"] >= 125


def test_nakamoto_syncs_through_a_proxy(
    stack: ExitStack, tmp_path: Path, tor_network: TorNetwork
) -> None:
    server = node(stack, tmp_path / "server", tor_network, v2=True)
    settings = f'address = "127.0.0.1:0"\npeer = "{tor_network.server_ip}:{server.port}"'
    proxy = stack.enter_context(
        isoproxy(tmp_path, tor_network, [], "bitcoin.v1_fallback=never", proxies=(settings,))
    )
    light = Nakamoto(tmp_path / "nakamoto", "{}:{}".format(*proxy.addresses[1]))
    stack.callback(light.stop)
    reaches(light, 120)
    server.call("generate", 5)
    reaches(light, 125)
    (there,) = server.call("getpeerinfo")
    assert there["v2_connection"]
    assert "nakamoto" in there["subver"]
    (flow,) = flows(proxy)
    assert flow["transport"] == "v2"
    assert {"headers", "cfheaders"} <= flow["to_client"]["messages"].keys()


@pytest.mark.parametrize("own_v2", [False, True])
def test_kyoto_without_a_proxy_syncs_through_a_proxy(
    stack: ExitStack, tmp_path: Path, tor_network: TorNetwork, own_v2: bool
) -> None:
    """Its VERSION is addressed to 127.0.0.1, so the proxy is told the peer."""
    server = node(stack, tmp_path / "server", tor_network, v2=True)
    peer = f"{tor_network.server_ip}:{server.port}"
    settings = f'address = "127.0.0.1:0"\npeer = "{peer}"'
    proxy = stack.enter_context(
        isoproxy(tmp_path, tor_network, [], "bitcoin.v1_fallback=never", proxies=(settings,))
    )
    light = Kyoto(tmp_path / "kyoto", "{}:{}".format(*proxy.addresses[1]), v2=own_v2)
    stack.callback(light.stop)
    reaches(light, 120)
    (there,) = server.call("getpeerinfo")
    assert there["v2_connection"]
    (flow,) = flows(proxy)
    assert len(flow["circuits"]) == 1
    assert flow["transport"] == ("untouched" if own_v2 else "v2")
    assert len(flow["session_id"]) == (0 if own_v2 else 64)


def test_both_ends_show_the_same_session_id(
    stack: ExitStack, tmp_path: Path, tor_network: TorNetwork
) -> None:
    """bcoin in v1, isoproxy, Tor, isoproxy's inbound side, btcd in v1."""
    server = Btcd(tmp_path / "server", v2=False)
    stack.callback(server.stop)
    server.call("generate", 120)
    service = inbound_service(InboundSettings(REGTEST, Target.parse("127.0.0.1", server.port)))
    port = stack.enter_context(inbound(service, tor_network.server_ip))
    proxy = stack.enter_context(
        isoproxy(tmp_path, tor_network, [port], "bitcoin.v1_fallback=never")
    )
    light = BcoinSpv(tmp_path / "bcoin", proxy.address[1], f"{tor_network.server_ip}:{port}")
    stack.callback(light.stop)
    reaches(light, 120)
    # bcoin comes anew where ten seconds pass first: what is left of that is over soon
    wait_for(lambda: len(flows(proxy)) == len(service.registry.flows) == 1)
    (flow,), (there,) = flows(proxy), service.registry.flows
    assert flow["session_id"] == there.session_id
    assert len(flow["session_id"]) == 64
    text = proxy.command("status").stdout
    (line,) = [line for line in text.splitlines() if there.session_id in line]
    assert line.split()[3] == flow["circuits"][0]


def test_a_peer_of_another_make_shows_the_same_session_id(
    stack: ExitStack, tmp_path: Path, tor_network: TorNetwork
) -> None:
    """kyoto in v1, isoproxy, Tor, the Rust crate bip324 as responder, btcd in v1."""
    server = Btcd(tmp_path / "server", v2=False)
    stack.callback(server.stop)
    server.call("generate", 300)  # more filters than packets between two changes of keys
    front = V2Front(tmp_path / "front", server, tor_network.server_ip)
    stack.callback(front.stop)
    proxy = stack.enter_context(
        isoproxy(tmp_path, tor_network, [front.port], "bitcoin.v1_fallback=never")
    )
    peer = f"{tor_network.server_ip}:{front.port}"
    light = Kyoto(tmp_path / "kyoto", peer, proxy_port=proxy.address[1])
    stack.callback(light.stop)
    reaches(light, 300)
    wait_for(lambda: light.block == server.call("getbestblockhash"))
    (flow,) = flows(proxy)
    assert flow["transport"] == "v2"
    assert flow["session_id"] == front.session_id
    assert len(front.session_id) == 64
    assert flow["to_client"]["messages"]["cfilter"]["count"] >= 300
    text = proxy.command("status").stdout
    (line,) = [line for line in text.splitlines() if front.session_id in line]
    assert line.split()[3] == flow["circuits"][0]


def test_a_v1_only_node_is_left_alone_with_never(
    stack: ExitStack, tmp_path: Path, tor_network: TorNetwork
) -> None:
    server = node(stack, tmp_path / "server", tor_network, v2=False)
    peer = (tor_network.server_ip, server.port)
    proxy = stack.enter_context(
        isoproxy(tmp_path, tor_network, [server.port], "bitcoin.v1_fallback=never")
    )
    client = v1_client(stack, tmp_path / "client", proxy, peer, "alice")
    proxy.wait_for(
        "a refusal", lambda: proxy.status()["bitcoin"]["totals"]["outcomes"].get("refused"), 90
    )
    assert client.height == 0
    assert not proxy.status()["bitcoin"]["totals"]["to_client"]["wire_bytes"]
