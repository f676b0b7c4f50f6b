"""Promise: Bitcoin leaves as v2, per tuple, through Tor, and nothing of it in plaintext.

Tor's control port is the witness for circuits; the far end is a v2 peer that tells its
session IDs, or a sink, while tcpdump records every byte on the network's wires.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from isoproxy.bitcoin.messages import REGTEST
from isoproxy.bitcoin.v1 import VERSION
from tests.kit.capture import capture, may_capture
from tests.kit.dial import dial
from tests.kit.isoproxy_process import Isoproxy, descriptors, resident_kb, system
from tests.kit.onion import publish
from tests.kit.repository import ROOT
from tests.kit.tornet import TorNetwork
from tests.kit.witness import Witness
from tests.network.bitcoin_ends import (
    AGENT,
    Behaviour,
    Peer,
    Sink,
    V1Client,
    V1Node,
    message,
    shaken,
    v2_node,
    version,
)

GATEWAY = 'address = "127.0.0.1:0"\nallow_private_addresses = true'


@contextlib.contextmanager
def isoproxy(
    directory: Path,
    net: TorNetwork,
    ports: list[int],
    *settings: str,
    proxies: tuple[str, ...] = (),
    develop: bool = True,
) -> Iterator[Isoproxy]:
    """isoproxy that takes `ports` for Bitcoin's."""
    more = [*system(net.client), f"bitcoin.ports={ports}", *settings]
    with Isoproxy(directory, more, proxies=proxies, develop=develop) as proxy:
        proxy.wait_ready()
        yield proxy


def client(proxy: Isoproxy, host: str, port: int, user: bytes | None = None) -> V1Client:
    return V1Client(dial(proxy.address, host, port, user=user, timeout=30))


def flows(proxy: Isoproxy) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = proxy.status()["bitcoin"]["flows"]
    return found


def test_session_ids_beside_circuits(tmp_path: Path, tor_network: TorNetwork) -> None:
    with (
        v2_node(tor_network.server_ip) as (service, port),
        isoproxy(tmp_path, tor_network, [port], "bitcoin.v1_fallback=never") as proxy,
        Witness(tor_network.client) as witness,
        contextlib.ExitStack() as stack,
    ):
        start = witness.mark()
        for user in (b"alice", b"bob", b"alice"):
            one = client(proxy, "peer.test", port, user)
            stack.callback(one.sock.close)
            one.hello()
            one.ping()
        shown = flows(proxy)
        assert [flow["transport"] for flow in shown] == ["v2"] * 3
        assert [flow["network"] for flow in shown] == ["regtest"] * 3
        assert {flow["session_id"] for flow in shown} == {
            f.session_id for f in service.registry.flows
        }
        assert len({flow["session_id"] for flow in shown}) == 3
        # two tuples, two circuits: as status says and as Tor says
        witness.settle()
        streams = witness.streams(after=start)
        witness.assert_isolated(streams)
        witness.assert_shared(streams)
        by_key = {flow["key"]: flow["circuits"] for flow in shown}
        assert len(by_key) == 2
        said = {number for numbers in by_key.values() for number in numbers}
        assert said == {str(stream.circuits[-1]) for stream in streams}
        assert len(said) == 2
        for flow in shown:
            assert flow["to_peer"]["messages"]["ping"]["count"] == 1
            assert flow["to_client"]["messages"]["pong"]["payload_bytes"] == 8
        # for a person: session ID and circuit in one line
        text = proxy.command("status").stdout
        for flow in shown:
            (line,) = [line for line in text.splitlines() if flow["session_id"] in line]
            assert line.split()[:4] == [flow["key"], "regtest", "v2", flow["circuits"][0]]
        metrics = proxy.metrics()
        assert 'isoproxy_p2p_messages_total{direction="up",type="ping"} 3' in metrics
    assert "peer.test" not in proxy.text()


def test_a_fallback_is_a_second_stream_of_the_same_tuple(
    tmp_path: Path, tor_network: TorNetwork
) -> None:
    with (
        V1Node(tor_network.server_ip) as node,
        isoproxy(tmp_path, tor_network, [node.port], "bitcoin.v1_fallback=always") as proxy,
        Witness(tor_network.client) as witness,
    ):
        start = witness.mark()
        one = client(proxy, "old.test", node.port, b"alice")
        one.hello()
        one.ping()
        (flow,) = flows(proxy)
        assert (flow["transport"], flow["fell_back"], flow["session_id"]) == ("v1", True, "")
        witness.settle()
        streams = witness.streams(after=start)
        assert len(streams) == node.connections == 2
        assert len({stream.credentials for stream in streams}) == 1
        witness.assert_shared(streams)
        assert flow["circuits"] == [str(streams[0].circuits[-1])]
        one.sock.close()
        proxy.wait_for("the flow's end", lambda: not flows(proxy))
        assert proxy.status()["bitcoin"]["totals"]["outcomes"] == {"v1_fallback": 1}


SECRETS = (VERSION.rstrip(b"\0"), AGENT, b"getaddr")
"""What a v1 client says, to be looked for where it must not be."""


@pytest.mark.skipif(not may_capture(), reason="a packet capture needs root or CAP_NET_RAW")
@pytest.mark.parametrize(
    ("fallback", "enough", "answer"),
    [
        ("never", 64, b""),
        ("never", 1, b""),
        ("never", 64, b"\xfa"),
        ("never", 64, version()),
        ("onion-only", 64, b""),
    ],
)
def test_nothing_leaves_in_plaintext(
    tmp_path: Path, tor_network: TorNetwork, fallback: str, enough: int, answer: bytes
) -> None:
    setting = f"bitcoin.v1_fallback={fallback}"
    with (
        Sink(tor_network.server_ip, enough=enough, answer=answer) as sink,
        isoproxy(tmp_path, tor_network, [sink.port], setting) as proxy,
        Witness(tor_network.client) as witness,
        capture(f"net {tor_network.subnet}") as captured,
    ):
        start = witness.mark()
        one = client(proxy, "sink.test", sink.port)
        one.sock.sendall(version() + message("getaddr") * 50)
        assert one.ended()
        witness.settle()
        assert len(witness.streams(after=start)) == sink.connections == 1
    (left,) = captured.to(sink.address)
    assert 64 <= len(left) <= 64 + 4094 if enough > 1 else left
    assert REGTEST.magic not in left
    assert len(captured.streams) > 2, "the relays' links were not captured"
    for said in captured.streams.values():
        assert not any(secret in said for secret in SECRETS) or said in answer


@pytest.mark.skipif(not may_capture(), reason="a packet capture needs root or CAP_NET_RAW")
def test_the_capture_would_have_seen_it(tmp_path: Path, tor_network: TorNetwork) -> None:
    setting = "bitcoin.v1_fallback=always"
    with (
        Sink(tor_network.server_ip, enough=64) as sink,
        isoproxy(tmp_path, tor_network, [sink.port], setting) as proxy,
        capture(f"net {tor_network.subnet}") as captured,
    ):
        one = client(proxy, "sink.test", sink.port)
        one.sock.sendall(version())
        assert one.ended()
    first, second = captured.to(sink.address)
    assert AGENT not in first
    assert second.startswith(version())
    # from the exit on, and nowhere before
    assert [said for said in captured.streams.values() if AGENT in said] == [second]


def test_an_onion_service_may_be_told_in_v1(tmp_path: Path, tor_network: TorNetwork) -> None:
    with (
        V1Node("127.0.0.1") as old,
        v2_node("127.0.0.1") as (service, port),
        publish(tor_network.relays[1], {18444: old.address, 18445: ("127.0.0.1", port)}) as onion,
        isoproxy(tmp_path, tor_network, [18444, 18445]) as proxy,
    ):
        plain = client(proxy, onion.host, 18444)
        plain.hello()
        plain.ping()
        new = client(proxy, onion.host, 18445)
        new.hello()
        new.ping()
        shown = {flow["transport"]: flow for flow in flows(proxy)}
        assert set(shown) == {"v1", "v2"}
        assert shown["v1"]["fell_back"]
        assert {shown["v2"]["session_id"]} == {flow.session_id for flow in service.registry.flows}
        plain.sock.close()
        new.sock.close()


UNAWARE = """
import socket, sys
from tests.network.bitcoin_ends import V1Client
client = V1Client(socket.create_connection((sys.argv[1], 18444), timeout=60))
client.hello()
client.ping()
"""


def test_a_program_that_knows_no_proxy_is_redirected_in_user_space(
    tmp_path: Path, tor_network: TorNetwork
) -> None:
    """examples/bitcoin/torsocks.sh; to an onion service, for torsocks refuses loopback."""
    root = ROOT
    with (
        v2_node("127.0.0.1") as (_, port),
        publish(tor_network.relays[1], {18444: ("127.0.0.1", port)}) as onion,
        isoproxy(tmp_path, tor_network, [18444], "bitcoin.v1_fallback=never") as proxy,
    ):
        host, own_port = proxy.address
        subprocess.run(
            [root / "examples/bitcoin/torsocks.sh", sys.executable, "-c", UNAWARE, onion.host],
            env={**os.environ, "ISOPROXY_HOST": host, "ISOPROXY_PORT": str(own_port)},
            cwd=root,
            timeout=90,
            check=True,
        )
        proxy.wait_for("the flow's end", lambda: not flows(proxy))
        assert proxy.status()["bitcoin"]["totals"]["outcomes"] == {"v2": 1}


def test_the_proxy(tmp_path: Path, tor_network: TorNetwork) -> None:
    ip = tor_network.server_ip
    with (
        v2_node(ip) as (service, port),
        isoproxy(tmp_path, tor_network, [port], proxies=(GATEWAY,)) as proxy,
        Witness(tor_network.client) as witness,
        contextlib.ExitStack() as stack,
    ):
        start = witness.mark()
        address = proxy.addresses[1]
        assert not isinstance(address, str)
        # the destination from VERSION
        direct = V1Client(socket.create_connection(address, timeout=30))
        stack.callback(direct.sock.close)
        direct.sock.sendall(version(ip, port))
        assert direct.next()[0] == "version"
        direct.ping()
        # SOCKS5 on the same port: users stay apart
        for user in (b"alice", b"bob"):
            one = V1Client(dial(address, "peer.test", port, user=user, timeout=30))
            stack.callback(one.sock.close)
            one.hello()
        (there,) = proxy.status()["bitcoin"]["proxies"]
        assert (there["name"], there["open"], there["accepted"]) == ("proxy", 3, 3)
        shown = flows(proxy)
        assert {flow["session_id"] for flow in shown} == {
            f.session_id for f in service.registry.flows
        }
        assert len({flow["key"] for flow in shown}) == 3
        witness.settle()
        witness.assert_isolated(witness.streams(after=start))
        # a reload without the proxy closes it, and what came by SOCKS lives on
        text = proxy.config.read_text()
        proxy.config.write_text(text[: text.index("[[bitcoin.proxy]]")])
        assert "bitcoin.proxy" in proxy.command("reload").stdout
        assert direct.ended()
        one.ping()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address, timeout=5).close()
        assert proxy.status()["bitcoin"]["proxies"] == []


def _one_byte(sock: socket.socket) -> None:
    sock.recv(1)
    sock.sendall(b"\x01")


def _speaks_v1(sock: socket.socket) -> None:
    sock.recv(64)
    sock.sendall(version() + bytes(8192))
    sock.recv(65536)


def _no_terminator(sock: socket.socket) -> None:
    sock.recv(64)
    with contextlib.suppress(OSError):
        while True:
            sock.sendall(os.urandom(4096))


def _tampered_tag(sock: socket.socket) -> None:
    transport = shaken(sock)
    packet = bytearray(transport.seal(b"\x12" + bytes(8)))
    packet[-1] ^= 1
    sock.sendall(packet)
    sock.recv(65536)


def _oversized(sock: socket.socket) -> None:
    transport = shaken(sock)
    packet = bytearray(transport.seal(bytes(40)))
    packet[2] ^= 0xFF  # the length becomes more than any network's
    packet[1] ^= 0xFF
    with contextlib.suppress(OSError):
        while True:
            sock.sendall(packet)


CLOSED = {
    "one byte": _one_byte,
    "v1": _speaks_v1,
    "no terminator": _no_terminator,
    "tampered tag": _tampered_tag,
    "oversized": _oversized,
}


def _pings(sock: socket.socket, before: bytes, unit: int, count: int) -> None:
    """Some kilobytes of what is to be thrown away, and a ping the client must still get."""
    transport = shaken(sock)
    for _ in range(count):
        sock.sendall(transport.seal(before + bytes(unit), ignore=not before))
    sock.sendall(transport.seal(b"\x12" + b"survived"))
    while sock.recv(65536):
        pass


TOLERATED = {
    "decoys": lambda sock: _pings(sock, b"", 60_000, 200),
    "unknown ids": lambda sock: _pings(sock, b"\xff", 3, 2000),
    "unreadable type": lambda sock: _pings(sock, b"\x00\x01\x02", 30, 2000),
}


def _bad_checksum(one: V1Client) -> bool:
    bad = bytearray(message("ping", b"12345678"))
    bad[20] ^= 1
    one.sock.sendall(bad)
    one.ping(b"87654321")
    return False


def _wrong_magic(one: V1Client) -> bool:
    one.sock.sendall(b"\xf9\xbe\xb4\xd9" + message("ping", bytes(8))[4:])
    return True


def _too_long(one: V1Client) -> bool:
    head = bytearray(message("ping"))
    head[16:20] = (1 << 31).to_bytes(4, "little")
    one.sock.sendall(head)
    return True


def _slow(one: V1Client) -> bool:
    for byte in message("ping", b"by bytes"):
        one.sock.sendall(bytes([byte]))
        time.sleep(0.005)
    while one.next() != ("pong", b"by bytes"):
        pass
    return False


CLIENTS = (_bad_checksum, _wrong_magic, _too_long, _slow)


def test_hostile_peers_and_clients_do_not_disturb_others(
    tmp_path: Path, tor_network: TorNetwork
) -> None:
    with contextlib.ExitStack() as stack:
        _, good_port = stack.enter_context(v2_node(tor_network.server_ip))
        peers: dict[str, Peer] = {}
        behaviours: dict[str, Behaviour] = CLOSED | TOLERATED
        for name, behaviour in behaviours.items():
            peers[name] = stack.enter_context(Peer(tor_network.server_ip, behaviour))
        ports = [good_port, *(peer.port for peer in peers.values())]
        never = "bitcoin.v1_fallback=never"
        # megabytes of small packets: development mode would report callbacks that are slow in it
        proxy = stack.enter_context(isoproxy(tmp_path, tor_network, ports, never, develop=False))
        good = client(proxy, "good.test", good_port, b"good")
        good.hello()
        proxy.wait_for("one flow", lambda: len(flows(proxy)) == 1)
        open_before, memory = descriptors(proxy.pid), resident_kb(proxy.pid)
        for name, peer in peers.items():
            one = client(proxy, "bad.test", peer.port, name.encode())
            one.sock.sendall(version())
            if name in CLOSED:
                assert one.ended(), name
            else:
                assert one.next() == ("ping", b"survived"), name
            one.sock.close()
            good.ping(name.encode().ljust(8)[:8])
        for hostile in CLIENTS:
            one = client(proxy, "good.test", good_port, hostile.__name__.encode())
            one.hello()
            assert not hostile(one) or one.ended()
            one.sock.close()
            good.ping(b"stillok!")
        proxy.wait_for("the flows' end", lambda: len(flows(proxy)) == 1)
        # A message of the longest size that the networks allow may have been under way.
        assert resident_kb(proxy.pid) < memory + 64 * 1024
        proxy.wait_for("the sockets' end", lambda: descriptors(proxy.pid) <= open_before)
        totals = proxy.status()["bitcoin"]["totals"]
        assert totals["corrupt"] == 1
        assert totals["to_client"]["dropped"] == 4000
        good.sock.close()
    assert totals["outcomes"] == {
        "failed": 2,
        "refused": 1,  # the one that answers in v1
        "v2": len(peers) - 3 + len(CLIENTS),
    }
