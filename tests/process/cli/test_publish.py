"""`isoproxy publish` and `isoproxy dial`, on the private network and against stand-ins."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from isoproxy.cli import main
from tests.kit.dial import Refused
from tests.kit.dial import dial as dial_socks
from tests.kit.onion import ClientKey
from tests.kit.servers import EchoServer
from tests.kit.service import Outcome, Service, environment, running
from tests.kit.socks_port import SocksPort, refusing
from tests.kit.tornet import Node, TorNetwork
from tests.process.cli.test_service import system_tor

PATIENCE_S = 90.0


async def dial(directory: Path, *words: str, send: bytes = b"", hold: bool = False) -> Outcome:
    """`isoproxy dial` with `send` as its input; with `hold` that stays open until the end."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "isoproxy", "dial", *words),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(directory),
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        async with asyncio.timeout(PATIENCE_S):
            with contextlib.suppress(ConnectionError):
                process.stdin.write(send)
                await process.stdin.drain()
            if not hold:
                process.stdin.close()
            out = await process.stdout.read()
            err = await process.stderr.read()
            code = await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        process.stdin.close()
    return Outcome(code, out.decode(), err.decode())


@dataclass
class Published:
    """A running `isoproxy publish`."""

    process: asyncio.subprocess.Process
    address: str
    multiaddr: str


@contextlib.asynccontextmanager
async def publishing(directory: Path, client: Node, *words: str) -> AsyncIterator[Published]:
    """`isoproxy publish` through a client's tor, once it has printed its address."""
    settings = ("--set", "tor.mode=system", "--set", f"tor.control=unix:{client.control_path}")
    with (directory / "publish.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "isoproxy", "publish", *settings, *words),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            env=environment(directory),
        )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            line = (await process.stdout.readline()).decode().split()
        assert len(line) == 2, (directory / "publish.log").read_text()
        yield Published(process, *line)
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
        assert await process.wait() == 0


def through(client: Node) -> list[str]:
    """Settings of an isoproxy in front of a client's tor."""
    settings = [
        "tor.mode=system",
        f"tor.socks=unix:{client.socks_path}",
        f"tor.control=unix:{client.control_path}",
        "listener.0.address=127.0.0.1:0",
    ]
    return [word for setting in settings for word in ("--set", setting)]


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


async def first_said(
    environment: Mapping[str, str], *words: str, on: Literal["stdout", "stderr"]
) -> tuple[bytes, bytes, int | None]:
    """What `publish 127.0.0.1:80` says first there, what after that, and its exit code."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "isoproxy", "publish", "127.0.0.1:80", *words),
        stdout=asyncio.subprocess.PIPE if on == "stdout" else None,
        stderr=asyncio.subprocess.PIPE if on == "stderr" else None,
        env=environment,
    )
    stream = process.stdout or process.stderr
    assert stream is not None
    try:
        async with asyncio.timeout(PATIENCE_S):
            line = await stream.readline()
    finally:
        process.terminate()
        rest = await stream.read()
        code = await process.wait()
    return line, rest, code


async def test_publish_says_what_it_waits_for(tmp_path: Path) -> None:
    nowhere = ("--set", "tor.mode=system", "--set", f"tor.control=unix:{tmp_path}/none")
    line, rest, code = await first_said(environment(tmp_path), *nowhere, on="stderr")
    assert b"is Tor running?" in line
    assert (rest, code) == (b"", 0)


async def test_publish_finds_the_tor_of_the_isoproxy_that_runs(short_path: Path) -> None:
    """As root finds the service's: the state of who asks is somewhere else."""
    offline = ("--set", 'tor.extra_torrc=["DisableNetwork 1"]')
    elsewhere = environment(short_path, {"STATE_DIRECTORY": str(short_path / "elsewhere")})
    async with running(short_path, *offline):
        line, _, _ = await first_said(elsewhere, on="stderr")
        assert b"uploading the descriptor" in line  # which a tor without network cannot


async def test_publish_says_that_no_isoproxy_runs(tmp_path: Path) -> None:
    line, _, _ = await first_said(environment(tmp_path), on="stderr")
    assert b"isoproxy run; its tor is waited for" in line


async def test_dial_carries_every_byte_both_ways(short_path: Path) -> None:
    data = os.urandom(3_000_000).hex().encode()
    async with SocksPort() as port:
        words = ("--proxy", str(port.endpoint), "-N", "--isolation", "me", "example.com:80")
        code, out, err = await dial(short_path, *words, send=data)
        assert (code, err) == (0, "")
        assert out.encode() == data
        assert port.requests[-1].username == b"me"


async def test_dial_ends_with_the_far_end_even_if_the_input_does_not(short_path: Path) -> None:
    reply = b"\x05\x00\x00\x01" + bytes(6) + b"last words"
    async with SocksPort(refusing(reply)) as port:
        words = ("--proxy", str(port.endpoint), "example.com:80")
        assert await dial(short_path, *words, hold=True) == (0, "last words", "")


async def test_dial_uses_the_configured_listener(short_path: Path) -> None:
    async with SocksPort() as tor, running(short_path, *system_tor(tor)) as service:
        listener = ("--set", f"listener.0.address=127.0.0.1:{service.port()}")
        code, out, _ = await dial(short_path, *listener, "-N", "example.com:80", send=b"hello")
        assert (code, out) == (0, "hello")


async def test_dial_passes_over_listeners_that_would_mix_its_streams(short_path: Path) -> None:
    configuration = short_path / "isoproxy.toml"
    async with SocksPort() as mixing, SocksPort() as isolating:
        mixed = f'[[listener]]\naddress = "{mixing.endpoint}"\nisolate = ["ClientAddr"]\n'
        configuration.write_text(f'{mixed}[[listener]]\naddress = "{isolating.endpoint}"\n')
        words = ("-c", str(configuration), "-N", "example.com:80")
        assert (await dial(short_path, *words, send=b"hello")).out == "hello"
        assert (len(mixing.requests), len(isolating.requests)) == (0, 1)
        configuration.write_text(mixed)
        assert "SOCKSAuth" in (await dial(short_path, *words)).err
        assert not mixing.requests


@pytest.mark.parametrize(
    ("redirection", "told"),
    [
        ("<&-", ""),
        (
            "</dev/null >&-",
            "isoproxy: standard output is closed, so there is nowhere to write to\n",
        ),
        (
            "</dev/null >/dev/full",
            "isoproxy: standard output or the stream failed: No space left on device\n",
        ),
    ],
)
async def test_dial_without_an_end_of_its_own(
    short_path: Path, redirection: str, told: str
) -> None:
    async with SocksPort(refusing(b"\x05\x00\x00\x01" + bytes(6) + b"last words")) as port:
        words = f"{sys.executable} -m isoproxy dial --proxy {port.endpoint} example.com:80"
        process = await asyncio.create_subprocess_shell(
            f"{words} {redirection}",
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment(short_path),
        )
        async with asyncio.timeout(PATIENCE_S):
            _, err = await process.communicate()
    assert err.decode() == told
    assert process.returncode == bool(told)


async def test_dial_says_what_went_wrong(short_path: Path) -> None:
    async with SocksPort(refusing(b"\x05\x05\x00\x01" + bytes(6))) as port:
        code, out, err = await dial(short_path, "--proxy", str(port.endpoint), "example.com:80")
        assert (code, out, err) == (1, "", "isoproxy: The far end refused the connection.\n")
    assert (await dial(short_path, "--proxy", "127.0.0.1:1", "example.com:80")).code == 1
    assert (await dial(short_path, "example.com")).code == 2
    assert (await dial(short_path, "/ip4/192.0.2.1/udp/1")).code == 2
    unix = ("--set", "listener.0.address=unix:/run/nowhere")
    assert "--proxy" in (await dial(short_path, *unix, "example.com:80")).err


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["localhost:80"], "IP address"),
        (["none"], "local service"),
        (["unix:/run/web"], "--port"),
        (["127.0.0.1:80", "--port", "70000"], "65535"),
        (["127.0.0.1:80", "--client", "abc"], "x25519"),
        (["127.0.0.1:80", "--v2"], "known network"),
        (
            [
                *("127.0.0.1:80", "--v2", "--network", "signet-00000000"),
                *("--set", 'bitcoin.signet_challenges=["51"]'),
            ],
            "namecoin-testnet, signet-54d26fbd",
        ),
        (["127.0.0.1:80", "--network", "main"], "add --v2"),
        (["127.0.0.1:80", "--advertise-v2"], "add --v2"),
        (["127.0.0.1:80", "--set", "tor.mode=system", "--set", "tor.control=none"], "tor.control"),
    ],
)
def test_publications_that_cannot_be(
    words: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["publish", *words]) == 2
    assert problem in capsys.readouterr().err
