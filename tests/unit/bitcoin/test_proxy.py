"""Port 1324: where a connection goes, under which key, and what is refused."""

from __future__ import annotations

import asyncio
import socket
import time
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest

from isoproxy.bitcoin import proxy as module
from isoproxy.bitcoin.carry import Carrier, CarrySettings
from isoproxy.bitcoin.flow import TransportType
from isoproxy.bitcoin.flows import FlowRegistry, Outcome
from isoproxy.bitcoin.known_peers import PeerMemory
from isoproxy.bitcoin.messages import MAINNET, SIGNET, Networks
from isoproxy.bitcoin.options import Fallback
from isoproxy.bitcoin.proxy import (
    BitcoinProxy,
    ProxySettings,
    check_learned,
    client_field,
)
from isoproxy.bitcoin.v1 import VERSION, encode
from isoproxy.errors import DialError, ErrorKind, PolicyRefusal
from isoproxy.isolation import (
    P2P,
    Isolate,
    IsolationKey,
    Isolator,
    ListenerRule,
    Purpose,
    client_of_address,
    own_group,
)
from isoproxy.net.target import Target
from tests.kit.relaying import relay_stream
from tests.kit.waiting import until
from tests.unit.bitcoin.ends import V1End, V2End, pair, receive, receive_exactly, send
from tests.unit.bitcoin.peers import HELLO, LONG_VERSION, short, v1
from tests.unit.bitcoin.test_v1 import version_payload

ONION = Target.parse("b" * 56 + ".onion", 8333)


RULE = ListenerRule(own_group("proxy"), Isolate.CLIENT_ADDR | Isolate.DEST_ADDR | Isolate.DEST_PORT)


class World:
    """A proxy whose dialer hands out one end of a socket pair."""

    def __init__(
        self,
        settings: ProxySettings | None = None,
        *,
        carrying: CarrySettings | None = None,
        refuse: ErrorKind | None = None,
    ) -> None:
        self.registry = FlowRegistry()
        self.dialled: list[tuple[IsolationKey, Target]] = []
        self.peers: asyncio.Queue[socket.socket] = asyncio.Queue()
        self.proxy_clients: list[socket.socket] = []
        self.refuse = refuse
        self.proxy = BitcoinProxy(
            settings or ProxySettings(RULE),
            Carrier(self, relay_stream, self.registry, PeerMemory(time.monotonic), carrying),
            Isolator(),
            socks=self.socks,
        )

    async def connect(
        self, key: IsolationKey, purpose: Purpose, target: Target, *, client: bytes = b""
    ) -> socket.socket:
        assert purpose == P2P
        self.dialled.append((key, target))
        if self.refuse is not None:
            raise DialError(kind=self.refuse)
        far, near = pair()
        self.peers.put_nowait(far)
        return near

    async def socks(self, client: socket.socket) -> None:
        self.proxy_clients.append(client)
        await send(client, b"socks " + await receive(client))

    async def serve(self, first: bytes) -> tuple[socket.socket, asyncio.Task[None]]:
        far, near = pair()
        task = asyncio.create_task(self.proxy.handle(near))
        if first:
            await asyncio.get_running_loop().sock_sendall(far, first)
        return far, task


async def test_the_destination_comes_from_version() -> None:
    world = World()
    client, task = await world.serve(HELLO)
    peer = V2End(await world.peers.get())
    await peer.shake()
    assert await peer.contents() == LONG_VERSION
    await peer.send(short("ping", bytes(8)))
    assert (await V1End(client).message())[1] == bytes(8)
    ((key, target),) = world.dialled
    assert target == Target.parse("1.2.3.4", 8333)
    (flow,) = world.registry.flows
    assert flow.key == key
    assert flow.transport is TransportType.V2
    client.close()
    await task
    peer.sock.close()
    assert not world.registry.flows


async def test_each_destination_has_a_key_of_its_own() -> None:
    world = World()
    for host, port in (("1.2.3.4", 8333), ("1.2.3.4", 8334), ("1.2.3.5", 8333), ("1.2.3.4", 8333)):
        address = IPv6Address(f"::ffff:{host}").packed
        hello = encode(MAINNET, VERSION, version_payload(host=address, port=port))
        client, task = await world.serve(hello)
        peer = await world.peers.get()
        client.close()
        await task
        peer.close()
    keys = [key for key, _ in world.dialled]
    assert keys[0] == keys[3]
    assert len(set(keys)) == 3


async def test_each_client_has_a_key_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    for host in ("192.0.2.1", "192.0.2.2", "192.0.2.1"):
        monkeypatch.setattr(module, "client_field", lambda _, host=host: client_of_address(host))
        client, task = await world.serve(HELLO)
        peer = await world.peers.get()
        client.close()
        await task
        peer.close()
    one, two, again = (key for key, _ in world.dialled)
    assert one == again != two


@pytest.mark.parametrize(
    "host",
    [
        "::",
        "::1",
        "::ffff:0.0.0.0",
        "::ffff:127.0.0.1",
        "::ffff:10.1.2.3",
        "::ffff:192.168.0.1",
        "::ffff:169.254.1.1",
        "::ffff:224.0.0.1",
        "::ffff:100.64.0.1",
        "fe80::1",
        "fec0::1",
        "fc00::1",
        "ff02::1",
        "fd87:d87e:eb43::1",
        "2002:7f00:1::",
        "2001:0:4136:e378::1",
        "2001:db8::1",
    ],
)
async def test_addresses_that_are_never_learned(host: str) -> None:
    world = World()
    payload = version_payload(host=IPv6Address(host).packed)
    client, task = await world.serve(encode(MAINNET, VERSION, payload))
    await task
    assert not world.dialled
    assert world.proxy.refused == {ErrorKind.ADDRESS_REFUSED: 1}
    client.close()


@pytest.mark.parametrize("host", ["8.8.8.8", "2a00:1450::1"])
def test_global_addresses_are_learned(host: str) -> None:
    check_learned(ip_address(host))


@pytest.mark.parametrize("host", ["0.0.0.0", "255.255.255.255", "240.0.0.1", "172.16.0.1"])
def test_addresses_the_guard_refuses(host: str) -> None:
    with pytest.raises(PolicyRefusal):
        check_learned(IPv4Address(host))


async def test_port_zero_is_never_learned() -> None:
    world = World()
    client, task = await world.serve(encode(MAINNET, VERSION, version_payload(port=0)))
    await task
    assert not world.dialled
    client.close()


async def test_a_map_turns_an_address_into_an_onion_service() -> None:
    private = Target.parse("10.64.0.1", 8333)
    world = World(ProxySettings(RULE, peers={private: ONION}))
    payload = version_payload(host=IPv6Address("::ffff:10.64.0.1").packed)
    client, task = await world.serve(encode(MAINNET, VERSION, payload))
    peer = await world.peers.get()
    assert world.dialled[0][1] == ONION
    client.close()
    await task
    peer.close()


async def test_a_test_network_may_lift_the_guard() -> None:
    world = World(ProxySettings(RULE, allow_private=True))
    payload = version_payload(host=IPv6Address("::1").packed, port=18444)
    client, task = await world.serve(encode(MAINNET, VERSION, payload))
    peer = await world.peers.get()
    assert world.dialled[0][1] == Target.parse("::1", 18444)
    client.close()
    await task
    peer.close()


async def test_a_configured_peer_needs_no_version() -> None:
    world = World(ProxySettings(RULE, peer=ONION))
    client, task = await world.serve(b"\xaa" * 64)
    peer = await world.peers.get()
    assert await receive_exactly(peer, 64) == b"\xaa" * 64
    await send(peer, b"v2 answer")
    assert await receive(client) == b"v2 answer"
    assert world.dialled[0][1] == ONION
    client.close()
    await task
    peer.close()


@pytest.mark.virtual_clock
async def test_silence_towards_a_known_destination_is_relayed() -> None:
    world = World(ProxySettings(RULE, peer=ONION))
    client, task = await world.serve(b"")
    peer = await world.peers.get()
    await asyncio.get_running_loop().sock_sendall(peer, b"banner")
    assert await asyncio.get_running_loop().sock_recv(client, 100) == b"banner"
    client.close()
    await task
    peer.close()


@pytest.mark.virtual_clock
async def test_a_client_that_hesitates_is_carried_as_v2_all_the_same() -> None:
    world = World(ProxySettings(RULE, peer=ONION))
    client, task = await world.serve(b"")
    peer = await world.peers.get()
    await asyncio.sleep(60)
    await asyncio.get_running_loop().sock_sendall(
        client, encode(MAINNET, VERSION, version_payload())
    )
    opening = await receive(peer)
    assert len(opening) >= 64
    assert VERSION not in opening
    client.close()
    await task
    peer.close()


async def test_v1_of_another_network_than_the_proxys_is_not_relayed() -> None:
    world = World(
        ProxySettings(RULE, peer=ONION), carrying=CarrySettings(networks=Networks([SIGNET]))
    )
    client, task = await world.serve(encode(MAINNET, VERSION, version_payload()))
    peer = await world.peers.get()
    assert await receive(peer) == b""
    await task
    client.close()
    peer.close()


async def test_v1_of_an_unknown_network_is_relayed_only_where_plaintext_may_leave() -> None:
    hello = b"\x01\x02\x03\x04" + HELLO[4:]
    for fallback, passed in ((Fallback.NEVER, b""), (Fallback.ONION_ONLY, hello)):
        world = World(ProxySettings(RULE, peer=ONION), carrying=CarrySettings(fallback))
        client, task = await world.serve(hello)
        peer = await world.peers.get()
        got = await receive_exactly(peer, len(hello)) if passed else await receive(peer)
        assert got == passed
        client.close()
        await task
        assert world.registry.totals().outcomes[Outcome.REFUSED] == (not passed)
        peer.close()


async def test_a_redirected_client_goes_where_it_was_going(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        module, "original_destination", lambda client: (IPv4Address("9.9.9.9"), 8333)
    )
    world = World()
    payload = version_payload(host=IPv6Address("::").packed, port=0)
    client, task = await world.serve(encode(MAINNET, VERSION, payload))
    peer = await world.peers.get()
    assert world.dialled[0][1] == Target.parse("9.9.9.9", 8333)
    client.close()
    await task
    peer.close()


async def test_a_redirected_client_goes_nowhere_in_the_private_network(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        module, "original_destination", lambda client: (IPv4Address("10.9.9.9"), 8333)
    )
    world = World()
    client, task = await world.serve(HELLO)
    await until(lambda: world.dialled or world.proxy.refused)
    client.close()
    assert world.dialled == []
    await task
    assert world.proxy.refused == {ErrorKind.ADDRESS_REFUSED: 1}


@pytest.mark.parametrize(
    "first",
    [
        b"\x05",
        b"\x05\x01\x00",
        b"\x05\x03\x00\x01\x02\x05\x01",
        b"\x04",
        b"\x04\x01\x20\x8d\x0a\x00",
        b"\x04\x01\x20\x8d\x01\x02\x03\x04alice\x00",
        b"\x04\x01\x20\x8d\x00\x00\x00\x01alice\x00" + b"b" * 56 + b".onion\x00",
        b"\x04\xf0\x00\x00\x00\x00\x00\x01\x00peer.",
        b"CONNECT peer.example:8333 HTTP/1.1\r\nProxy-Authorization: Basic c2VjcmV0\r\n\r\n",
        b"CON",
        b"GET http://peer.example/ HTTP/1.1\r\n\r\n",
    ],
)
@pytest.mark.parametrize("peer", [None, ONION])
async def test_a_client_of_a_proxy_protocol_is_handed_on_untouched(
    first: bytes, peer: Target | None
) -> None:
    world = World(ProxySettings(RULE, peer=peer))
    client, task = await world.serve(first)
    assert await receive(client) == b"socks " + first
    await task
    assert not world.dialled
    client.close()


@pytest.mark.parametrize(
    "key",
    [
        b"\x05" + bytes(range(60, 123)),  # as SOCKS, it would offer methods that no RFC knows
        b"\x04\x03" + bytes(range(60, 122)),  # a command that no SOCKS4 has
        b"\x04\x01" + bytes(range(60, 110)) + bytes(range(12)),  # control characters in a name
        b"\x04\x01" + b"a" * 30 + b"\x00" + b"b" * 29 + b"\x00c",  # more than a request
    ],
)
async def test_a_v2_stream_that_begins_as_socks_does(key: bytes) -> None:
    world = World(ProxySettings(RULE, peer=ONION))
    client, task = await world.serve(key)
    peer = await world.peers.get()
    assert await receive_exactly(peer, 64) == key
    assert not world.proxy_clients
    client.close()
    await task
    peer.close()


@pytest.mark.parametrize("first", [b"\x05\x00", b"get / HTTP/1.1\r\n\r\n", b"\x00", v1("verack")])
async def test_what_names_no_destination_is_refused(first: bytes) -> None:
    world = World()
    client, task = await world.serve(first)
    await task
    assert await receive(client) == b""
    assert not world.dialled
    assert world.proxy.refused == {ErrorKind.MALFORMED: 1}
    client.close()


@pytest.mark.virtual_clock
@pytest.mark.parametrize("first", [b"", HELLO[:3], HELLO[:16], HELLO[:60]])
async def test_a_client_that_never_says_where_to(first: bytes) -> None:
    world = World()
    client, task = await world.serve(first)
    await task
    assert 59 <= asyncio.get_running_loop().time() < 70
    assert world.proxy.refused == {ErrorKind.HANDSHAKE_TIMEOUT: 1}
    client.close()


async def test_a_dial_that_fails_closes_the_client() -> None:
    world = World(refuse=ErrorKind.CONNECTION_REFUSED)
    client, task = await world.serve(HELLO)
    await task
    assert await receive(client) == b""
    assert world.proxy.refused == {ErrorKind.CONNECTION_REFUSED: 1}
    client.close()


async def test_connections_are_bounded_and_end_with_the_proxy() -> None:
    world = World(ProxySettings(RULE, max_connections=2))
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    serving = asyncio.create_task(world.proxy.serve(listener))
    clients = []
    for _ in range(3):
        client = socket.socket()
        client.setblocking(False)
        await asyncio.get_running_loop().sock_connect(client, listener.getsockname())
        clients.append(client)
    assert await receive(clients[2]) == b""
    assert world.proxy.refused == {ErrorKind.BUSY: 1}
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert await receive(clients[0]) == b""
    for sock in (*clients, listener):
        sock.close()


def test_who_the_client_is() -> None:
    one, two = socket.socketpair()
    with one, two:
        assert client_field(one).startswith(b"u")
    server = socket.create_server(("127.0.0.1", 0))
    with server, socket.create_connection(server.getsockname()) as client:
        assert client_field(client) == b"4\x7f\x00\x00\x01"
