"""Promise: two settings bring a managed tor through a bridge, or say in a sentence why not.

The bridge is a real tor of the private network behind the real obfs4proxy.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from isoproxy.tor.managed.advice import NO_BRIDGE, NO_TRANSPORT
from tests.kit.dial import dial, receive_exactly
from tests.kit.isoproxy_process import Isoproxy, NotStarted
from tests.kit.servers import EchoServer, closed_port
from tests.kit.tornet import Control, Node, TorNetwork
from tests.kit.tornet.bridge import obfs4_bridge

PROGRAM: Final = shutil.which("obfs4proxy")
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="obfs4proxy is not installed")
ZERO_WIDTH: Final = "\u200b"


@pytest.fixture(scope="module")
def bridge(tor_network: TorNetwork) -> Iterator[tuple[Node, str]]:
    with obfs4_bridge(tor_network, str(PROGRAM)) as found:
        yield found


def through(network: TorNetwork, *bridges: str, more: str = "") -> list[str]:
    """The two settings, and what the private network needs."""
    return [
        "tor.mode=managed",
        "tor.bridges=" + json.dumps(bridges),
        "tor.extra_torrc=" + json.dumps(network.joining_lines),
        *([more] if more else []),
    ]


def secrets_of(line: str) -> set[str]:
    """What nobody may be shown of a bridge."""
    return {word for word in re.split(r"[ =:]", line) if len(word) > 8}


def test_through_a_bridge_streams_are_carried_and_nothing_tells_of_it(
    bridge: tuple[Node, str], tor_network: TorNetwork, short_path: Path
) -> None:
    node, line = bridge
    pasted = f"# from a friend\nBridge {ZERO_WIDTH}{line.replace(' ', '  ')}\n"
    with (
        EchoServer(tor_network.server_ip) as server,
        Isoproxy(short_path, through(tor_network, pasted)) as proxy,
    ):
        proxy.wait_ready()
        with dial(proxy.address, "echo.test", server.port, user=b"alice") as stream:
            stream.sendall(b"hello")
            assert receive_exactly(stream, 5) == b"hello"
        (socket_file,) = short_path.rglob("tor/control")
        with Control(str(socket_file), str(socket_file.parent / "cookie")) as control:
            built = re.findall(r"BUILT \$([0-9A-F]{40})", control.getinfo("circuit-status"))
        assert set(built) == {node.fingerprint}
        told = proxy.text() + json.dumps(proxy.status()) + proxy.command("tor", "log").stdout
        told += proxy.command("doctor").stdout + proxy.metrics()
        assert not {secret for secret in secrets_of(line) if secret in told}


def test_a_bridge_that_does_not_answer_is_said_to(
    bridge: tuple[Node, str], tor_network: TorNetwork, short_path: Path
) -> None:
    _, line = bridge
    with closed_port(tor_network.server_ip) as port:
        words = line.split()
        dead = " ".join([words[0], f"{tor_network.server_ip}:{port}", *words[2:]])
        with Isoproxy(short_path, through(tor_network, dead)) as proxy:
            proxy.wait_for("advice", lambda: proxy.status()["tor"]["advice"] == NO_BRIDGE)
            assert NO_BRIDGE in proxy.command("status").stdout
            assert "the bridge does not answer" in proxy.command("doctor").stdout
            proxy.wait_for("the log", lambda: "the bridge does not answer" in proxy.text())
            assert f":{port}" not in proxy.text() + proxy.command("tor", "log").stdout


def test_a_transport_that_cannot_start_is_said_to(
    bridge: tuple[Node, str], tor_network: TorNetwork, short_path: Path
) -> None:
    _, line = bridge
    settings = through(tor_network, line, more='tor.transports=["obfs4 /bin/false"]')
    with Isoproxy(short_path, settings) as proxy:
        proxy.wait_for("advice", lambda: proxy.status()["tor"]["advice"] == NO_TRANSPORT)
        assert "the transport cannot start" in proxy.command("doctor").stdout


def test_a_missing_transport_and_a_garbled_line_are_one_sentence_each(
    bridge: tuple[Node, str], tor_network: TorNetwork, short_path: Path
) -> None:
    _, line = bridge
    for wrong, told in (
        (line.replace("obfs4", "dust"), "needs the transport dust, and no program for it"),
        (line.partition(" cert")[0], "was all of the line pasted?"),
    ):
        with pytest.raises(NotStarted) as caught, Isoproxy(short_path, through(tor_network, wrong)):
            pass
        said = str(caught.value)
        assert told in said
        assert not {secret for secret in secrets_of(line) if secret in said}


@pytest.mark.skipif(shutil.which("snowflake-client") is None, reason="it is not installed")
def test_snowflake_starts_and_asks_its_broker(short_path: Path) -> None:
    """As far as it goes without the internet: there is no broker."""
    line = (
        f"snowflake 192.0.2.3:80 {'A' * 40} fingerprint={'A' * 40} url=http://127.0.0.1:1/ "
        "fronts=127.0.0.1 ice=stun:127.0.0.1:1 utls-imitate=hellorandomizedalpn"
    )
    settings = ["tor.mode=managed", "tor.bridges=" + json.dumps([line])]
    with Isoproxy(short_path, settings) as proxy:
        proxy.wait_for("its broker", lambda: "broker" in proxy.command("tor", "log").stdout)
        tor = proxy.status()["tor"]
        assert tor["bootstrap"]["percent"] >= 2
        assert tor["advice"] != NO_TRANSPORT
