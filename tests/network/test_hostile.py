"""Promise: what is not a proper request is refused clearly, costs bounded memory, and disturbs
nobody else.

4,000 hostile connections meet the real process: known offences with the answer that each
must get, whole and a byte at a time; proper handshakes cut off anywhere, by clients that end,
hang or reset; what hypothesis makes of them; and floods.  Requests that would be valid are for
a name that is never sent to Tor, so a success is always wrong.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.kit.dial import dial, receive_exactly
from tests.kit.isoproxy_process import Isoproxy, descriptors, many_descriptors, system
from tests.kit.servers import EchoServer
from tests.kit.tornet import TorNetwork

TOTAL: Final = 4_000
AT_A_TIME: Final = 150
HANDSHAKE_S: Final = 8
TIMEOUT_S: Final = HANDSHAKE_S + 15
"""By then every hostile connection is over; lingering and a busy machine included."""
PEAK_KB: Final = 32 * 1024
GROWTH_KB: Final = 4 * 1024

Ending = Literal["read", "end", "hang", "reset"]


@dataclass(frozen=True)
class Attack:
    """What a client sends, how, and the beginning of what it must be answered.

    pieces  bytes per segment
    ending  read: stay until the other side ends; end: end our side, then read;
            hang: the same as read, without a complete request; reset: break off
    """

    words: bytes
    answer: bytes = b""
    pieces: int = 1 << 20
    ending: Ending = "read"


def socks5_reply(code: int) -> bytes:
    return bytes([5, code, 0, 1]) + bytes(6)


def ask5(host: bytes, port: int = 80, command: int = 1) -> bytes:
    length = bytes([len(host)])
    return bytes([5, command, 0, 3]) + length + host + port.to_bytes(2, "big")


NO_AUTH: Final = b"\x05\x01\x00"
LOGIN: Final = b"\x05\x01\x02\x01\x04user\x04pass"
REFUSED4: Final = b"\x00\x5b" + bytes(6)
TO: Final = b"\x04\x01\x00\x50\x00\x00\x00\x01"

VALID: Final = (
    NO_AUTH + ask5(b"name.bit"),
    LOGIN + ask5(b"name.bit"),
    LOGIN + ask5(b"name.bit", command=0xF0),
    TO + b"user\x00name.bit\x00",
    b"CONNECT name.bit:80 HTTP/1.1\r\nHost: name.bit:80\r\nProxy-Authorization: Basic eDp5\r\n\r\n",
)
"""All of them are refused in the end: the name is not for Tor."""

OFFENCES: Final = tuple(
    Attack(words, answer)
    for words, answer in (
        (b"\x00", b"\x05\xff"),
        (b"\x06\x01\x00", b"\x05\xff"),
        (b"\xff" * 100, b"\x05\xff"),
        (b"\x05\x00", b"\x05\xff"),
        (b"\x05\x02\x01\x03", b"\x05\xff"),
        (b"\x05\xff" + b"\x03" * 255, b"\x05\xff"),
        (b"\x05\x01\x02\x05", b"\x05\x02\x01\x01"),
        (b"\x05\x01\x02\x01\x0a<torS0X>1x\x00", b"\x05\x02\x01\x01"),
        (NO_AUTH + b"\x04\x01\x00\x03\x01a\x00\x50", b"\x05\x00" + socks5_reply(1)),
        (NO_AUTH + ask5(b"a.test", command=2), b"\x05\x00" + socks5_reply(7)),
        (NO_AUTH + ask5(b"a.test", command=3), b"\x05\x00" + socks5_reply(7)),
        (NO_AUTH + ask5(b"a.test", command=0x77), b"\x05\x00" + socks5_reply(7)),
        (NO_AUTH + b"\x05\x01\x00\x09" + bytes(8), b"\x05\x00" + socks5_reply(1)),
        (NO_AUTH + ask5(b"a.test", port=0), b"\x05\x00" + socks5_reply(1)),
        (NO_AUTH + ask5(b""), b"\x05\x00" + socks5_reply(1)),
        (NO_AUTH + ask5(b"a b.test"), b"\x05\x00" + socks5_reply(1)),
        (NO_AUTH + ask5(b"a.test\x00.bit"), b"\x05\x00" + socks5_reply(1)),
        (NO_AUTH + ask5(b"a\r\n650 X"), b"\x05\x00" + socks5_reply(1)),
        (NO_AUTH + ask5(b"a" * 255), b"\x05\x00" + socks5_reply(1)),
        (LOGIN + ask5("n\u00e4me.test".encode()), b"\x05\x02\x01\x00" + socks5_reply(1)),
        (LOGIN + ask5(b"NAME.Bit."), b"\x05\x02\x01\x00" + socks5_reply(2)),
        (b"\x04\x02\x00\x50\x01\x02\x03\x04\x00", REFUSED4),
        (b"\x04\x01\x00\x00\x01\x02\x03\x04\x00", REFUSED4),
        (TO + b"\x00\x00", REFUSED4),
        (TO + b"\x00a b\x00", REFUSED4),
        (TO + b"u" * 5000, REFUSED4),
        (TO + b"\x00" + b"h" * 5000, REFUSED4),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500), b"\x15\x03\x01\x00\x02\x02"),
        (
            b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
            b"HTTP/1.0 501 Tor is not an HTTP Proxy\r\n",
        ),
        (b"GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n", b"HTTP/1.0 501 "),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", b"HTTP/1.0 400 "),
        (b"CONNECT a.test HTTP/1.1\r\nHost: a\r\n\r\n", b"HTTP/1.0 400 "),
        (b"CONNECT a.test:99999 HTTP/1.1\r\nHost: a\r\n\r\n", b"HTTP/1.0 400 "),
        (b"CONNECT a/b:80 HTTP/1.1\r\nHost: a\r\n\r\n", b"HTTP/1.0 400 "),
        (b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 20_000, b"HTTP/1.0 431 "),
        (b"A" * 20_000, b"HTTP/1.0 431 "),
        (VALID[3], REFUSED4),
        (VALID[4], b"HTTP/1.0 403 "),
    )
)

FLOODS: Final = tuple(
    Attack(beginning + filling * (4_000_000 // len(filling)))
    for beginning, filling in (
        (b"\xff", b"\xff"),
        (b"\x05\xff", b"\x00"),
        (TO, b"u"),
        (b"CONNECT a:80 HTTP/1.1\r\n", b"X: y\r\n"),
        (NO_AUTH + ask5(b"name.bit"), b"early"),
        (b"GET / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"),
    )
)


def byte_by_byte() -> Iterator[Attack]:
    for offence in OFFENCES:
        yield replace(offence, pieces=1 if len(offence.words) < 500 else 900)


def cut_off() -> Iterator[Attack]:
    """Proper handshakes that stop somewhere; a client that hangs is refused when time is up."""
    for words in VALID:
        for at in range(len(words)):
            begun = words[:at]
            yield Attack(begun, ending="end")
            yield Attack(begun, ending="reset")
            yield Attack(begun, timed_out(begun), ending="hang")


def timed_out(begun: bytes) -> bytes:
    """The refusal of an unfinished handshake, in the words that its client waits for."""
    if begun.startswith(b"CONNECT"[: max(1, len(begun))]):
        return b"HTTP/1.0 408 "
    if begun.startswith(b"\x04"):
        return REFUSED4
    if len(begun) < 3:
        return b"\x05\xff" if begun else b""
    if begun.startswith(NO_AUTH):
        return b"\x05\x00" + socks5_reply(1)
    if len(begun) < len(LOGIN):
        return b"\x05\x02\x01\x01"
    return b"\x05\x02\x01\x00" + socks5_reply(1)


def made_up(count: int) -> list[Attack]:
    """hypothesis's own ideas: garbage, and proper handshakes with something wrong in them."""
    edits = st.tuples(st.integers(0, 90), st.integers(0, 3), st.binary(max_size=4))
    spoilt = st.builds(_spoil, st.sampled_from(VALID), st.lists(edits, min_size=1, max_size=4))
    begun = st.builds(bytes.__add__, st.sampled_from(VALID), st.binary(max_size=64))
    found: list[Attack] = []

    @settings(
        max_examples=count,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(
        words=st.binary(min_size=1, max_size=600) | spoilt | spoilt | begun,
        pieces=st.sampled_from([1, 2, 7, 1 << 20]),
        ending=st.sampled_from(["end", "end", "end", "reset"]),
    )
    def collect(words: bytes, pieces: int, ending: Ending) -> None:
        found.append(Attack(words, pieces=pieces, ending=ending))

    collect()
    return found


def _spoil(words: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    for at, cut, put in edits:
        words = words[:at] + put + words[at + cut :]
    return words


def corpus() -> list[Attack]:
    """`TOTAL` attacks in a fixed disorder."""
    attacks = [*OFFENCES, *byte_by_byte(), *cut_off(), *made_up(2000)]
    chance = random.Random(1)
    # those that hang take their time; the others come again and again
    again = [attack for attack in attacks if attack.ending != "hang"]
    while len(attacks) < TOTAL:
        attacks.append(chance.choice(again))
    chance.shuffle(attacks)
    return attacks[:TOTAL]


async def commit(attack: Attack, proxy: tuple[str, int]) -> None:
    """Carry out one attack; asserts that it is answered and over in time."""
    async with asyncio.timeout(TIMEOUT_S):
        reader, writer = await asyncio.open_connection(*proxy)
        try:
            answer = await _converse(attack, reader, writer)
        finally:
            writer.transport.abort()
    assert answer.startswith(attack.answer), (attack.words[:80], answer)
    if attack.answer and not attack.answer.startswith(b"HTTP"):
        assert len(answer) <= len(attack.answer) + 1, (attack.words[:80], answer)
    assert not _is_success(answer), (attack.words, answer)


async def _converse(
    attack: Attack, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> bytes:
    """What the attacker hears, while it speaks and after: the refusal of one who goes on speaking
    for longer than the front end lingers is lost to whoever listens only then.
    """
    answer = bytearray()
    async with asyncio.TaskGroup() as both:
        if attack.ending != "reset":
            both.create_task(_hear(reader, answer))
        with contextlib.suppress(ConnectionError):
            await _say(attack, writer)
    return bytes(answer)


async def _hear(reader: asyncio.StreamReader, answer: bytearray) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(4096):
            answer += data


async def _say(attack: Attack, writer: asyncio.StreamWriter) -> None:
    for at in range(0, len(attack.words), attack.pieces):
        writer.write(attack.words[at : at + attack.pieces])
        await writer.drain()
        if attack.pieces < 1000:
            await asyncio.sleep(0)
    if attack.ending == "end":
        writer.write_eof()


def _is_success(answer: bytes) -> bool:
    """Whether the answer tells the client that a stream was opened."""
    for before in (b"\x05\x00", b"\x05\x02\x01\x00"):
        if answer.startswith(before + b"\x05\x00"):
            return True
    return answer.startswith((b"\x00\x5a", b"HTTP/1.0 200"))


async def commit_all(attacks: list[Attack], proxy: tuple[str, int]) -> None:
    waiting = iter(attacks)

    async def one_after_the_other() -> None:
        for attack in waiting:
            await commit(attack, proxy)

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_A_TIME):
            group.create_task(one_after_the_other())


class Bystander:
    """A peaceful user in a thread: a stream that goes on, and new ones; sees the memory, too."""

    def __init__(self, proxy: Isoproxy, port: int):
        self._proxy, self._port = proxy, port
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._live, name="bystander", daemon=True)
        self.error: BaseException | None = None
        self.worst_s = 0.0
        self.rounds = 0
        self.peak_kb = 0
        self._thread.start()

    def end(self) -> None:
        self._ended.set()
        self._thread.join(60)

    def _live(self) -> None:
        try:
            with dial(self._proxy.address, "echo.test", self._port, user=b"good") as stream:
                while not self._ended.wait(0.1):
                    began = time.monotonic()
                    stream.sendall(b"still here?")
                    receive_exactly(stream, 11)
                    dial(self._proxy.address, "echo.test", self._port, user=b"good").close()
                    self.worst_s = max(self.worst_s, time.monotonic() - began)
                    self.rounds += 1
                    self.peak_kb = max(self.peak_kb, self._proxy.resident_kb())
        except (OSError, AssertionError) as error:
            self.error = error


@pytest.mark.timeout(300)
def test_thousands_of_hostile_connections(tor_network: TorNetwork, tmp_path: Path) -> None:
    attacks = corpus()
    assert len(attacks) == TOTAL
    own = [*system(tor_network.client), f"limits.handshake_timeout_s={HANDSHAKE_S}"]
    with (
        many_descriptors(4096),
        EchoServer(tor_network.server_ip) as echo,
        Isoproxy(tmp_path, own, develop=False) as proxy,
    ):
        proxy.wait_ready()
        proxy.wait_for_workers()
        asyncio.run(commit_all([*attacks[:1000], *FLOODS], proxy.address), debug=False)
        before, open_before = proxy.resident_kb(), _descriptors(proxy)
        bystander = Bystander(proxy, echo.port)
        try:
            began = time.monotonic()
            asyncio.run(commit_all([*attacks[1000:], *FLOODS], proxy.address), debug=False)
            took = time.monotonic() - began
        finally:
            bystander.end()
        after = proxy.resident_kb()
        print(
            f"{len(attacks) - 1000} attacks in {took:.1f} s; {before} kB before, {after} after, "
            f"{bystander.peak_kb} at most; the bystander's {bystander.rounds} rounds took "
            f"{bystander.worst_s * 1000:.0f} ms at most"
        )
        assert bystander.error is None
        assert bystander.rounds > 5
        assert bystander.worst_s < 5
        assert bystander.peak_kb - before < PEAK_KB
        assert after - before < GROWTH_KB
        assert _descriptors(proxy) <= open_before
        status = proxy.status()
        assert status["flows"] == []
        assert status["counters"]["defects"] == 0
        assert status["listeners"][0]["accepted"] >= TOTAL
        # the log did not grow with the attack
        assert len(proxy.text()) < 100_000


def _descriptors(proxy: Isoproxy) -> int:
    proxy.wait_for("the end of all flows", lambda: not proxy.status()["flows"])
    members, counts = proxy.pids(), []
    for _ in range(5):
        time.sleep(0.1)
        counts.append(sum(map(descriptors, members)))
    return min(counts)
