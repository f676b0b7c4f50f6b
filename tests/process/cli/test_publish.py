"""`isoproxy publish` and `isoproxy dial` against stand-ins for Tor."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import pytest

from isoproxy.cli import main
from tests.kit.service import dial, environment, running, system_tor
from tests.kit.socks_port import SocksPort, refusing

TIMEOUT_S = 90.0


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
        async with asyncio.timeout(TIMEOUT_S):
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
        async with asyncio.timeout(TIMEOUT_S):
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
