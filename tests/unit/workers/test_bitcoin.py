"""The Bitcoin side of a stream process, which runs in this process."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from dataclasses import replace

import pytest

from isoproxy.bitcoin.carry import CarrySettings
from isoproxy.bitcoin.converter import Ending
from isoproxy.bitcoin.flow import ClosedBy, V1Reason
from isoproxy.bitcoin.flows import FlowEnd, Outcome
from isoproxy.bitcoin.inbound import InboundSettings
from isoproxy.bitcoin.known_peers import Spoken
from isoproxy.bitcoin.messages import MAINNET
from isoproxy.bitcoin.options import Fallback
from isoproxy.bitcoin.proxy import ProxySettings
from isoproxy.errors import ErrorKind
from isoproxy.front.judgement import HandshakeRule
from isoproxy.front.listener import ListenerSettings
from isoproxy.isolation import P2P, Isolate, ListenerRule, own_group, upstream_credentials
from isoproxy.namecoin.value.name import TopLevels
from isoproxy.net.endpoint import Endpoint
from isoproxy.net.target import Target
from isoproxy.socks import Request, Server
from isoproxy.workers.bitcoin import log_end
from isoproxy.workers.messages import (
    BitcoinSettings,
    Configure,
    Drain,
    NameReply,
    PeerReply,
    ProxyPlan,
)
from tests.kit.socks_port import SocksPort
from tests.kit.waiting import until
from tests.unit.bitcoin.peers import HELLO
from tests.unit.front.test_frontend import OK
from tests.unit.workers.parent import Parent, listening, parent_of_worker

ONION = Target.parse("b" * 56 + ".onion", 8333)
TO_PEER = b"\x05\x01\x00\x05\x01\x00\x03\x0cpeer.example" + (8333).to_bytes(2)


def plan(name: str, peer: str, port: int = 1) -> ProxyPlan:
    rule = ListenerRule(own_group(name), Isolate.CLIENT_ADDR | Isolate.DEST_ADDR)
    return ProxyPlan(
        ListenerSettings(
            name,
            Endpoint(host="127.0.0.1", port=port),
            HandshakeRule(rule, top_levels=TopLevels()),
        ),
        ProxySettings(rule, peer=Target.parse(peer, 8333)),
        CarrySettings(),
    )


async def exchange(parent: Parent, index: int, words: bytes) -> asyncio.StreamWriter:
    """A client of a proxy whose words come back; it stays."""
    reader, writer = await parent.client(index)
    writer.write(words)
    assert await reader.readexactly(len(words)) == words
    return writer


async def test_a_proxys_name_is_asked_for_under_the_key_that_dials() -> None:
    bitcoin = BitcoinSettings(proxies=(plan("proxy", "node.bit"),))
    async with SocksPort() as port, parent_of_worker(port, bitcoin, 2) as parent:
        visit = asyncio.create_task(exchange(parent, 1, b"no bitcoin at all"))
        question = await parent.asked("name")
        assert (question["host"], question["port"]) == ("node.bit", 8333)
        parent.tell(NameReply(question["number"], ONION))
        writer = await visit
        (request,) = port.requests
        assert request.host == ONION.host.encode()
        key = parent.isolator.import_key(bytes.fromhex(question["key"]))
        assert request.password == upstream_credentials(key, P2P).password
        report = await parent.report()
        (flow,) = report.bitcoin.flows
        assert flow.key == key.label
        proxy = report.bitcoin.proxies["proxy"]
        assert (proxy.open, proxy.accepted) == (1, 1)
        writer.close()


async def test_a_proxys_client_that_speaks_socks_is_the_front_ends() -> None:
    bitcoin = BitcoinSettings(proxies=(plan("proxy", "never.example"),))
    async with SocksPort() as port, parent_of_worker(port, bitcoin, 2) as parent:
        reader, writer = await parent.client(1)
        writer.write(b"\x04\x01\x00\x07\x01\x02\x03\x04alice\x00")
        assert await reader.readexactly(2) == b"\x00\x5a"
        (request,) = port.requests
        assert (request.host, request.port) == (b"1.2.3.4", 7)
        report = await parent.report()
        assert [flow.listener for flow in report.flows] == ["proxy"]
        assert report.bitcoin.proxies["proxy"].open == 1
        writer.close()


async def test_a_proxy_that_stays_keeps_its_connections_and_one_that_goes_ends_them() -> None:
    one, two = plan("one", "a.example", 1), plan("two", "b.example", 2)
    bitcoin = BitcoinSettings(proxies=(one, two))
    async with SocksPort() as port, parent_of_worker(port, bitcoin, 3) as parent:
        stays = await exchange(parent, 1, b"not bitcoin, one")
        reader, goes = await parent.client(2)
        goes.write(b"not bitcoin, two")
        await reader.readexactly(16)
        full = replace(one, proxy=replace(one.proxy, max_connections=1))
        settings = replace(parent.settings, bitcoin=BitcoinSettings(proxies=(full,)))
        parent.sockets.pop(2).close()
        await parent.order(lambda ticket: Configure(ticket, settings), parent.sockets)
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        late, late_writer = await parent.client(1)
        with contextlib.suppress(ConnectionResetError):
            assert await late.read() == b""
        proxies = (await parent.report()).bitcoin.proxies
        assert (proxies["one"].open, proxies["one"].accepted) == (1, 2)
        assert proxies["one"].refusals == {ErrorKind.BUSY: 1}
        assert (proxies["two"].open, proxies["two"].accepted) == (0, 1)
        for writer in (stays, goes, late_writer):
            writer.close()


async def test_v1_goes_to_no_peer_that_the_parent_knows_as_proven() -> None:
    """The peer closes without a word; whether that means v1 is for the parent to say."""
    heard: list[bytes] = []

    async def close(
        request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, server: Server
    ) -> None:
        writer.write(server.succeed())
        heard.append(server.leftover + await reader.readexactly(64 - len(server.leftover)))
        if heard[-1].startswith(MAINNET.magic):
            await reader.read()

    bitcoin = BitcoinSettings(CarrySettings(Fallback.ALWAYS, ports=frozenset({8333})))
    async with SocksPort(serve=close) as port, parent_of_worker(port, bitcoin) as parent:
        for proven in (True, False):
            reader, writer = await parent.client()
            writer.write(TO_PEER)
            assert await reader.readexactly(len(OK)) == OK
            writer.write(HELLO)
            for number in (1, 2):  # before the peer is spoken to, and before it is in v1
                question = await parent.asked("peer", number if proven else 2 + number)
                assert (question["host"], question["port"]) == ("peer.example", 8333)
                spoken = Spoken.V2 if proven else Spoken.NOTHING
                parent.tell(PeerReply(question["number"], spoken))
            if proven:
                with contextlib.suppress(ConnectionResetError):
                    assert await reader.read() == b""
            else:
                await until(lambda: len(heard) == 3)
            writer.close()
        assert [words.startswith(MAINNET.magic) for words in heard] == [False, False, True]


async def test_peers_that_come_in_reach_the_node() -> None:
    async def node(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(len(HELLO)))
        await reader.read()
        writer.close()

    server = await asyncio.start_server(node, "127.0.0.1", 0)
    host, port_of_node = server.sockets[0].getsockname()
    settings = InboundSettings(MAINNET, Target.parse(host, port_of_node))
    bitcoin = BitcoinSettings(inbound={"service": settings})
    async with SocksPort() as port, parent_of_worker(port, bitcoin, 2) as parent:
        reader, writer = await parent.client(1)
        writer.write(HELLO)
        assert await reader.readexactly(len(HELLO)) == HELLO
        (flow,) = (await parent.report()).bitcoin.flows
        assert (flow.key, flow.transport.value) == ("", "v1")
        await parent.order(lambda ticket: Configure(ticket, parent.settings), parent.sockets)
        writer.close()
        assert port.requests == []
    server.close()
    await server.wait_closed()


async def test_listening_sockets_that_are_not_needed_are_closed() -> None:
    bitcoin = BitcoinSettings(proxies=(plan("proxy", "a.example"),))
    async with SocksPort() as port, parent_of_worker(port, bitcoin, 2) as parent:
        again = [listening(), *parent.sockets[1:]]
        await parent.order(lambda ticket: Configure(ticket, parent.settings), again)
        parent.sockets[0].close()
        parent.sockets[0] = again[0]
        writer = await exchange(parent, 1, b"not bitcoin, one")
        writer.close()
    with socket.socket() as probe:
        assert probe.connect_ex(
            again[0].getsockname() if again[0].fileno() >= 0 else ("127.0.0.1", 1)
        )


def test_the_log_says_how_a_flow_ended(caplog: pytest.LogCaptureFixture) -> None:
    end = FlowEnd(Outcome.REFUSED, Ending.V2_REQUIRED, V1Reason.PEER_CLOSED, ClosedBy.PEER)
    with caplog.at_level(logging.INFO, "isoproxy"):
        log_end(end, False)
    (record,) = caplog.records
    assert record.getMessage() == "bitcoin_flow_ended"
    assert vars(record)["fields"] == {"inbound": False, **end._asdict()}


async def test_who_comes_to_a_proxy_while_it_drains_is_not_served_and_who_is_there_is() -> None:
    bitcoin = BitcoinSettings(proxies=(plan("proxy", "peer.example"),))
    async with SocksPort() as port, parent_of_worker(port, bitcoin, 2) as parent:
        reader, writer = await parent.client(1)
        writer.write(b"no bitcoin at all")
        assert await reader.readexactly(17) == b"no bitcoin at all"
        await parent.order(lambda ticket: Drain(ticket, 30))
        _, late = await parent.client(1)
        late.write(b"no bitcoin either")
        for number in range(20):
            writer.write(b"%02d" % number)
            assert await reader.readexactly(2) == b"%02d" % number
            await asyncio.sleep(0.01)
        assert len(port.requests) == 1
        assert parent.ended == []
        writer.close()
        await until(lambda: parent.ended)
        late.close()
