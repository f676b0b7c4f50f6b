"""Whether Tor answers, as the daemon and the doctor ask it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from isoproxy.config import load
from isoproxy.daemon.compose import upstream
from isoproxy.daemon.compose.upstream import Upstream, probe_socks
from isoproxy.net.endpoint import Endpoint
from tests.kit.socks_port import SocksPort


async def test_a_socks_port_answers_on_tcp_and_unix(tmp_path: Path) -> None:
    async with SocksPort() as tcp, SocksPort(path=tmp_path / "s") as unix:
        assert await probe_socks(tcp.endpoint)
        assert await probe_socks(unix.endpoint)
    assert not await probe_socks(tcp.endpoint)
    assert not await probe_socks(Endpoint.unix("/nonexistent"))
    assert tcp.requests == []


@pytest.mark.parametrize("answer", [b"", b"\x05\xff", b"HTTP/1.0 400\r\n", b"\x05"])
async def test_what_does_not_speak_as_tor_does_not_answer(tmp_path: Path, answer: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(3)
        writer.write(answer)
        writer.close()

    server = await asyncio.start_unix_server(serve, tmp_path / "s")
    assert not await probe_socks(Endpoint.unix(str(tmp_path / "s")))
    server.close()


async def test_silence_has_a_deadline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream, "PROBE_S", 0.05)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_unix_server(serve, tmp_path / "s")
    assert not await probe_socks(Endpoint.unix(str(tmp_path / "s")))
    await asyncio.sleep(0.05)
    server.close()


async def test_a_managed_tor_does_not_answer_before_it_is_ready(tmp_path: Path) -> None:
    tor = Upstream(load(None).config.tor, tmp_path)
    assert tor.socks == Endpoint.unix(str(tmp_path / "socks"))
    assert not await tor.answers()
    assert tor.describe() == "stopped"


async def test_a_control_port_that_is_away_is_described(tmp_path: Path) -> None:
    config = load(None, ["tor.mode=system", f"tor.control=unix:{tmp_path}/c"]).config
    tor = Upstream(config.tor, tmp_path)
    await tor.start()
    await asyncio.sleep(0.05)
    assert tor.describe().startswith("control port ")
    await tor.stop()


async def test_the_end_of_the_control_port_is_told_at_once(tmp_path: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.close()

    server = await asyncio.start_unix_server(serve, tmp_path / "c")
    config = load(None, ["tor.mode=system", f"tor.control=unix:{tmp_path}/c"]).config
    tor = Upstream(config.tor, tmp_path)
    changed = asyncio.Event()
    tor.on_change(changed.set)
    await tor.start()
    async with asyncio.timeout(5):
        await changed.wait()
    await tor.stop()
    server.close()
