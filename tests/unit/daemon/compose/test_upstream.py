"""Whether Tor answers, as the daemon and the doctor ask it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from isoproxy.config import load
from isoproxy.daemon.compose import upstream
from isoproxy.daemon.compose.upstream import CIRCUITS_S, Upstream, probe_socks
from isoproxy.errors import OperationError
from isoproxy.net.endpoint import Endpoint
from isoproxy.tor.control.connection import Control, ControlState, Phase
from isoproxy.tor.control.events import Circuit
from tests.kit.arti_rpc import honest, serving
from tests.kit.socks_port import SocksPort
from tests.kit.waiting import until


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


async def test_an_arti_of_our_own_leads_nowhere_before_it_answers(tmp_path: Path) -> None:
    tor = Upstream(load(None, ["tor.mode=arti"]).config.tor, tmp_path / "tor")
    assert tor.socks.is_none
    assert not await tor.answers()
    assert tor.view(answers=False).control == "off"
    assert tor.describe() == "stopped"


async def test_a_running_arti_tells_where_it_listens(tmp_path: Path) -> None:
    async with serving(tmp_path, honest) as arti:
        config = load(None, ["tor.mode=arti", f"tor.arti_rpc={arti.endpoint}"]).config
        tor = Upstream(config.tor, tmp_path)
        assert tor.describe() == "its RPC port does not answer"
        percents: list[int] = []
        tor.on_progress(lambda bootstrap: percents.append(bootstrap.percent))
        await tor.start()
        await until(lambda: percents)
        assert tor.socks == Endpoint.tcp("127.0.0.1", 40123)
        assert (tor.describe(), percents) == ("ready", [100])
        await tor.stop()
        assert tor.socks.is_none


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


class ScriptedControl(Control):
    """A control connection whose Tor has `listed` circuits, or does not tell."""

    def __init__(self, listed: list[Circuit] | None, phase: Phase = Phase.READY) -> None:
        super().__init__(Endpoint.parse("none"))
        self.listed, self.phase = listed, phase

    def of(self, directory: Path) -> Upstream:
        tor = Upstream(load(None, ["tor.mode=system"]).config.tor, directory)
        tor.control = self
        return tor

    @property
    def state(self) -> ControlState:
        return ControlState(self.phase)

    async def refresh_circuits(self) -> tuple[Circuit, ...]:
        if self.listed is None:
            raise OperationError("a filter in front of it")
        return tuple(self.listed)


async def test_circuits_are_told_by_a_control_port_that_is_ready_and_tells(tmp_path: Path) -> None:
    listed = [Circuit("3", "BUILT")]
    assert await ScriptedControl(listed).of(tmp_path).circuits() == tuple(listed)
    assert await ScriptedControl(listed, Phase.CONNECTING).of(tmp_path).circuits() == ()
    assert await ScriptedControl(None).of(tmp_path).circuits() == ()


class SlowControl(ScriptedControl):
    """Its Tor is frozen, and has told of `listed` by events."""

    def circuits(self) -> tuple[Circuit, ...]:
        return tuple(self.listed or ())

    async def refresh_circuits(self) -> tuple[Circuit, ...]:
        await asyncio.sleep(3600)
        raise AssertionError


@pytest.mark.virtual_clock
async def test_a_slow_tor_does_not_hold_up_the_status(tmp_path: Path) -> None:
    async with asyncio.timeout(CIRCUITS_S + 1):
        circuits = await SlowControl([Circuit("3", "BUILT")]).of(tmp_path).circuits()
    assert circuits == (Circuit("3", "BUILT"),)


def test_a_view_of_tor_is_what_it_is_now(tmp_path: Path) -> None:
    view = ScriptedControl([], Phase.READY).of(tmp_path).view(answers=True)
    assert (view.mode, view.answers, view.control, view.control_ready) == (
        "system",
        True,
        Phase.READY.value,
        True,
    )
    assert not ScriptedControl([], Phase.CONNECTING).of(tmp_path).view(answers=False).control_ready
