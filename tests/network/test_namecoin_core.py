"""Promise: both ends of a flow through Tor show the same, and one of them is Bitcoin Core's code.

Namecoin Core (`getpeerinfo`) says which transport it speaks with each of its peers, the session
ID, and the bytes that it sent and received; isoproxy's status must say the same.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.interop.namecoin_core import NamecoinCore
from tests.interop.nodes import BcoinNode, wait_for
from tests.kit.isoproxy_process import Isoproxy, system
from tests.kit.onion import publish
from tests.kit.tornet import TorNetwork
from tests.network.bitcoin_ends import version
from tests.network.test_bitcoin import client as client_of
from tests.network.test_bitcoin import flows, isoproxy

pytestmark = pytest.mark.interop

BLOCKS = 120


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def started(stack: ExitStack, folder: Path, *arguments: str, **more: Any) -> NamecoinCore:
    node = NamecoinCore(folder, *arguments, **more)
    stack.callback(node.stop)
    return node


def a_peer(stack: ExitStack, folder: Path, host: str, *, v2: bool = True) -> NamecoinCore:
    """A node with a chain, to which others come."""
    node = started(stack, folder, host=host, v2=v2)
    node.generate(BLOCKS)
    return node


def synced(client: NamecoinCore, server: NamecoinCore) -> None:
    """Wait until the client has the chain, also what is found while it is connected."""
    wait_for(lambda: client.tip == server.tip, 90)
    server.generate(5)
    wait_for(lambda: client.tip == server.tip, 60)
    assert client.height == BLOCKS + 5


def same_bytes(proxy: Isoproxy, server: NamecoinCore) -> bool:
    """Whether the peer's counts of bytes are those of the one flow."""
    (flow,), (peer,) = flows(proxy), server.peers
    up, down = flow["bytes_up"], flow["bytes_down"]
    if flow["fell_back"]:  # the first stream was another connection to the peer
        up -= flow["to_peer"]["wire_bytes"]
    return (up, down) == (peer["bytesrecv"], peer["bytessent"])


def totals(proxy: Isoproxy) -> dict[str, Any]:
    found: dict[str, Any] = proxy.status()["bitcoin"]["totals"]
    return found


def agree(proxy: Isoproxy, server: NamecoinCore, transport: str, *, own: bool = False) -> None:
    """Both ends of the one flow say the same; `own`: the session is the client's own."""
    wait_for(lambda: len(flows(proxy)) == len(server.peers) == 1)
    (flow,), (peer,) = flows(proxy), server.peers
    spoken = "v2" if transport == "untouched" else transport
    assert (flow["transport"], peer["transport_protocol_type"]) == (transport, spoken)
    assert flow["session_id"] == ("" if own else peer["session_id"])
    assert len(peer["session_id"]) == (64 if spoken == "v2" else 0)
    # pings come and go meanwhile
    wait_for(lambda: same_bytes(proxy, server))
    if transport == "v2":
        text = proxy.command("status").stdout
        (line,) = [line for line in text.splitlines() if peer["session_id"] in line]
        assert line.split()[1:4] == [flow["network"], "v2", *flow["circuits"]]


@pytest.mark.parametrize(
    ("client_v2", "server_v2", "transport"),
    [(False, True, "v2"), (True, True, "untouched"), (False, False, "v1")],
)
@pytest.mark.parametrize("way", ["socks", "socks at the proxy", "proxy"])
def test_a_node_syncs(
    stack: ExitStack,
    tmp_path: Path,
    tor_network: TorNetwork,
    way: str,
    client_v2: bool,
    server_v2: bool,
    transport: str,
) -> None:
    server = a_peer(stack, tmp_path / "server", tor_network.server_ip, v2=server_v2)
    fallback = "never" if server_v2 else "always"
    there = f"peer.test:{server.port}"
    settings = 'address = "127.0.0.1:0"' + (f'\npeer = "{there}"' if way == "proxy" else "")
    proxy = stack.enter_context(
        isoproxy(
            tmp_path,
            tor_network,
            [server.port],
            f"bitcoin.v1_fallback={fallback}",
            proxies=(settings,),
        )
    )
    socks, own = ["{}:{}".format(*address) for address in proxy.addresses]
    words = {
        "socks": [f"-proxy={socks}", f"-connect={there}"],
        "socks at the proxy": [f"-proxy={own}", f"-connect={there}"],
        "proxy": [f"-connect={own}"],
    }
    client = started(stack, tmp_path / "client", *words[way], v2=client_v2)
    synced(client, server)
    agree(proxy, server, transport, own=client_v2)
    if client_v2:
        assert client.peers[0]["session_id"] == server.peers[0]["session_id"]


def test_a_node_is_not_brought_down_to_v1_where_that_is_not_allowed(
    stack: ExitStack, tmp_path: Path, tor_network: TorNetwork
) -> None:
    """It speaks v2, and v1 on a second connection, as its own rule has it: ours ends that."""
    server = a_peer(stack, tmp_path / "server", tor_network.server_ip, v2=False)
    proxy = stack.enter_context(
        isoproxy(tmp_path, tor_network, [server.port], "bitcoin.v1_fallback=never")
    )
    words = (f"-proxy={proxy.host_and_port}", f"-connect=peer.test:{server.port}")
    client = started(stack, tmp_path / "client", *words)
    proxy.wait_for("its turning to v1", lambda: totals(proxy)["outcomes"].get("refused"), 90)
    assert client.height == 0
    assert server.peers == []


@pytest.mark.parametrize(
    ("chain", "network"), [("main", "namecoin"), ("test", "namecoin-testnet"), ("signet", "signet")]
)
def test_other_networks_shake_hands(
    stack: ExitStack, tmp_path: Path, tor_network: TorNetwork, chain: str, network: str
) -> None:
    """Nothing is to be synced there: their blocks are far too hard for a test."""
    server = started(stack, tmp_path / "server", host=tor_network.server_ip, chain=chain)
    proxy = stack.enter_context(
        isoproxy(tmp_path, tor_network, [server.port], "bitcoin.v1_fallback=never")
    )
    words = (f"-proxy={proxy.host_and_port}", f"-connect=peer.test:{server.port}")
    client = started(stack, tmp_path / "client", *words, v2=False, chain=chain)
    wait_for(lambda: client.peers and server.peers, 60)
    assert flows(proxy)[0]["network"] == network
    agree(proxy, server, "v2")


@pytest.mark.parametrize("visitor_v2", [True, False])
@pytest.mark.parametrize("node_v2", [True, False])
def test_a_node_comes_in_by_an_onion_service(
    stack: ExitStack, tmp_path: Path, tor_network: TorNetwork, visitor_v2: bool, node_v2: bool
) -> None:
    """Its Tor is not ours: it comes through the network's client, with no isoproxy of its own."""
    node = a_peer(stack, tmp_path / "node", "127.0.0.1", v2=node_v2)
    service = ["name=node", "ports=[18444]", f"target=127.0.0.1:{node.port}", "v2=true"]
    proxy = stack.enter_context(
        isoproxy(tmp_path, tor_network, [18444], *(f"onion_service.0.{word}" for word in service))
    )
    words = (f"-onion=unix:{tor_network.client.socks_path}", f"-connect={published(proxy)}")
    visitor = started(stack, tmp_path / "visitor", *words, v2=visitor_v2)
    synced(visitor, node)
    (flow,), (theirs,), (ours,) = flows(proxy), visitor.peers, node.peers
    transport = ("untouched" if node_v2 else "v2") if visitor_v2 else "v1"
    assert (flow["inbound"], flow["transport"]) == (True, transport)
    assert theirs["transport_protocol_type"] == ("v2" if visitor_v2 else "v1")
    assert ours["transport_protocol_type"] == ("v2" if visitor_v2 and node_v2 else "v1")
    if transport == "v2":
        assert flow["session_id"] == theirs["session_id"] != ""
    else:
        assert theirs["session_id"] == ours["session_id"]

    def same() -> bool:
        (flow,), (theirs,) = flows(proxy), visitor.peers
        return (flow["bytes_up"], flow["bytes_down"]) == (theirs["bytesrecv"], theirs["bytessent"])

    wait_for(same)


def published(proxy: Isoproxy) -> str:
    """The address of the one onion service, once it is there."""

    def shown() -> dict[str, Any]:
        (service,) = json.loads(proxy.command("onions", "--json").stdout)["onion_services"]
        assert isinstance(service, dict)
        return service

    proxy.wait_for("the onion service", lambda: shown()["addresses"], 90)
    address: str = shown()["addresses"][0].split()[0]
    return address


@contextlib.contextmanager
def network_without_a_way_out() -> Iterator[list[str]]:
    """A network namespace with loopback and an address; gives the words that enter it."""
    with subprocess.Popen(
        ["unshare", "--net", "sh", "-ec", _NETWORK],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stderr is not None
        if holder.stdout.readline() != "ready\n":
            pytest.skip("no network namespace may be made here: " + holder.stderr.read()[-100:])
        yield ["nsenter", f"--net=/proc/{holder.pid}/ns/net"]
        holder.communicate()


_NETWORK = """
ip link set lo up
ip link add name out type veth peer name far
ip addr add 10.99.0.1/24 dev out
ip link set far up
ip link set out up
ip route add default dev out
echo ready
exec cat
"""
GROUP = "4242"


@pytest.mark.parametrize("client_v2", [False, True])
def test_a_node_that_is_redirected(
    stack: ExitStack, tmp_path: Path, tor_network: TorNetwork, client_v2: bool
) -> None:
    """A node that was told of no proxy, in a network whose only way out is ours (nftables)."""
    server = a_peer(stack, tmp_path / "server", tor_network.server_ip)
    inside = stack.enter_context(network_without_a_way_out())
    settings = 'address = "127.0.0.1:1324"\n' + (
        f'[bitcoin.proxy.peers]\n"203.0.113.9:18444" = "peer.test:{server.port}"'
    )
    proxy = stack.enter_context(
        Isoproxy(
            tmp_path,
            [*system(tor_network.client), "bitcoin.v1_fallback=never"],
            proxies=(settings,),
            wrapper=inside,
        )
    )
    proxy.wait_ready()
    rules = proxy.command("bitcoin", "redirect", "--print", GROUP)
    subprocess.run([*inside, "nft", "-f", "-"], input=rules.stdout, text=True, check=True)
    client = started(
        stack,
        tmp_path / "client",
        "-connect=203.0.113.9:18444",
        v2=client_v2,
        wrapper=[*inside, "setpriv", "--regid", GROUP, "--clear-groups", "--"],
        wait=False,
    )
    synced(client, server)
    agree(proxy, server, "untouched" if client_v2 else "v2", own=client_v2)


TIMES = 10


def test_v1_peers_at_an_onion_are_met_at_once_by_the_defaults(
    stack: ExitStack, tmp_path: Path, tor_network: TorNetwork
) -> None:
    """bcoin, which speaks first and bans, and a node whose v2 is off; and again and again."""
    core = a_peer(stack, tmp_path / "core", "127.0.0.1", v2=False)
    bcoin = BcoinNode(tmp_path / "bcoin", "127.0.0.1")
    stack.callback(bcoin.stop)
    there = {18444: ("127.0.0.1", core.port), 18555: ("127.0.0.1", bcoin.port)}
    onion = stack.enter_context(publish(tor_network.relays[1], there)).host
    proxy = stack.enter_context(Isoproxy(tmp_path, system(tor_network.client)))
    proxy.wait_ready()
    for port in there:
        for turn in range(TIMES):
            for user in (b"one", b"other %d" % turn):  # an identity of its own each time, too
                one = client_of(proxy, onion, port, user)
                with contextlib.closing(one.sock):
                    one.hello()
                    one.ping()
    proxy.wait_for("the flows' ends", lambda: not flows(proxy))
    assert totals(proxy)["outcomes"] == {"v1_fallback": 4 * TIMES}
    reasons = {end["reason"] for end in totals(proxy)["ends"]}
    assert reasons == {"peer_closed", "peer_speaks_v1", "remembered"}
    assert "Ignoring banned peer" not in bcoin.log
    assert core.call("listbanned") == []


def test_v1_peers_behind_exits_are_refused_by_the_defaults_and_why(
    stack: ExitStack, tmp_path: Path, tor_network: TorNetwork
) -> None:
    core = a_peer(stack, tmp_path / "core", tor_network.server_ip, v2=False)
    bcoin = BcoinNode(tmp_path / "bcoin", tor_network.server_ip)
    stack.callback(bcoin.stop)
    ports = [core.port, bcoin.port]
    proxy = stack.enter_context(isoproxy(tmp_path, tor_network, ports))
    for port in ports:
        one = client_of(proxy, "peer.test", port, b"one")
        one.sock.sendall(version())
        assert one.ended()
    proxy.wait_for("the flows' ends", lambda: not flows(proxy))
    assert totals(proxy)["outcomes"] == {"refused": 2}
    ends = {(end["ending"], end["reason"], end["closed_by"]) for end in totals(proxy)["ends"]}
    assert ends == {
        ("v2_required", "peer_closed", "peer"),
        ("v2_required", "peer_speaks_v1", "us"),
    }
    text = proxy.command("status").stdout
    assert "peer_speaks_v1" in text.replace(" ", "_")
    assert core.peers == []
