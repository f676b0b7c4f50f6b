"""Tor as the oracle of the sharing rule: random streams, and the circuits Tor put them on.

Three things are held against what the real tor did, stream by stream:

1.  A model of Tor's own decision (a circuit remembers the values of its first stream and
    in which fields later ones differed; a newcomer's fields must agree) predicts for each
    stream whether a circuit in use is taken.  If model and tor ever differ, the rest would
    prove nothing.
2.  Streams that `SharingTable` gives one ID are, pair by pair, streams that Tor's decision
    puts on one circuit.
3.  Streams that Tor put on one circuit are, pair by pair, allowed by `may_share`; but for
    the pairs in which the older stream is isolated by a field and the newer is not: Tor
    asks only the newcomer, our rule asks both.  Every exception must be of that kind.

ORACLE_STREAMS and ORACLE_SEED in the environment make it larger, and repeat it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import re
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from isoproxy.sharing import FIELD_NAMES, SharingTable, StreamFields
from stemns_plugin.grammar import StreamEvent, parse_stream_event
from tests.kit.servers import EchoServer
from tests.kit.sharing_rule import may_share
from tests.kit.tornet import Node, TorNetwork

FLAGS = (
    "IsolateDestAddr",
    "IsolateDestPort",
    "IsolateClientProtocol",
    "NoIsolateClientAddr",
    "NoIsolateSOCKSAuth",
)
LISTENERS = 14
FIRST_PORT = 9100


@dataclass
class Circuit:
    """What Tor remembers of the streams on a circuit."""

    first: StreamFields
    mixed: int = 0
    members: list[StreamEvent] = field(default_factory=list)

    def takes(self, stream: StreamEvent) -> bool:
        return not stream.isolated & self.mixed and agree(stream.isolated, stream, self.first)

    def take(self, stream: StreamEvent) -> None:
        self.members.append(stream)
        for place in range(len(FIELD_NAMES)):
            if stream.fields[place] != self.first[place]:
                self.mixed |= 1 << place


def agree(mask: int, stream: StreamEvent, values: StreamFields) -> bool:
    return all(
        stream.fields[place] == values[place]
        for place in range(len(FIELD_NAMES))
        if mask >> place & 1
    )


class Events:
    """The lines of a connection that follows streams and circuits; asked for by waiting."""

    def __init__(self, node: Node) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(30)
        self._socket.connect(node.control_path)
        cookie = Path(node.cookie).read_bytes().hex()
        self._socket.sendall(f"AUTHENTICATE {cookie}\r\nSETEVENTS STREAM CIRC\r\n".encode())
        self._file = self._socket.makefile("rb")
        assert [self._file.readline() for _ in range(2)] == [b"250 OK\r\n"] * 2

    def __iter__(self) -> Iterator[bytes]:
        for line in self._file:
            yield line.rstrip(b"\r\n")

    def close(self) -> None:
        self._file.close()
        self._socket.close()


def listeners(rng: random.Random) -> str:
    """SocksPort lines with random flags; about half of them in session groups."""
    lines = []
    for number in range(LISTENERS):
        flags = [flag for flag in FLAGS if rng.random() < 0.35]
        if rng.random() < 0.6:
            flags.append(f"SessionGroup={rng.randint(1, 3)}")
        lines.append(f"SocksPort {{ip}}:{FIRST_PORT + number} {' '.join(flags)}")
    return "\n".join([*lines, "MaxCircuitDirtiness 3600", "LearnCircuitBuildTimeout 0"])


def open_stream(rng: random.Random, node: Node, ports: list[int]) -> socket.socket:
    """One stream of random source, listener, protocol, user and destination."""
    client = socket.socket()
    client.settimeout(30)
    client.bind((rng.choice(["127.0.0.1", "127.0.0.2"]), 0))
    client.connect((node.socks[0], FIRST_PORT + rng.randrange(LISTENERS)))
    host, port = rng.choice([b"a.test", b"b.test"]), rng.choice(ports)
    user, password = rng.choice([b"", b"alice", b"bob"]), rng.choice([b"", b"x"])
    if rng.random() < 0.3:
        client.sendall(struct.pack("!BBHI", 4, 1, port, 1) + user + b"\0" + host + b"\0")
    elif user:
        login = struct.pack("!BB", 1, len(user)) + user + bytes([len(password)]) + password
        client.sendall(b"\x05\x01\x02" + login)
        send_request(client, host, port)
    else:
        client.sendall(b"\x05\x01\x00")
        send_request(client, host, port)
    return client


def send_request(client: socket.socket, host: bytes, port: int) -> None:
    client.sendall(b"\x05\x01\x00\x03" + bytes([len(host)]) + host + struct.pack("!H", port))


class Oracle:
    """Follows what Tor does with streams and compares."""

    def __init__(self) -> None:
        self.circuits: dict[int, Circuit] = {}
        self.finished: list[Circuit] = []
        self.table = SharingTable()
        self.groups: dict[bytes, list[StreamEvent]] = {}
        self.disagreements: list[str] = []
        self._new: dict[int, StreamEvent] = {}

    def take(self, line: bytes) -> int | None:
        """One line; the stream it says was sent off on a circuit."""
        gone = re.match(rb"650 CIRC (\d+) (?:CLOSED|FAILED) ", line)
        if gone is not None and int(gone[1]) in self.circuits:
            self.finished.append(self.circuits.pop(int(gone[1])))
        event = parse_stream_event(line)
        if event is None:
            assert not line.startswith(b"650 STREAM")
            return None
        if event.status == b"NEW" and event.purpose == b"USER":
            self._new[event.id] = event
            identity = self.table.assign(event.fields, event.isolated)
            self.groups.setdefault(identity, []).append(event)
        elif event.status == b"SENTCONNECT" and event.id in self._new:
            sent = re.match(rb"650 STREAM \d+ SENTCONNECT (\d+) ", line)
            assert sent is not None
            self._attached(self._new.pop(event.id), int(sent[1]))
            return event.id
        return None

    def _attached(self, stream: StreamEvent, number: int) -> None:
        circuit = self.circuits.get(number)
        if circuit is None:
            if any(other.takes(stream) for other in self.circuits.values()):
                self.disagreements.append("a circuit that would take the stream was not used")
            circuit = self.circuits[number] = Circuit(stream.fields)
        elif not circuit.takes(stream):
            self.disagreements.append("a stream is on a circuit that would not take it")
        circuit.take(stream)

    def compare(self) -> tuple[int, int, int]:
        """Counts of pairs by ID, of pairs by circuit, and of the known exceptions."""
        by_id = by_circuit = exceptions = 0
        for members in self.groups.values():
            for older, newer in itertools.combinations(members, 2):
                by_id += 1
                if not agree(newer.isolated, newer, older.fields):
                    self.disagreements.append("one ID for streams that Tor keeps apart")
        for circuit in [*self.circuits.values(), *self.finished]:
            for older, newer in itertools.combinations(circuit.members, 2):
                by_circuit += 1
                if may_share(older.fields, older.isolated, newer.fields, newer.isolated):
                    continue
                only_older = older.isolated & ~newer.isolated
                if agree(only_older, newer, older.fields):
                    self.disagreements.append("one circuit for streams that our rule keeps apart")
                exceptions += 1
        return by_id, by_circuit, exceptions


@pytest.mark.timeout(600)
def test_tor_and_the_rule_agree_on_every_pair(
    tor_network: TorNetwork, capsys: pytest.CaptureFixture[str]
) -> None:
    seed = int(os.environ.get("ORACLE_SEED") or random.SystemRandom().randrange(10**9))
    count = int(os.environ.get("ORACLE_STREAMS", "1500"))
    rng = random.Random(seed)
    node = tor_network.add_client(listeners(rng))
    oracle = Oracle()
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(EchoServer(tor_network.server_ip)) for _ in range(2)]
        events = stack.enter_context(contextlib.closing(Events(node)))
        lines = iter(events)
        for number in range(count):
            if number == count // 2:
                node.ctl.check("SIGNAL NEWNYM")
            with open_stream(rng, node, [server.port for server in servers]):
                while oracle.take(next(lines)) is None:
                    pass
    by_id, by_circuit, exceptions = oracle.compare()
    with capsys.disabled():
        print(
            f"\nTor as the oracle: seed {seed}, {count} streams, {time.monotonic() - began:.0f} s, "
            f"{len(oracle.circuits) + len(oracle.finished)} circuits, {len(oracle.groups)} IDs, "
            f"{by_id} pairs of one ID, {by_circuit} of one circuit ({exceptions} where only the "
            f"older stream is isolated), {len(oracle.disagreements)} disagreements"
        )
    assert by_id > count
    assert by_circuit > count
    assert oracle.disagreements == []
