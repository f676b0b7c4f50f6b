"""Promise: `<service>.onion.`, with a final dot, is the onion service, wherever it comes in.

To Tor it is a host name, which an exit would be asked for.  The exits' resolver is the
witness: it hears none, and it hears the one that was given to Tor itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import socketserver
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import dns.message
import dns.query
import dns.rcode
import pytest

from tests.kit.dial import Refused, dial, receive_exactly
from tests.kit.isoproxy_process import Isoproxy, system
from tests.kit.onion import publish
from tests.kit.ports import free_port
from tests.kit.servers import Server
from tests.kit.streams import serving, stemns_command
from tests.kit.tornet import TorNetwork
from tests.kit.waiting import wait_until
from tests.network.programs import curl

HELLO: Final = b"HTTP/1.0 200 OK\r\n\r\nit is me\n"
PORT: Final = 80
NAME_SERVER: Final = 50001
CONTROLLED: Final = "__LeaveStreamsUnattached 1\n"


class Greeter(Server):
    """Says HELLO to everybody at once."""

    def __init__(self) -> None:
        super().__init__("127.0.0.1", _Greeter)


class _Greeter(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        self.request.sendall(HELLO)
        self.request.settimeout(1)
        with contextlib.suppress(TimeoutError):
            self.request.recv(4096)  # closed with a request unread, HELLO would be lost


@dataclass(frozen=True)
class Lab:
    """isoproxy, whose one name server is the onion service `host` too."""

    proxy: Isoproxy
    net: TorNetwork
    name_server: Server
    host: str
    dns_port: int
    directory: Path

    @property
    def written(self) -> str:
        """The onion service with a final dot."""
        return self.host.upper() + "."

    def command(self, *words: str) -> str:
        done = self.proxy.command(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def lab(tor_network: TorNetwork, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    directory, dns_port = tmp_path_factory.mktemp("dot"), free_port()
    with (
        Greeter() as greeter,
        Greeter() as name_server,
        publish(
            tor_network.relays[1],
            {PORT: greeter.address, NAME_SERVER: name_server.address},
        ) as onion,
    ):
        settings = [
            *system(tor_network.client),
            "names.backend=electrum",
            "names.electrum.network=regtest",
            f'names.electrum.servers=["{onion.host}.:{NAME_SERVER}:t"]',
            "names.electrum.quorum=1",
            f"dns.address=127.0.0.1:{dns_port}",
        ]
        with Isoproxy(directory, settings, develop=False) as proxy:
            proxy.wait_ready()
            yield Lab(proxy, tor_network, name_server, onion.host, dns_port, directory)


def over_socks5(lab: Lab) -> None:
    with contextlib.closing(dial(lab.proxy.address, lab.written, PORT)) as stream:
        assert receive_exactly(stream, len(HELLO)) == HELLO


def over_socks4a(lab: Lab) -> None:
    at = f"socks4a://{lab.proxy.host_and_port}"
    assert curl("--proxy", at, f"http://{lab.written}/") == "it is me\n"


def over_connect(lab: Lab) -> None:
    at = f"http://{lab.proxy.host_and_port}"
    assert curl("-p", "--proxy", at, f"http://{lab.written}/") == "it is me\n"


def asked_to_resolve_it(lab: Lab) -> None:
    """An onion service has no address."""
    done = subprocess.run(
        ["tor-resolve", lab.written, lab.proxy.host_and_port], capture_output=True, check=False
    )
    assert done.returncode != 0


def asked_over_dns(lab: Lab) -> None:
    query = dns.message.make_query(lab.written, "A")
    answer = dns.query.udp(query, "127.0.0.1", port=lab.dns_port, timeout=30)
    assert answer.rcode() in (dns.rcode.REFUSED, dns.rcode.NXDOMAIN)
    assert not answer.answer


def dialled(lab: Lab) -> None:
    words = ("dial", "--proxy", lab.proxy.host_and_port, f"{lab.written}:{PORT}")
    assert lab.command(*words).endswith("it is me\n")


def explained(lab: Lab) -> None:
    told = lab.command("explain", "user", "password", f"{lab.written}:{PORT}")
    assert "to an onion service" in told


def checked_and_used_as_a_name_server(lab: Lab) -> None:
    lab.command("check")
    wait_until(lambda: lab.name_server.connections > 0, 60)


WAYS: Final[tuple[Callable[[Lab], None], ...]] = (
    over_socks5,
    over_socks4a,
    over_connect,
    asked_to_resolve_it,
    asked_over_dns,
    dialled,
    explained,
    checked_and_used_as_a_name_server,
)


def asked_of_exits(lab: Lab) -> set[str]:
    return {name for name in lab.net.dns.names() if "onion" in name}


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_no_exit_is_asked_for_an_onion_service(lab: Lab, way: Callable[[Lab], None]) -> None:
    way(lab)
    assert asked_of_exits(lab) == set()


async def test_no_exit_is_asked_by_a_tor_that_stemns_controls(lab: Lab) -> None:
    with lab.net.temporary_client(CONTROLLED) as node:
        async with serving(stemns_command(lab.directory, node)):
            with contextlib.closing(dial(node.socks, lab.written, PORT)) as stream:
                assert receive_exactly(stream, len(HELLO)) == HELLO
            at = "{}:{}".format(*node.socks)
            resolving = await asyncio.create_subprocess_exec("tor-resolve", lab.written, at)
            assert await resolving.wait() != 0
    assert asked_of_exits(lab) == set()


def test_the_exits_resolver_hears_what_is_given_to_tor_itself(lab: Lab) -> None:
    with pytest.raises(Refused):
        dial(lab.net.client.socks, "control.onion.", PORT)
    assert asked_of_exits(lab) == {"control.onion"}
