"""`isoproxy publish` and `isoproxy dial` on the private network."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.kit.dial import Refused
from tests.kit.dial import dial as dial_socks
from tests.kit.onion import ClientKey
from tests.kit.servers import EchoServer
from tests.kit.service import Service, dial, publishing, running, through
from tests.kit.tornet import TorNetwork

TIMEOUT_S = 90.0


async def answers(service: Service, target: str, isolation: str) -> bool:
    """Whether an echo comes back; a new identity for each try, each with a short time."""
    proxy = f"127.0.0.1:{service.port()}"
    for attempt in range(20):
        words = ("--proxy", proxy, "--isolation", f"{isolation} {attempt}", "--timeout", "15")
        code, out, _ = await dial(service.directory, *words, target, send=b"GET hello\n")
        if (code, out) == (0, "hello\n"):
            return True
        await asyncio.sleep(0.5)
    return False


async def answer_line(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one line, `GET text`, with the text, and hang up."""
    line = await reader.readline()
    writer.write(line.removeprefix(b"GET "))
    await writer.drain()
    writer.close()


@contextlib.asynccontextmanager
async def line_server(host: str) -> AsyncIterator[int]:
    server = await asyncio.start_server(answer_line, host, 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def test_publish_and_dial_end_to_end_and_after_tor_died(
    short_path: Path, tor_network: TorNetwork
) -> None:
    host = tor_network.server_ip
    key = ("--key-file", str(short_path / "key"))
    with tor_network.temporary_client() as client:
        async with (
            running(short_path, *through(tor_network.client)) as service,
            line_server(host) as port,
        ):
            words = (f"{host}:{port}", "--port", "7", *key)
            async with publishing(short_path, client, *words) as published:
                assert published.address.endswith(".onion:7")
                onion = published.address.removesuffix(".onion:7")
                assert published.multiaddr == f"/onion3/{onion}:7"
                assert await answers(service, published.multiaddr, "first")
                assert await answers(service, published.address, "second")
                await asyncio.to_thread(client.kill)
                await asyncio.to_thread(client.restart)
                assert await answers(service, published.multiaddr, "after")
            async with publishing(short_path, client, *words) as again:
                assert again.address == published.address
    log = (short_path / "publish.log").read_text()
    assert "waiting for tor" in log
    assert "published" in log


async def test_onion_services_of_the_configuration(
    short_path: Path, tor_network: TorNetwork
) -> None:
    host = tor_network.server_ip
    async with line_server(host) as port:
        config = short_path / "isoproxy.toml"
        config.write_text(
            f'[[onion_service]]\nname = "lines"\nports = [7, 8]\ntarget = "{host}:{port}"\n'
        )
        words = ("-c", str(config), *through(tor_network.client))
        async with running(short_path, *words) as service:
            seven, eight = (await service.line()).split(), (await service.line()).split()
            assert seven[:2] == eight[:2] == ["published", "lines"]
            assert seven[2].endswith(".onion:7")
            assert await answers(service, eight[3], "any")
            shown = await service.ask("onions")
            assert shown.out.splitlines() == [
                "lines: published",
                "  " + " ".join(seven[2:]),
                "  " + " ".join(eight[2:]),
            ]
            (asked,) = json.loads((await service.ask("onions", "--json")).out)["onion_services"]
            assert asked["addresses"] == [" ".join(seven[2:]), " ".join(eight[2:])]


async def test_a_unix_socket_behind_two_ports_for_one_client_alone(
    short_path: Path, tor_network: TorNetwork
) -> None:
    path = short_path / "lines"
    client = ClientKey.generate()
    server = await asyncio.start_unix_server(answer_line, path)
    words = (f"unix:{path}", "--port", "7", "--port", "8", "--client", client.service_form)
    with tor_network.temporary_client() as friend:
        async with (
            server,
            publishing(short_path, tor_network.relays[1], *words) as published,
            running(short_path, *through(friend)) as door,
        ):
            host, _, port = published.address.rpartition(":")
            assert port == "7"
            assert published.process.stdout is not None
            second = (await published.process.stdout.readline()).decode().split()
            assert second == [f"{host}:8", f"/onion3/{host.removesuffix('.onion')}:8"]
            onion = host.removesuffix(".onion")
            await asyncio.to_thread(
                friend.ctl.check, f"ONION_CLIENT_AUTH_ADD {onion} x25519:{client.client_form}"
            )
            for address in (published.address, second[1]):
                assert await answers(door, address, "friend")
            with pytest.raises(Refused):
                await asyncio.to_thread(dial_socks, tor_network.client.socks, host, 7)


async def test_what_the_end_of_the_input_does_over_tor(
    short_path: Path, tor_network: TorNetwork
) -> None:
    """Tor knows no half-closed streams: the reason why `--shutdown` is not the default."""
    with EchoServer(tor_network.server_ip) as server:
        async with running(short_path, *through(tor_network.client)) as service:
            words = ("--proxy", f"127.0.0.1:{service.port()}", f"echo.test:{server.port}")
            code, out, err = await dial(short_path, *words, "-N", send=b"hello")
            assert (code, err) == (0, "")
            assert out == ""  # the end of the stream is faster than the echo's way back
            async with line_server(tor_network.server_ip) as port:
                words = ("--proxy", f"127.0.0.1:{service.port()}", f"lines.test:{port}")
                for number in range(3):
                    sent = f"GET {number}\n".encode()
                    assert (await dial(short_path, *words, send=sent)).out == f"{number}\n"
