"""What Bitcoin Core's own suites ask of a v2 node, asked of isoproxy, on both sides.

The peers are the functional test framework's (`p2p_v2_misbehaving`, `p2p_v2_encrypted`,
`p2p_v2_transport`), as Namecoin Core has it beside its build; behind isoproxy, or before it, is a
node that speaks v1 alone, so that every byte of v2 is ours.  The expectations are those of the
suites, but for what they look for in Core's own log.
"""

from __future__ import annotations

import contextlib
import importlib
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from isoproxy.bitcoin.carry import CarrySettings
from isoproxy.bitcoin.converter import Ending
from isoproxy.bitcoin.flow import TransportType
from isoproxy.bitcoin.inbound import Inbound, InboundSettings
from isoproxy.bitcoin.messages import REGTEST, SIGNET
from isoproxy.bitcoin.options import Deadlines, Fallback
from isoproxy.bitcoin.v1 import VERSION
from isoproxy.net.target import Target
from tests.interop.namecoin_core import NamecoinCore, functional_tests
from tests.interop.nodes import wait_for
from tests.interop.proxy import inbound, inbound_service, port_1324, proxy
from tests.kit.dial import dial
from tests.network.bitcoin_ends import V1Client, version

pytestmark = pytest.mark.interop

HANDSHAKE_S: Final = 3.0
"""As `-peertimeout` in the suites."""
MISBEHAVING: Final = {
    "EXCESS_GARBAGE": Ending.PEER_BROKE_PROTOCOL,
    "WRONG_GARBAGE_TERMINATOR": Ending.HANDSHAKE_TIMEOUT,
    "WRONG_GARBAGE": Ending.PEER_BROKE_PROTOCOL,
    "SEND_NO_AAD": Ending.PEER_BROKE_PROTOCOL,
}
STATES: Final = {
    "EXCESS_GARBAGE": "ExcessGarbageState",
    "WRONG_GARBAGE_TERMINATOR": "WrongGarbageTerminatorState",
    "WRONG_GARBAGE": "WrongGarbageState",
    "SEND_NO_AAD": "NoAADState",
}


class Suite:
    """The framework's modules, and its thread."""

    def __init__(self) -> None:
        self.misbehaving: Any = importlib.import_module("p2p_v2_misbehaving")
        self.p2p: Any = importlib.import_module("test_framework.p2p")
        self.blocks: Any = importlib.import_module("test_framework.blocktools")
        self.thread: Any = self.p2p.NetworkThread()

    def connect(self, peer: Any, port: int, *, version: bool = True) -> None:
        """Have `peer` come to `port` as a v2 initiator."""
        peer.peer_connect(
            dstaddr="127.0.0.1",
            dstport=port,
            net="regtest",
            timeout_factor=1,
            supports_v2_p2p=True,
            send_version=version,
        )()
        peer.wait_until(lambda: peer.is_connected, check_connected=False)

    def listen(self, peer: Any) -> int:
        """Have `peer` wait as a v2 responder; returns its port."""
        found: list[int] = []
        peer.peer_accept_connection(
            1, net="regtest", timeout_factor=1, supports_v2_p2p=True, reconnect=False
        )
        self.p2p.NetworkThread.listen(peer, lambda host, port: found.append(port), port=0)
        wait_for(lambda: found)
        return found[0]

    def chain(self, node: NamecoinCore, count: int) -> list[Any]:
        """So many blocks on top of what the node has, which it does not know."""
        tip = node.call("getbestblockhash")
        head = node.call("getblockheader", tip)
        before, height, when = int(tip, 16), head["height"], head["time"]
        made = []
        for number in range(1, count + 1):
            block = self.blocks.create_block(before, height=height + number, ntime=when + number)
            block.solve()
            made.append(block)
            before = block.hash_int
        return made


class Asked:
    """A node, as the framework's peers ask it."""

    def __init__(self, node: NamecoinCore) -> None:
        self._node = node

    def getbestblockhash(self) -> str:
        tip: str = self._node.call("getbestblockhash")
        return tip

    def assert_debug_log(self, expected_msgs: list[str]) -> contextlib.AbstractContextManager[None]:
        assert not expected_msgs
        return contextlib.nullcontext()


@pytest.fixture(scope="module")
def suite() -> Iterator[Suite]:
    folder = str(functional_tests())
    sys.path.insert(0, folder)
    try:
        made = Suite()
    finally:
        sys.path.remove(folder)
    made.thread.start()
    wait_for(lambda: made.p2p.NetworkThread.network_event_loop)
    yield made
    made.thread.close(timeout=10)


@pytest.fixture
def stack() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture
def node(tmp_path: Path) -> Iterator[NamecoinCore]:
    """A node that speaks v1 alone."""
    started = NamecoinCore(tmp_path / "node", host="127.0.0.1", v2=False)
    started.generate(1)
    yield started
    started.stop()


@pytest.fixture
def service(node: NamecoinCore, stack: contextlib.ExitStack) -> tuple[Inbound, int]:
    """What stands before it as the responder, and its port."""
    deadlines = Deadlines(handshake=HANDSHAKE_S)
    settings = InboundSettings(REGTEST, Target.parse("127.0.0.1", node.port), deadlines=deadlines)
    made = inbound_service(settings)
    return made, stack.enter_context(inbound(made))


def endings(service: Inbound) -> dict[Ending, int]:
    return {end.ending: count for end, count in service.registry.totals().ends.items()}


# p2p_v2_misbehaving: we are the responder, as Core is there


@pytest.mark.parametrize("name", MISBEHAVING)
def test_a_misbehaving_initiator(
    suite: Suite, service: tuple[Inbound, int], node: NamecoinCore, name: str
) -> None:
    inbound, port = service
    kind = suite.misbehaving.TestType[name]
    bad, good = suite.misbehaving.MisbehavingV2Peer(kind), suite.p2p.P2PInterface()
    suite.connect(bad, port, version=False)
    suite.connect(good, port)
    good.wait_for_verack()
    bad.wait_for_disconnect()
    wait_for(lambda: endings(inbound) == {MISBEHAVING[name]: 1})
    good.sync_with_ping()
    good.peer_disconnect()
    good.wait_for_disconnect()


def test_a_version_packet_with_contents_from_an_initiator(
    suite: Suite, service: tuple[Inbound, int]
) -> None:
    kind = suite.misbehaving.TestType.SEND_NON_EMPTY_VERSION_PACKET
    peer = suite.misbehaving.MisbehavingV2Peer(kind)
    suite.connect(peer, service[1])
    peer.wait_for_verack()
    peer.sync_with_ping()
    peer.peer_disconnect()
    peer.wait_for_disconnect()


def test_no_key_comes_before_a_byte_that_is_not_v1s(
    suite: Suite, service: tuple[Inbound, int]
) -> None:
    inbound, port = service
    peer = suite.misbehaving.MisbehavingV2Peer(suite.misbehaving.TestType.EARLY_KEY_RESPONSE)
    suite.connect(peer, port, version=False)
    peer.send_raw_message(REGTEST.magic)  # its data_received fails for an answer to that
    peer.v2_state.can_data_be_received = True
    peer.wait_until(lambda: peer.v2_state.ellswift_ours)
    peer.send_raw_message(peer.v2_state.ellswift_ours[4:] + peer.v2_state.sent_garbage)
    wait_for(lambda: inbound.registry.totals().to_client.wire > 64)
    peer.wait_for_disconnect()
    wait_for(lambda: endings(inbound) == {Ending.HANDSHAKE_TIMEOUT: 1})


# the same peers as responders: we are the initiator


def responding(suite: Suite, state: str, base: str = "P2PInterface") -> Any:
    """A peer that answers with a state machine of the suite's."""
    kind = getattr(suite.misbehaving, state)
    above: Any = getattr(suite.p2p, base)

    class Responding(above):  # type: ignore[misc]  # a class that mypy does not see
        def connection_made(self, transport: object) -> None:
            self.v2_state = kind(initiating=False, net="regtest")
            super().connection_made(transport)

    return Responding()


@pytest.mark.parametrize("name", MISBEHAVING)
def test_a_misbehaving_responder(suite: Suite, name: str) -> None:
    bad, good = responding(suite, STATES[name]), responding(suite, "EncryptedP2PState")
    settings = CarrySettings(Fallback.ALWAYS, deadlines=Deadlines(handshake=HANDSHAKE_S))
    with proxy(settings) as through, contextlib.ExitStack() as clients:
        to = {peer: suite.listen(peer) for peer in (bad, good)}
        one, other = (
            V1Client(dial(("127.0.0.1", through.port), "127.0.0.1", port, user=b"u"))
            for port in to.values()
        )
        clients.callback(other.sock.close)
        other.hello()
        one.sock.sendall(version())
        assert one.ended()
        wait_for(lambda: not bad.is_connected)
        other.ping()
        endings = {flow.ended for flow in through.flows}
        assert endings == {MISBEHAVING[name], None}
        assert len(through.dialled) == 2, "what has answered is not spoken to in v1"


def test_a_version_packet_with_contents_from_a_responder(suite: Suite) -> None:
    peer = responding(suite, "NonEmptyVersionPacketState")
    with proxy(CarrySettings(Fallback.NEVER)) as through:
        one = V1Client(
            dial(("127.0.0.1", through.port), "127.0.0.1", suite.listen(peer), user=b"u")
        )
        with contextlib.closing(one.sock):
            one.hello()
            one.ping()


# p2p_v2_encrypted


def test_blocks_of_an_initiator_arrive_and_its_decoys_do_not(
    suite: Suite, service: tuple[Inbound, int], node: NamecoinCore
) -> None:
    """More packets than between two changes of keys."""
    blocks, asked = suite.chain(node, 225), Asked(node)
    for decoys in (True, False):
        peer = suite.p2p.P2PDataStore()
        suite.connect(peer, service[1])
        peer.wait_for_verack()
        peer.sync_with_ping()
        (there,) = node.peers
        assert there["transport_protocol_type"] == "v1"
        peer.send_blocks_and_test(blocks, asked, success=not decoys, is_decoy=decoys)
        peer.peer_disconnect()
        peer.wait_for_disconnect()
        wait_for(lambda: not node.call("getpeerinfo"))
    ended = service[0].registry.totals()
    assert ended.to_client.dropped == ended.corrupt == 0


def test_blocks_of_a_responder_arrive_and_its_decoys_do_not(
    suite: Suite, tmp_path: Path, stack: contextlib.ExitStack
) -> None:
    peer = responding(suite, "EncryptedP2PState", "P2PDataStore")
    _, port = stack.enter_context(port_1324(Target.parse("127.0.0.1", suite.listen(peer))))
    client = NamecoinCore(tmp_path / "client", f"-connect=127.0.0.1:{port}", v2=False)
    stack.callback(client.stop)
    peer.wait_for_connect()
    peer.wait_for_verack()
    peer.sync_with_ping()
    client.generate(1)
    blocks, asked = suite.chain(client, 225), Asked(client)
    peer.send_blocks_and_test(blocks, asked, success=False, is_decoy=True)
    peer.send_blocks_and_test(blocks, asked, success=True)


# p2p_v2_transport


def test_v1_is_known_by_sixteen_bytes(service: tuple[Inbound, int], node: NamecoinCore) -> None:
    inbound, port = service
    said = version()
    with socket.create_connection(("127.0.0.1", port), timeout=30) as sock:
        one = V1Client(sock)
        sock.sendall(said[:15])
        sock.settimeout(0.5)
        with pytest.raises(TimeoutError):
            sock.recv(1)
        assert not inbound.registry.flows
        sock.settimeout(30)
        sock.sendall(said[15:16])
        wait_for(lambda: [flow.transport for flow in inbound.registry.flows] == [TransportType.V1])
        sock.sendall(said[16:])
        assert one.next()[0] == "version"


def test_v1_of_another_network_is_ended(service: tuple[Inbound, int]) -> None:
    inbound, port = service
    with socket.create_connection(("127.0.0.1", port), timeout=30) as sock:
        sock.sendall(SIGNET.magic + VERSION + b"somepayload")
        while sock.recv(4096):
            pass
    wait_for(lambda: endings(inbound) == {Ending.PEER_BROKE_PROTOCOL: 1})


def test_a_missing_terminator_is_found_out_at_the_last_byte(service: tuple[Inbound, int]) -> None:
    inbound, port = service
    with socket.create_connection(("127.0.0.1", port), timeout=30) as sock:
        sock.sendall(bytes(64 + 4095 + 16 - 1))
        wait_for(lambda: inbound.registry.totals().to_client.wire == 64 + 4095 + 16 - 1)
        assert not endings(inbound)
        sock.sendall(b"\0")
        while sock.recv(4096):
            pass
    wait_for(lambda: endings(inbound) == {Ending.PEER_BROKE_PROTOCOL: 1})


@pytest.mark.parametrize("fallback", [Fallback.ALWAYS, Fallback.NEVER])
def test_a_v1_node_that_was_said_to_speak_v2(
    tmp_path: Path, stack: contextlib.ExitStack, node: NamecoinCore, fallback: Fallback
) -> None:
    peer = Target.parse("127.0.0.1", node.port)
    registry, port = stack.enter_context(port_1324(peer, CarrySettings(fallback)))
    client = NamecoinCore(tmp_path / "client", f"-connect=127.0.0.1:{port}", v2=False)
    stack.callback(client.stop)
    if fallback is Fallback.ALWAYS:
        wait_for(lambda: client.tip == node.tip)
        assert [flow.transport for flow in registry.flows] == [TransportType.V1]
    else:
        wait_for(lambda: registry.totals().ends)
        assert {end.ending for end in registry.totals().ends} == {Ending.V2_REQUIRED}
        assert client.peers == []
