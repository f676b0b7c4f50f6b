"""Promise: programs that people use get their separate circuits, and clear errors.

Each client is the real one; Tor's control port says which circuits it got.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import Final

import pytest
import socks

from tests.kit.dial import Refused, dial, receive_exactly
from tests.kit.isoproxy_process import Isoproxy, system
from tests.kit.onion import OnionService, publish
from tests.kit.servers import WebServer, closed_port, git_repository
from tests.kit.tornet import Address, TorNetwork
from tests.kit.witness import Stream, Witness
from tests.network.programs import curl, program

UNKNOWN_ONION: Final = "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid.onion"
MISSPELT_ONION: Final = "a" + UNKNOWN_ONION[1:]


@pytest.fixture(scope="module")
def proxy(tor_network: TorNetwork, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Isoproxy]:
    with Isoproxy(tmp_path_factory.mktemp("isoproxy"), system(tor_network.client)) as running:
        yield running


@pytest.fixture(scope="module")
def web(tor_network: TorNetwork, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    files = tmp_path_factory.mktemp("files")
    git_repository(files / "repository")
    with WebServer(tor_network.server_ip, tor_network.exit_of, files) as server:
        yield server


@pytest.fixture(scope="module")
def onion(tor_network: TorNetwork, web: WebServer) -> Iterator[OnionService]:
    """The web server, at port 80 and no other."""
    with publish(tor_network.relays[1], {80: web.address}) as service:
        yield service


@pytest.fixture
def witness(tor_network: TorNetwork) -> Iterator[Witness]:
    with Witness(tor_network.client) as listening:
        yield listening


class Identities:
    """Runs commands, one identity each, and asks the witness what circuits they got."""

    def __init__(self, witness: Witness):
        self._witness = witness
        self._identity: dict[int, str] = {}

    @contextlib.contextmanager
    def act(self, identity: str) -> Iterator[None]:
        """All streams that Tor sees in this context are those of `identity`."""
        before = self._witness.mark()
        yield
        self._witness.settle()
        streams = self._witness.streams(after=before)
        assert any(stream.succeeded for stream in streams), f"no stream of {identity!r}"
        self._identity |= {stream.id: identity for stream in streams}

    def judge(self) -> None:
        """Identities never shared a circuit; each used one, to each onion service."""
        seen = [s for s in self._witness.streams() if s.id in self._identity]
        self._witness.assert_isolated(seen, self._of)
        self._witness.assert_shared(seen, lambda s: (self._of(s), s.host.endswith(".onion")))

    def _of(self, stream: Stream) -> Hashable:
        return self._identity[stream.id]


@pytest.fixture
def identities(witness: Witness) -> Iterator[Identities]:
    acting = Identities(witness)
    yield acting
    acting.judge()


def test_curl_by_socks5(proxy: Isoproxy, web: WebServer, identities: Identities) -> None:
    at = proxy.host_and_port
    for who in ("a:1", "a:1", "a:2", "b:1", "b:1", "", "", "a:", "%3CtorS0X%3E0:1"):
        with identities.act(who):
            assert curl("--proxy", f"socks5h://{who}@{at}", web.url(name="web.test"))


def test_curl_by_socks4a(proxy: Isoproxy, web: WebServer, identities: Identities) -> None:
    for who in ("a", "a", "b"):
        with identities.act(who):
            assert curl("--proxy", f"socks4a://{who}@{proxy.host_and_port}", web.url(name="w.test"))
    with identities.act(""):
        assert curl("--socks4a", proxy.host_and_port, web.url(name="web.test"))


def test_curl_by_http_connect(proxy: Isoproxy, web: WebServer, identities: Identities) -> None:
    url, at = web.url(name="web.test"), proxy.host_and_port
    for who in ("u:p", "u:p", "u:q"):
        with identities.act(who):
            assert curl("-p", "--proxy", f"http://{who}@{at}", url)
    for tag in ("x", "x", "y"):
        with identities.act("tag " + tag):
            header = f"X-Tor-Stream-Isolation: {tag}"
            assert curl("-p", "--proxy", f"http://{at}", "--proxy-header", header, url)


def test_a_browser_sent_here_by_mistake_is_told_what_this_is(proxy: Isoproxy) -> None:
    page = program("curl", "-sS", f"http://{proxy.host_and_port}/")
    assert "This is isoproxy" in page
    assert "socks5h://" in page


def test_torsocks(proxy: Isoproxy, onion: OnionService, identities: Identities) -> None:
    """torsocks hands over names of onion services; it refuses loopback, where web.test is."""
    host, port = proxy.address

    def fetch(*options: str) -> None:
        command = ["torsocks", "-a", host, "-P", str(port), *options, "curl", "-sS"]
        assert program(*command, f"http://{onion.host}/").startswith("exit=")

    for number in (1, 2):
        with identities.act(f"isolated {number}"):
            fetch("-i")
    for password in ("1", "1", "2"):
        with identities.act(password):
            fetch("-u", "user", "-p", password)


def test_pysocks(proxy: Isoproxy, web: WebServer, identities: Identities) -> None:
    host, port = proxy.address
    for kind, who in (
        (socks.SOCKS5, ("ann", "1")),
        (socks.SOCKS5, ("ann", "1")),
        (socks.SOCKS5, ("ann", "2")),
        (socks.SOCKS5, (None, None)),
        (socks.SOCKS4, ("ann", None)),
        (socks.HTTP, ("ann", "1")),
    ):
        with identities.act(f"{kind} {who}"):
            connection = socks.create_connection(
                ("web.test", web.port), 60, None, kind, host, port, True, *who
            )
            with connection:
                connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
                answer = connection.makefile("rb").read()
                assert b"exit=" in answer


def test_git_clone(proxy: Isoproxy, web: WebServer, identities: Identities, tmp_path: Path) -> None:
    url = web.url("/files/repository/.git", name="git.test")
    for project in ("one", "two"):
        with identities.act(project):
            at = f"http.proxy=socks5h://git:{project}@{proxy.host_and_port}"
            program("git", "-c", at, "clone", "-q", url, str(tmp_path / project))
        assert (tmp_path / project / "README").read_text() == "hello\n"


def test_tor_resolve(proxy: Isoproxy, tor_network: TorNetwork) -> None:
    at = proxy.host_and_port
    assert program("tor-resolve", "www.test", at) == tor_network.server_ip + "\n"
    assert program("tor-resolve", "-4", "www.test", at) == tor_network.server_ip + "\n"
    failed = subprocess.run(["tor-resolve", "absent.invalid-tld", at], capture_output=True)
    assert failed.returncode != 0
    assert b"4" in failed.stderr or b"unreachable" in failed.stderr.lower()


def test_reverse_resolve(tor_network: TorNetwork, proxy: Isoproxy) -> None:
    tor_network.dns.hosts["host.example"] = ["192.0.2.7"]
    assert program("tor-resolve", "-x", "192.0.2.7", proxy.host_and_port) == "host.example\n"


def test_electrum_finds_a_tor_here(proxy: Isoproxy) -> None:
    """Electrum's own test (util.is_tor_socks_port): one send, one read, twelve bytes."""
    for _ in range(20):
        with socket.create_connection(proxy.address, timeout=10) as probe:
            probe.send(b"\x05\x01\x00" + b"\x05\xf0\x00\x03" + b"\x070.0.0.0" + b"\x00\x00")
            assert probe.recv(1024) == b"\x05\x00" + b"\x05\x00\x00\x01" + bytes(6)


def test_an_onion_service_is_reached(
    proxy: Isoproxy, onion: OnionService, identities: Identities
) -> None:
    for who in ("a:1", "a:1", "a:2"):
        with identities.act(who):
            page = curl(
                "--proxy", f"socks5h://{who}@{proxy.host_and_port}", f"http://{onion.host}/"
            )
            assert f"host={onion.host} " in page
    with identities.act("subdomain"):
        url = f"http://www.{onion.host}/"
        assert curl("--proxy", f"socks5h://c:1@{proxy.host_and_port}", url)


# -- errors


@pytest.mark.parametrize(
    ("host", "port", "reply"),
    [
        (UNKNOWN_ONION, 80, 0xF0),
        (MISSPELT_ONION, 80, 0xF6),
        ("absent.example", 80, 0x04),
        ("name.bit", 80, 0x02),
        ("host.local", 80, 0x02),
    ],
)
def test_errors_of_names(proxy: Isoproxy, host: str, port: int, reply: int) -> None:
    assert _refusal(proxy.address, host, port) == reply


def test_a_closed_port(proxy: Isoproxy, onion: OnionService, tor_network: TorNetwork) -> None:
    """5 from an onion service.  Of loopback tor itself says 1 (its exits say MISC)."""
    assert _refusal(proxy.address, onion.host, 81) == 5
    with closed_port(tor_network.server_ip) as port:
        tors_own = _refusal(tor_network.client.socks_path, "closed.test", port)
        assert _refusal(proxy.address, "closed.test", port) == tors_own


def test_a_refused_exit(proxy: Isoproxy, tor_network: TorNetwork) -> None:
    """A port that no exit allows: tor says 1 to that, and we say what it says."""
    tors_own = _refusal(tor_network.client.socks_path, "mail.test", 25)
    assert _refusal(proxy.address, "mail.test", 25) == tors_own


def test_a_refusal_of_tors_policy(tor_network: TorNetwork, tmp_path: Path) -> None:
    """2, from a SocksPort that allows onion services only, in each protocol's words."""
    with tor_network.temporary_client("SocksPort unix:{dir}/onions OnionTrafficOnly") as client:
        settings = [*system(client), f"tor.socks=unix:{client.dir}/onions"]
        with Isoproxy(tmp_path, settings) as proxy:
            assert _refusal(proxy.address, "www.test", 80) == 2
            assert _socks4a(proxy.address, b"www.test", 80) == b"\x00\x5b" + bytes(6)
            with pytest.raises(subprocess.CalledProcessError) as told:
                curl("-p", "--proxy", f"http://{proxy.host_and_port}", "http://www.test/")
            assert "response 503" in told.value.stderr


def test_errors_over_http_connect(proxy: Isoproxy) -> None:
    at = f"http://{proxy.host_and_port}"
    for host, status in ((UNKNOWN_ONION, "503"), (MISSPELT_ONION, "400"), ("name.bit", "403")):
        with pytest.raises(subprocess.CalledProcessError) as told:
            curl("-p", "--proxy", at, f"http://{host}/")
        assert f"response {status}" in told.value.stderr


def _refusal(proxy: Address, host: str, port: int, user: bytes = b"e") -> int | None:
    with pytest.raises(Refused) as told:
        dial(proxy, host, port, user=user).close()
    return told.value.reply


def _socks4a(proxy: tuple[str, int], host: bytes, port: int) -> bytes:
    with socket.create_connection(proxy, timeout=60) as client:
        request = b"\x04\x01" + port.to_bytes(2, "big") + b"\x00\x00\x00\x01"
        client.sendall(request + b"two\x00" + host + b"\x00")
        return receive_exactly(client, 8)
