"""What goes over the wire, as tcpdump sees it: a packet capture on the loopback interface.

    with capture(f"net {net.subnet}") as captured:
        ...
    captured.streams[source, destination]     # the bytes of each direction of each connection

Theory of operation
    tcpdump writes the packets that its filter passes; they are read when the capture has
    ended.  Segments are put in order by their sequence numbers (RFC 9293 §3.4), the bytes of
    a segment that was sent twice counting once, so that no message hides across a cut.

Pitfalls
    A capture needs root, or CAP_NET_RAW.  tcpdump is stopped only when it has written a packet
    that was sent for it at the end: what came before is then in the file.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import struct
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.kit.waiting import wait_until

Endpoint = tuple[str, int]
Link = tuple[Endpoint, Endpoint]

_ETHERNET: Final = 14
_FILE_HEADER: Final = 24
_RECORD: Final = struct.Struct("=IIII")
_LAST_WORD: Final = b"end of the capture"


@dataclass
class Captured:
    """What was said; `streams` by source and destination, there when the capture has ended."""

    streams: dict[Link, bytes] = field(default_factory=dict)

    def to(self, destination: Endpoint) -> list[bytes]:
        """What each connection to `destination` carried to it."""
        return [said for (_, there), said in self.streams.items() if there == destination]


@contextlib.contextmanager
def capture(rule: str) -> Iterator[Captured]:
    """Records IPv4 packets on `lo` that pass `rule`, in the language of pcap-filter(7)."""
    assert shutil.which("tcpdump"), "tcpdump is not installed: apt-get install tcpdump"
    captured = Captured()
    with (
        tempfile.TemporaryDirectory(prefix="isoproxy-capture-") as directory,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ending,
    ):
        ending.bind(("127.0.0.1", 0))
        file = Path(directory) / "lo.pcap"
        with _tcpdump(f"({rule}) or (udp and port {ending.getsockname()[1]})", file):
            yield captured
            ending.sendto(_LAST_WORD, ending.getsockname())
            wait_until(lambda: _LAST_WORD in file.read_bytes())
        captured.streams = _reassembled(file.read_bytes())


@contextlib.contextmanager
def _tcpdump(rule: str, file: Path) -> Iterator[None]:
    command = ["tcpdump", "-i", "lo", "-s", "0", "-U", "-n", "-B", "65536", "-w", str(file)]
    # as root, tcpdump would write as another user
    command += ["-Z", "root", rule] if os.geteuid() == 0 else [rule]
    said = file.with_suffix(".said")
    with said.open("wb") as errors, subprocess.Popen(command, stderr=errors) as process:
        try:
            wait_until(lambda: b"listening on" in said.read_bytes() or process.poll() is not None)
            assert process.poll() is None, said.read_text()
            yield
        finally:
            process.terminate()


def may_capture() -> bool:
    """Whether this process may capture packets."""
    try:
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close()
    except PermissionError:
        return False
    return True


def _reassembled(recorded: bytes) -> dict[Link, bytes]:
    segments: defaultdict[Link, dict[int, bytes]] = defaultdict(dict)
    first: dict[Link, int] = {}
    for link, sequence, payload in _segments(recorded):
        offset = (sequence - first.setdefault(link, sequence)) & 0xFFFFFFFF
        known = segments[link].get(offset, b"")
        segments[link][offset] = max(known, payload, key=len)
    return {link: _joined(pieces) for link, pieces in segments.items()}


def _joined(pieces: dict[int, bytes]) -> bytes:
    whole = bytearray()
    for offset in sorted(pieces):
        assert offset <= len(whole), "the capture has a gap"
        whole[offset : offset + len(pieces[offset])] = pieces[offset]
    return bytes(whole)


def _segments(recorded: bytes) -> Iterator[tuple[Link, int, bytes]]:
    """Each TCP segment with bytes in it: its link, sequence number and bytes."""
    at = _FILE_HEADER
    while at + _RECORD.size <= len(recorded):
        _, _, kept, length = _RECORD.unpack_from(recorded, at)
        at += _RECORD.size
        assert kept == length, "tcpdump cut a packet"
        packet = recorded[at + _ETHERNET : at + kept]
        at += kept
        if packet[0] >> 4 == 4 and packet[9] == socket.IPPROTO_TCP:
            yield from _segment(packet[: int.from_bytes(packet[2:4], "big")])


def _segment(packet: bytes) -> Iterator[tuple[Link, int, bytes]]:
    header = (packet[0] & 15) * 4
    source, destination, sequence = struct.unpack_from(">HHI", packet, header)
    payload = packet[header + (packet[header + 12] >> 4) * 4 :]
    if payload:
        there, here = socket.inet_ntoa(packet[16:20]), socket.inet_ntoa(packet[12:16])
        yield ((here, source), (there, destination)), sequence, payload
