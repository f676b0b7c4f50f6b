"""The private network: up quickly, exits told apart, names logged, nothing left behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dns.message
import dns.query
import dns.rcode
import pytest

from tests.kit.dial import dial, receive_exactly
from tests.kit.onion import publish
from tests.kit.repository import ROOT
from tests.kit.servers import EchoServer, WebServer
from tests.kit.tornet import StubDNS, TorNetError, TorNetwork
from tests.kit.tornet.place import Place
from tests.kit.waiting import wait_until


def _get(net: TorNetwork, host: str, port: int, user: bytes, path: str = "/") -> str:
    """One HTTP request under a user name of its own."""
    with dial(net.client.socks, host, port, user=user) as connection:
        request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        connection.sendall(request.encode())
        with connection.makefile("rb") as answer:
            return answer.read().decode()


def test_up_in_less_than_thirty_seconds(tor_network: TorNetwork) -> None:
    assert 0 < tor_network.startup_seconds < 30
    assert len(tor_network.exits) == 5
    assert len(tor_network.clients) >= 1


def test_a_server_sees_which_exit_a_stream_came_from(tor_network: TorNetwork) -> None:
    """Two ways to tell exits apart, /proc and DNS, agree; fresh tuples use several exits."""
    seen = set()
    with WebServer("0.0.0.0", tor_network.exit_of) as web:
        for number in range(12):
            answer = _get(tor_network, "me.exit.test", web.port, b"exits%d" % number)
            name = answer.partition("exit=")[2].split()[0]
            by_address = tor_network.relay_at(web.local_addresses[-1])
            assert by_address is not None
            assert by_address.name == name
            seen.add(name)
    # 12 draws out of 5: fewer than 2 different ones has a chance of 5**-11
    assert len(seen) >= 2


def test_every_name_that_reaches_an_exit_is_logged(tor_network: TorNetwork) -> None:
    with EchoServer(tor_network.server_ip) as echo:
        dial(tor_network.client.socks, "logged.test", echo.port, user=b"log").close()
        dial(tor_network.client.socks, tor_network.server_ip, echo.port, user=b"log").close()
    asked = [query for query in tor_network.dns.queries if query.name == "logged.test"]
    assert "A" in {query.kind for query in asked}
    assert {query.exit for query in asked} <= {node.name for node in tor_network.exits}
    assert tor_network.server_ip not in tor_network.dns.names()


def test_a_crashed_client_comes_back_under_the_same_addresses(tor_network: TorNetwork) -> None:
    with EchoServer(tor_network.server_ip) as echo, tor_network.temporary_client() as client:
        dial(client.socks_path, "back.test", echo.port).close()
        client.kill()
        with pytest.raises(OSError):  # noqa: PT011 - refused or reset, by the kernel's choice
            dial(client.socks, "back.test", echo.port)
        client.restart()
        for proxy in (client.socks, client.socks_path):
            dial(proxy, "back.test", echo.port).close()


def test_sighup_leaves_a_client_on_the_network(tor_network: TorNetwork) -> None:
    with EchoServer(tor_network.server_ip) as echo, tor_network.temporary_client() as client:
        client.ctl.check("SIGNAL RELOAD")
        assert client.ctl.getinfo("config-text").count("DisableNetwork 1") == 0
        dial(client.socks, "hup.test", echo.port).close()


def test_a_relay_that_asks_for_a_consensus_in_vain_finds_paths() -> None:
    """Started with one of both consensuses it asks for the other again and again."""
    with TorNetwork(log_level="info") as net:
        relay = net.relays[1]
        consensus = relay.dir / "cached-consensus"
        wait_until(consensus.exists)
        relay.stop()
        consensus.unlink()
        relay.restart()
        wait_until(lambda: "http status code 304" in relay.log.read_text())
        with WebServer(net.server_ip, net.exit_of) as web, publish(relay, {80: web.address}) as it:
            for number in range(3):
                assert "exit=" in _get(net, it.host, 80, b"%d" % number)
        assert "Failed to find node" not in relay.log.read_text()


def test_closing_a_stem_controller_does_not_end_tor(tor_network: TorNetwork) -> None:
    controller = tor_network.client.stem()
    version = str(controller.get_version())
    controller.close()
    time.sleep(0.2)
    assert tor_network.client.exit_status() is None
    assert version in tor_network.client.ctl.getinfo("version")


@contextlib.contextmanager
def _network_in_a_process() -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.kit.tornet", "--exits", "2"],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        text=True,
    ) as process:
        assert process.stdout is not None
        text = ""
        while not text.endswith("\n}\n"):
            line = process.stdout.readline()
            assert line, "the network did not start"
            text += line
        yield process, json.loads(text)


def _ended(pid: int, within: float) -> bool:
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.network
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_no_tor_and_no_directory_outlives_its_process(
    number: signal.Signals, short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(short_path))
    with _network_in_a_process() as (process, said):
        process.send_signal(number)
        process.wait(timeout=30)
    pids = [client["pid"] for client in said["clients"]] + [r["pid"] for r in said["relays"]]
    assert len(pids) == 4
    for pid in pids:
        assert _ended(pid, within=10)
    assert Path(said["dir"]).exists() is (number == signal.SIGKILL)
    # what SIGKILL left is swept by whoever starts next
    Place(str(short_path)).release()
    assert list(short_path.iterdir()) == []


def test_a_directory_in_use_is_not_swept(tmp_path: Path) -> None:
    first = Place(str(tmp_path))
    second = Place(str(tmp_path))
    assert first.dir.exists()
    assert first.subnet != second.subnet
    first.release()
    second.release()
    assert list(tmp_path.iterdir()) == []


def test_a_kept_directory_is_kept(tmp_path: Path) -> None:
    kept = Place(str(tmp_path), keep=True)
    kept.release()
    Place(str(tmp_path)).release()
    assert list(tmp_path.iterdir()) == [kept.dir]


def test_without_tor_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOR", "tor-that-is-not-there")
    with pytest.raises(TorNetError, match=r"Install the package tor"):
        TorNetwork().start()


def test_a_bad_option_ends_the_start_and_shows_tors_own_words(tmp_path: Path) -> None:
    network = TorNetwork(relay_options="NoSuchOption 1", parent_dir=str(tmp_path))
    with pytest.raises(TorNetError, match="NoSuchOption"):
        network.start()
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def resolver() -> Any:
    stub = StubDNS({"*.test": ["127.1.1.1", "::2"], "one.test": ["@exit"], "*.exit.test": []})
    yield stub
    stub.close()


@pytest.mark.parametrize(
    ("name", "kind", "values"),
    [
        ("www.test", "A", ["127.1.1.1"]),
        ("a.b.TEST", "AAAA", ["::2"]),
        ("one.test", "A", ["127.0.0.1"]),
        ("one.test", "MX", []),
        ("x.exit.test", "A", []),
        ("1.1.1.127.in-addr.arpa", "PTR", None),
        ("example.bit", "A", None),
        ("test", "A", None),
    ],
)
def test_the_stub_resolver(
    resolver: StubDNS, name: str, kind: str, values: list[str] | None
) -> None:
    host, port = resolver.serve("127.0.0.1", "exit9")
    answer = dns.query.udp(dns.message.make_query(name, kind), host, port=port, timeout=5)
    assert answer.rcode() == (dns.rcode.NXDOMAIN if values is None else dns.rcode.NOERROR)
    assert [str(r) for rrset in answer.answer for r in rrset] == (values or [])
    (query,) = resolver.queries
    assert (query.kind, query.name, query.exit) == (kind, name.lower(), "exit9")


def test_the_stub_resolver_survives_garbage(resolver: StubDNS) -> None:
    address = resolver.serve("127.0.0.1", "exit9")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        for junk in (b"", b"\0", os.urandom(40), b"\xff" * 500, b"\0" * 12):
            asker.sendto(junk, address)
    host, port = address
    answer = dns.query.udp(dns.message.make_query("x.test", "A"), host, port=port, timeout=5)
    assert answer.rcode() == dns.rcode.NOERROR


def test_dial_reports_a_hang_up() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"ab")
        theirs.shutdown(socket.SHUT_WR)
        with pytest.raises(ConnectionError, match="after 2 of 3"):
            receive_exactly(ours, 3)
