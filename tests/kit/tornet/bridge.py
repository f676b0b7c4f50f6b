"""A bridge with a real transport in front of it, for a private network."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from tests.kit.tornet.network import TorNetwork
from tests.kit.tornet.node import Node

_LAST_BYTE = 199
_PORT = 9003
_START_S = 60.0


@contextlib.contextmanager
def obfs4_bridge(network: TorNetwork, program: str, host: str = "") -> Iterator[tuple[Node, str]]:
    """A bridge that `program` (obfs4proxy) stands before, and the line that is handed out.

    `host` is where the transport listens, by default at the bridge's own address.
    """
    node = network._node("bridge", _LAST_BYTE, "middle")
    host = host or node.ip
    node.configure(
        network._relay_torrc(node)
        + "BridgeRelay 1\nPublishServerDescriptor 0\n"
        + f"ServerTransportPlugin obfs4 exec {program}\n"
        + f"ServerTransportListenAddr obfs4 {host}:{_PORT}\nExtORPort {node.ip}:9004\n"
    )
    node.start()
    try:
        node.own()
        written = node.dir / "pt_state" / "obfs4_bridgeline.txt"
        deadline = time.monotonic() + _START_S
        while not (written.exists() and "cert=" in written.read_text() and _knows_all(node)):
            assert time.monotonic() < deadline, node.log_tail()
            time.sleep(0.05)
        (cert,) = (word for word in written.read_text().split() if word.startswith("cert="))
        node.fingerprint = node.ctl.getinfo("fingerprint")
        yield node, f"obfs4 {host}:{_PORT} {node.fingerprint} {cert} iat-mode=0"
    finally:
        node.stop()


def _knows_all(node: Node) -> bool:
    return node.ctl.getinfo("status/enough-dir-info") == "1"
