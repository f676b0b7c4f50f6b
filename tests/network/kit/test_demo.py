"""The demo's lines and its judgement, with a tor in isoproxy's place: it speaks the same."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kit.demo import DemoError, Line, isoproxy, lines, try_all
from tests.kit.onion import publish
from tests.kit.servers import WebServer, closed_port
from tests.kit.tornet import Node, TorNetwork
from tests.kit.witness import Witness


@pytest.fixture
def web(tor_network: TorNetwork) -> Iterator[WebServer]:
    with WebServer(tor_network.server_ip, tor_network.exit_of) as server:
        yield server


def _try(client: Node, tries: list[Line]) -> None:
    with Witness(client) as witness:
        try_all(tries, witness)


def test_every_line_works(
    tor_network: TorNetwork, web: WebServer, capsys: pytest.CaptureFixture[str]
) -> None:
    with (
        tor_network.temporary_client("HTTPTunnelPort {ip}:9080") as client,
        publish(tor_network.relays[1], {80: web.address}) as service,
    ):
        host, port = client.socks
        tries = lines(
            f"{host}:{port}",
            web.url(name="web.test"),
            f"http://{service.host}/",
            http=f"{host}:9080",
        )
        _try(client, tries)
    printed = capsys.readouterr().out.splitlines()
    assert [line for line in printed if line.startswith("curl ")] == [str(t) for t in tries]
    assert printed[1] == f"curl -sS --proxy socks5h://alice:1@{host}:{port} " + web.url(
        name="web.test"
    )


@pytest.mark.parametrize(
    ("options", "users", "complaint"),
    [
        ("SocksPort {ip}:9052 NoIsolateSOCKSAuth", {"a": "x", "b": "y"}, "two identities"),
        ("SocksPort {ip}:9052", {"a": "x", "b": "x"}, "several circuits"),
    ],
)
def test_a_proxy_that_mixes_or_scatters_is_found_out(
    tor_network: TorNetwork, web: WebServer, options: str, users: dict[str, str], complaint: str
) -> None:
    with tor_network.temporary_client(options) as client:
        url = web.url(name="web.test")
        tries = [
            Line(user, identity, ["curl", "-sS", "-x", f"socks5h://{user}:1@{client.ip}:9052", url])
            for user, identity in users.items()
        ]
        with pytest.raises(DemoError, match=complaint):
            _try(client, tries)


def test_an_answer_that_did_not_come_through_tor_is_found_out(
    tor_network: TorNetwork, web: WebServer
) -> None:
    with pytest.raises(DemoError, match="Tor saw 0 streams"):
        _try(tor_network.client, [Line("direct", "a", ["curl", "-sS", web.url()])])


def test_a_line_that_does_not_work_is_shown(tor_network: TorNetwork, web: WebServer) -> None:
    with closed_port("127.0.0.1") as port:
        tries = lines(f"127.0.0.1:{port}", web.url(), web.url())
        with pytest.raises(DemoError, match=rf"did not work[^$]*curl -sS .*:{port} "):
            _try(tor_network.client, tries)


def test_an_isoproxy_that_cannot_listen_is_shown(
    tor_network: TorNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is wrong, the demo hands on what isoproxy said."""
    monkeypatch.setenv("PYTHONHOME", "/nonexistent")
    with (
        closed_port("127.0.0.1") as port,
        pytest.raises(DemoError, match=r"ended at once.*It said:"),
        isoproxy(tor_network, port),
    ):
        raise AssertionError("isoproxy started")
