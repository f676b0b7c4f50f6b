"""The server on real sockets: UDP, TCP, a unix socket, hostile clients, limits."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import stat
import struct
from pathlib import Path
from typing import Never

import dns.asyncquery
import dns.flags
import dns.message
import dns.opcode
import pytest

from isoproxy.dns import server as dns_server
from isoproxy.dns.server import DnsServer
from isoproxy.errors import OperationError
from isoproxy.namecoin.backend import TemporaryFailure
from isoproxy.net.endpoint import Endpoint
from tests.kit.waiting import until
from tests.unit.dns.kit import World, lines, question, rcode, serving, world

PLAIN = ["plain.bit. A 192.0.2.1", "plain.bit. A 192.0.2.2"]


async def udp(
    server: DnsServer, message: dns.message.Message, timeout: float = 5.0
) -> dns.message.Message:
    host, port = server.endpoint.host, server.endpoint.port
    assert host is not None
    return await dns.asyncquery.udp(message, host, port=port, timeout=timeout)


async def tcp(server: DnsServer, message: dns.message.Message) -> dns.message.Message:
    host, port = server.endpoint.host, server.endpoint.port
    assert host is not None
    return await dns.asyncquery.tcp(message, host, port=port, timeout=30.0)


def framed(*messages: dns.message.Message) -> bytes:
    return b"".join(message.to_wire(prepend_length=True) for message in messages)


async def next_message(reader: asyncio.StreamReader) -> dns.message.Message:
    (length,) = struct.unpack("!H", await reader.readexactly(2))
    return dns.message.from_wire(await reader.readexactly(length))


class Raw:
    """A UDP socket of the test's own; `source` is the loopback address it sends from."""

    def __init__(self, server: DnsServer, source: str = "127.0.0.1") -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.socket.bind((source, 0))
        self.socket.connect((server.endpoint.host, server.endpoint.port))

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    async def answer(self, timeout: float = 2.0) -> bytes:
        async with asyncio.timeout(timeout):
            return await asyncio.get_running_loop().sock_recv(self.socket, 65535)


async def test_udp_and_tcp_on_one_port() -> None:
    async with serving(world()) as server:
        assert lines((await udp(server, question("plain.bit", "A"))).answer) == PLAIN
        assert lines((await tcp(server, question("plain.bit", "A"))).answer) == PLAIN


async def test_ipv6() -> None:
    async with serving(world(), endpoint=Endpoint(host="::1", port=0)) as server:
        assert lines((await udp(server, question("plain.bit", "A"))).answer) == PLAIN


async def test_the_second_answer_is_the_kept_one_under_another_id() -> None:
    here = world()
    async with serving(here) as server:
        with Raw(server) as raw:
            wire = question("plain.bit", "A", isolation=b"1").to_wire()
            raw.socket.send(wire)
            first = await raw.answer()
            raw.socket.send(b"\xab\xcd" + wire[2:])
            second = await raw.answer()
    assert second == b"\xab\xcd" + first[2:]
    assert here.backend.names() == ["d/plain"]


@pytest.mark.parametrize("name", ["x.org", "down.bit", "plain.bit"])
async def test_a_packet_that_came_before_is_answered_under_its_own_id(name: str) -> None:
    """Also where the answer is a refusal, or a failure, and so is not kept."""
    async with serving(world()) as server:
        with Raw(server) as raw:
            wire = question(name, "A").to_wire()
            for number in (b"\x00\x01", b"\xab\xcd", b"\x00\x02"):
                raw.socket.send(number + wire[2:])
                answer = await raw.answer()
                assert answer[:2] == number
                assert dns.message.from_wire(answer).question


async def test_a_renewal_forgets_what_one_identity_asked() -> None:
    here = world()
    async with serving(here) as server:
        for isolation in (b"1", b"2"):
            assert (await udp(server, question("plain.bit", "A", isolation=isolation))).answer
        first, second = (asked.key for asked in server._seen.values())
        here.isolator.renew(first.label)
        assert [asked.key for asked in server._seen.values()] == [second]


async def test_the_same_packet_in_another_epoch_is_another_look_up() -> None:
    here = world()
    async with serving(here) as server:
        query = question("plain.bit", "A", isolation=b"1")
        for _ in range(2):
            assert (await udp(server, query)).answer
        keys = {key for _, key in here.backend.asked}
        here.isolator.new_epoch()
        assert server._seen == {}
        await udp(server, query)
        assert len({key for _, key in here.backend.asked} - keys) == 1


async def test_what_clients_asked_is_remembered_within_bounds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("isoproxy.dns.server.MAX_SEEN", 4)
    async with serving(world()) as server:
        for number in range(20):
            await udp(server, question(f"n{number}.bit", "A"))
            assert len(server._seen) <= 4


async def test_an_alias_whose_target_could_not_be_had_is_asked_again() -> None:
    here = world({"d/a": {"alias": "b.bit."}, "d/b": TemporaryFailure()})
    query = question("a.bit", "A")
    async with serving(here) as server:
        assert lines((await udp(server, query)).answer) == ["a.bit. CNAME b.bit."]
        here.backend.values["d/b"] = {"ip": "192.0.2.1"}
        assert "b.bit. A 192.0.2.1" in lines((await udp(server, query)).answer)


async def test_truncated_over_udp_and_whole_over_tcp() -> None:
    here = world({"d/big": {"txt": [f"{n}" + "x" * 250 for n in range(3)]}})
    async with serving(here) as server:
        short = await udp(server, question("big.bit", "TXT", edns=False))
        assert short.flags & dns.flags.TC
        assert len((await tcp(server, question("big.bit", "TXT"))).answer[0]) == 3


async def test_two_loopback_clients_are_two_look_ups() -> None:
    here = world()
    async with serving(here) as server:
        for source in ("127.0.0.1", "127.0.0.2", "127.0.0.1"):
            with Raw(server, source) as raw:
                raw.socket.send(question("plain.bit", "A").to_wire())
                await raw.answer()
    assert len({key for _, key in here.backend.asked}) == len(here.backend.asked) == 2


async def test_ten_thousand_malformed_packets() -> None:
    chance = random.Random(6)
    whole = question("www.plain.bit", "A", isolation=b"tab").to_wire()
    async with serving(world()) as server:
        sent = received = 0
        with Raw(server) as raw:
            for number in range(10_000):
                packet = bytearray(whole)
                for _ in range(chance.randint(1, 4)):
                    packet[chance.randrange(2, len(packet))] = chance.randrange(256)
                damaged = bytes(packet[: chance.randrange(len(packet) + 1)])
                sent += len(damaged)
                raw.socket.send(damaged)
                if number % 50 == 0:
                    await asyncio.sleep(0)
                    received += drained(raw)
            await asyncio.sleep(0.1)
            received += drained(raw)
        assert 0 < received <= 3 * sent
        assert lines((await udp(server, question("plain.bit", "A"))).answer) == PLAIN


def drained(raw: Raw) -> int:
    total = 0
    while True:
        try:
            total += len(raw.socket.recv(65535))
        except BlockingIOError:
            return total


async def test_answers_that_leave_the_machine_are_at_most_three_times_as_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dns_server, "_is_loopback", lambda host: False)
    here = world({"d/big": {"txt": ["x" * 250]}, "d/a": {"ip": "192.0.2.1"}}, signed=True)
    async with serving(here) as server:
        for name, rdtype in (("big.bit", "TXT"), ("nowhere.bit", "A"), ("a.bit", "A")):
            for dnssec in (False, True):
                message = question(name, rdtype, dnssec=dnssec)
                wire = message.to_wire()
                with Raw(server) as raw:
                    raw.socket.send(wire)
                    assert len(await raw.answer()) <= 3 * len(wire)
                assert (await tcp(server, message)).rcode() in (0, 3)


@pytest.fixture
def addresses_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each loopback address has a share of its own, as addresses of other machines have."""
    monkeypatch.setattr(dns_server, "_budget", lambda client: client)


@pytest.mark.usefixtures("addresses_apart")
async def test_more_than_the_rate_is_dropped_and_others_notice_nothing() -> None:
    async with serving(world(), queries_per_second=5.0) as server:
        with Raw(server) as greedy:
            wire = question("plain.bit", "A").to_wire()
            answered = 0
            for _ in range(20):
                greedy.socket.send(wire)
            await asyncio.sleep(0.1)
            while True:
                try:
                    greedy.socket.recv(65535)
                except BlockingIOError:
                    break
                answered += 1
        assert 5 <= answered <= 7
        with Raw(server, "127.0.0.3") as other:
            other.socket.send(wire)
            assert await other.answer()
        reader, writer = await asyncio.open_connection(server.endpoint.host, server.endpoint.port)
        for _ in range(5):  # another one may have forged those datagrams, but not this
            writer.write(framed(question("plain.bit", "A")))
            assert rcode(await next_message(reader)) == "NOERROR"
        writer.write(framed(*[question("plain.bit", "A")] * 15))
        assert "REFUSED" in [rcode(await next_message(reader)) for _ in range(15)]
        writer.close()
        await writer.wait_closed()


async def test_pipelined_queries_are_answered_as_they_become_ready() -> None:
    here = world()
    slow = asyncio.Event()
    fast_lookup = here.backend.lookup

    async def lookup(name: bytes, key: object) -> object:
        if name == b"d/star":
            await slow.wait()
        return await fast_lookup(name, key)  # type: ignore[arg-type]  # passed through

    here.backend.lookup = lookup  # type: ignore[method-assign,assignment]  # one slow name
    async with serving(here) as server:
        reader, writer = await asyncio.open_connection(server.endpoint.host, server.endpoint.port)
        first, second = question("a.star.bit", "A"), question("plain.bit", "A")
        writer.write(framed(first, second))
        assert (await next_message(reader)).id == second.id
        slow.set()
        assert (await next_message(reader)).id == first.id
        writer.write(framed(second))
        writer.write_eof()
        assert (await next_message(reader)).id == second.id
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()


async def test_a_query_byte_by_byte() -> None:
    async with serving(world()) as server:
        reader, writer = await asyncio.open_connection(server.endpoint.host, server.endpoint.port)
        for byte in framed(question("plain.bit", "A")):
            writer.write(bytes([byte]))
            await asyncio.sleep(0)
        assert lines((await next_message(reader)).answer) == PLAIN
        writer.close()
        await writer.wait_closed()


async def test_hostile_streams_end_and_nobody_else_notices() -> None:
    async with serving(world()) as server:
        for hostile in (b"\0\0", b"\0\x05hello", b"\0\x0c" + b"\xff" * 12):
            reader, writer = await asyncio.open_connection(
                server.endpoint.host, server.endpoint.port
            )
            writer.write(hostile)
            assert await reader.read() == b""
            writer.close()
        assert lines((await tcp(server, question("plain.bit", "A"))).answer) == PLAIN


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "HEAD", "DELETE", "PATCH", "OPTIONS"])
async def test_a_web_page_has_nothing_looked_up(method: str) -> None:
    """What a browser is made to send begins with a request, whatever its body may hold."""
    here = world()
    head = f"{method} / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 60000\r\n\r\n".encode()
    first = 2 + int.from_bytes(head[:2], "big")
    query = framed(question("plain.bit", "A", isolation=b"another identity"))
    async with serving(here) as server:
        reader, writer = await asyncio.open_connection(server.endpoint.host, server.endpoint.port)
        writer.write(head.ljust(first, b"x") + query)
        with contextlib.suppress(ConnectionResetError):
            assert len(await reader.read()) <= 14
        writer.close()
    assert here.backend.asked == []


async def test_earlier_queries_are_answered_before_the_end() -> None:
    async with serving(world(delay=0.2)) as server:
        reader, writer = await asyncio.open_connection(server.endpoint.host, server.endpoint.port)
        update = question("plain.bit", "A")
        update.set_opcode(dns.opcode.UPDATE)
        writer.write(framed(question("plain.bit", "A"), update))
        assert rcode(await next_message(reader)) == "NOTIMP"
        assert lines((await next_message(reader)).answer) == PLAIN
        assert await reader.read() == b""
        writer.close()


async def test_silent_connections_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns_server, "IDLE_S", 0.1)
    async with serving(world()) as server:
        for beginning in (b"", b"\0", b"\0\x20abc"):
            reader, writer = await asyncio.open_connection(
                server.endpoint.host, server.endpoint.port
            )
            writer.write(beginning)
            async with asyncio.timeout(30):
                assert await reader.read() == b""
            writer.close()


async def test_who_never_reads_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers that nobody takes would pile up, a few more every IDLE_S."""
    monkeypatch.setattr(dns_server, "IDLE_S", 0.1)
    query = framed(question("t.bit", "TXT")) * 1000
    async with serving(world({"d/t": {"txt": "x" * 900}})) as server:
        assert server._server is not None
        for listener in server._server.sockets:  # what is accepted inherits it
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        with socket.socket() as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(deaf, (server.endpoint.host, server.endpoint.port))
            async with asyncio.timeout(30):
                with contextlib.suppress(ConnectionError):
                    while True:
                        await loop.sock_sendall(deaf, query)


@pytest.mark.usefixtures("addresses_apart")
async def test_connections_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them, and those of one client, who so leaves some to others."""
    monkeypatch.setattr(dns_server, "MAX_CONNECTIONS", 8)
    async with serving(world()) as server:
        host, port = server.endpoint.host, server.endpoint.port
        opened = []
        for number in range(1, 6):
            client = (f"127.0.0.{number}", 0)
            for _ in range(3 if number < 5 else 1):
                opened.append(await asyncio.open_connection(host, port, local_addr=client))
                await asyncio.sleep(0.02)
        for node, (reader, _) in enumerate(opened):
            if node in (0, 2, 5, 8, 11):  # the first made room for the last
                assert await reader.read() == b""
            else:
                assert not reader.at_eof()
        for _, writer in opened:
            writer.close()


async def test_this_machine_has_one_share_whatever_its_addresses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of the connections, of what is under way, and of the rate."""
    monkeypatch.setattr(dns_server, "MAX_CONNECTIONS", 8)
    monkeypatch.setattr(dns_server, "MAX_PENDING", 12)
    here = world(delay=0.5)
    async with serving(here, queries_per_second=4.0) as server:
        host, port = server.endpoint.host, server.endpoint.port
        opened = []
        for number in range(1, 4):
            local = (f"127.0.0.{number}", 0)
            opened.append(await asyncio.open_connection(host, port, local_addr=local))
            await asyncio.sleep(0.02)
        assert await opened[2][0].read() == b""
        for _, writer in opened:
            writer.close()
        for number in range(1, 7):
            with Raw(server, f"127.0.0.{number}") as raw:
                raw.socket.send(question(f"n{number}.bit", "A").to_wire())
        await asyncio.sleep(0.1)
        assert here.backend.under_way == 3
    async with serving(world(), queries_per_second=4.0) as server:
        answered = 0
        for number in range(1, 9):
            with Raw(server, f"127.0.0.{number}") as raw:
                raw.socket.send(question("plain.bit", "A").to_wire())
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.2):
                        answered += bool(await raw.answer())
        assert 4 <= answered < 8


@pytest.mark.usefixtures("addresses_apart")
async def test_only_silent_connections_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns_server, "MAX_CONNECTIONS", 8)
    here = world(delay=0.5)
    async with serving(here) as server:
        host, port = server.endpoint.host, server.endpoint.port
        opened = []
        for node in range(8):
            local = (f"127.0.0.{2 + node // 2}", 0)
            opened.append(await asyncio.open_connection(host, port, local_addr=local))
            if node < 7:
                opened[-1][1].write(framed(question("plain.bit", "A")))
        await until(lambda: here.backend.under_way == 4)
        await asyncio.sleep(0.05)
        assert lines((await tcp(server, question("plain.bit", "A"))).answer) == PLAIN
        assert await opened[7][0].read() == b""
        for reader, writer in opened[:7]:
            assert lines((await next_message(reader)).answer) == PLAIN
            writer.close()
        opened[7][1].close()


async def test_queries_under_way_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns_server, "MAX_PENDING", 8)
    here = world(delay=0.3)
    async with serving(here) as server:
        with Raw(server) as raw:
            for number in range(10):
                raw.socket.send(question(f"n{number}.bit", "A").to_wire())
            await asyncio.sleep(0.1)
            assert here.backend.under_way == 2
            assert await raw.answer()


async def test_a_unix_socket(short_path: Path) -> None:
    path = short_path / "dns"
    here = world()
    endpoint = Endpoint.unix(str(path))
    async with serving(here, endpoint=endpoint):
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert await unix_lines(path) == PLAIN
        with pytest.raises(OperationError, match="cannot listen"):
            async with serving(world(), endpoint=endpoint):
                pass
    assert not path.exists()
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    async with serving(world(), endpoint=endpoint):
        assert await unix_lines(path) == PLAIN


async def test_what_is_no_socket_is_left_alone(short_path: Path) -> None:
    path = short_path / "dns.key"
    path.write_text("a key")
    with pytest.raises(OperationError, match="cannot listen"):
        async with serving(world(), endpoint=Endpoint.unix(str(path))):
            pass
    assert path.read_text() == "a key"


async def unix_lines(path: Path) -> list[str]:
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(framed(question("plain.bit", "A")))
    answer = lines((await next_message(reader)).answer)
    writer.close()
    await writer.wait_closed()
    return answer


async def test_an_address_in_use() -> None:
    async with serving(world()) as server:
        with pytest.raises(OperationError, match=r"dns\.address"):
            async with serving(world(), endpoint=server.endpoint):
                pass


async def test_a_defect_is_a_failure_for_one_query_alone() -> None:
    here: World = world()

    def broken(*_: object) -> Never:
        raise RuntimeError("defect")

    working = here.resolver.resolution
    here.resolver.resolution = broken  # type: ignore[method-assign,assignment]
    async with serving(here) as server:
        assert rcode(await udp(server, question("plain.bit", "A"))) == "SERVFAIL"
        here.resolver.resolution = working  # type: ignore[method-assign]
        assert lines((await udp(server, question("plain.bit", "A"))).answer) == PLAIN
