"""Whether Tor's ports can be used, and the words for each way in which they cannot."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from isoproxy.doctor import reach
from isoproxy.doctor.finding import Finding, Verdict
from isoproxy.net.endpoint import Endpoint
from tests.unit.tor.scripted import ScriptedTor


def endpoint(path: Path) -> Endpoint:
    return Endpoint.unix(str(path))


async def examined(place: Endpoint, password: str | None = None) -> Finding:
    async with reach.control_port(place, password) as (control, finding):
        assert (control is None) == (finding.verdict is not Verdict.OK)
        return finding


@contextlib.asynccontextmanager
async def answering(path: Path, answer: bytes) -> AsyncIterator[Endpoint]:
    """A server that says `answer` to whatever it hears first."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(64)
        writer.write(answer)
        writer.close()

    async with await asyncio.start_unix_server(serve, path):
        yield endpoint(path)


@contextlib.contextmanager
def forbidden(path: Path) -> Iterator[None]:
    """As a user who may not use the socket at `path`."""
    path.chmod(0)
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)


async def test_a_socks_port(tmp_path: Path) -> None:
    async with answering(tmp_path / "tor", b"\5\2") as place:
        assert (await reach.socks_port(place)).verdict is Verdict.OK


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\5\0", b"\5\xff", b""])
async def test_something_else_than_a_socks_port(tmp_path: Path, answer: bytes) -> None:
    async with answering(tmp_path / "other", answer) as place:
        finding = await reach.socks_port(place)
    assert finding.verdict is Verdict.FAILED
    assert finding.advice == "correct tor.socks, or free the address for Tor"


async def test_nothing_at_the_socks_port(tmp_path: Path) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        for place in (endpoint(tmp_path / "absent"), Endpoint.tcp(*reserved.getsockname())):
            finding = await reach.socks_port(place)
            assert finding.verdict is Verdict.FAILED
            assert finding.advice == "start Tor, or correct tor.socks"


async def test_no_control_port_is_wanted() -> None:
    finding = await examined(Endpoint.parse("none"))
    assert finding.verdict is Verdict.UNPROVEN
    assert "tor.control" in finding.advice


async def test_a_control_port(tmp_path: Path) -> None:
    async with ScriptedTor(tmp_path / "c") as tor:
        assert (await examined(endpoint(tor.path))).verdict is Verdict.OK


async def test_nothing_at_the_control_port(tmp_path: Path) -> None:
    finding = await examined(endpoint(tmp_path / "absent"))
    assert finding.verdict is Verdict.FAILED
    assert (finding.found, finding.advice) == (
        "nothing listens there",
        "start Tor, or correct tor.control",
    )


async def test_a_control_port_that_is_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reach, "_CONNECT_S", 0.2)
    async with ScriptedTor(tmp_path / "c", {"PROTOCOLINFO 1": b""}) as tor:
        finding = await examined(endpoint(tor.path))
    assert finding.verdict is Verdict.FAILED
    assert finding.found == "no answer"


async def test_another_program_at_the_control_port(tmp_path: Path) -> None:
    async with answering(tmp_path / "other", b"HTTP/1.1 400 Bad Request\r\n\r\n") as place:
        finding = await examined(place)
    assert finding.verdict is Verdict.FAILED
    assert finding.advice == "correct tor.control"


async def test_sockets_that_this_user_may_not_use(tmp_path: Path) -> None:
    async with ScriptedTor(tmp_path / "c") as tor:
        with forbidden(tor.path):
            findings = [
                await reach.socks_port(endpoint(tor.path)),
                await examined(endpoint(tor.path)),
            ]
    for finding in findings:
        assert finding.verdict is Verdict.FAILED
        assert "may not use" in finding.found
        assert finding.advice.startswith("adduser ")
        assert "debian-tor" in finding.advice
