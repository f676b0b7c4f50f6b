"""The daemon with a tor of its own, on the private network; and what a refused reload leaves."""

from __future__ import annotations

import io
import json
import socket
from pathlib import Path

import pytest

from isoproxy.config import load
from isoproxy.daemon import Daemon
from isoproxy.errors import OperationError
from isoproxy.net.resolver_guard import ResolverGuard
from tests.kit.service import Service, connect, running
from tests.kit.tornet import TorNetwork


async def _opens(service: Service, host: bytes, port: int) -> bool:
    reader, writer = await connect(service.port(), host=host, dest=port)
    try:
        return (await reader.readexactly(10))[1] == 0
    finally:
        writer.close()


def _children(pid: int) -> list[int]:
    """The processes that `pid` started and that still run."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in threads for child in (task / "children").read_text().split()]


def _runs(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


async def test_managed_tor_bootstraps_serves_and_is_gone_at_the_end(
    tmp_path: Path, tor_network: TorNetwork
) -> None:
    lines = json.dumps(tor_network.joining_lines)
    arguments = [
        *("--set", "listener.0.address=127.0.0.1:0"),
        *("--set", f"tor.extra_torrc={lines}"),
    ]
    with socket.create_server((tor_network.server_ip, 0)) as server:
        async with running(tmp_path, *arguments) as service:
            await service.logged("tor: 100% Done")
            await service.logged("event=tor_answers")
            assert await _opens(service, b"web.test", server.getsockname()[1])
            status = json.loads((await service.ask("status", "--json")).out)
            assert (status["tor"]["mode"], status["tor"]["state"]) == ("managed", "ready")
            assert status["tor"]["control"] == "ready"
            doctor = await service.ask(
                "doctor", "--target", f"web.test:{server.getsockname()[1]}", "--json"
            )
            assert doctor.code == 0, doctor.out
            tors = _children(service.process.pid)
            assert tors
            assert await service.stop() == 0
            assert not any(map(_runs, tors))
    assert "web.test" not in service.text()


async def test_a_refused_reload_leaves_nothing_of_its_name_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))
    settings = ["tor.mode=system", "tor.control=none", "listener=[]", "dns.address=127.0.0.1:0"]
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = f"listener.0.address=127.0.0.1:{other.getsockname()[1]}"
        out = io.StringIO()
        daemon = Daemon(
            load(None, settings),
            lambda: load(None, [*settings, taken, "names.only_onion=true"]),
            guard=ResolverGuard(),
            out=out,
            progress=out,
        )
        daemon._ready.set()
        followers = len(daemon.isolator._followers)
        with pytest.raises(OperationError, match="cannot listen"):
            await daemon.reload()
        assert len(daemon.isolator._followers) == followers
        daemon._stop.set()
        await daemon.run()
