"""`isoproxy run` and `isoproxy check` as real processes."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import socket
import stat
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from isoproxy.config import load
from isoproxy.net.endpoint import Endpoint
from tests.kit.ports import free_port
from tests.kit.service import Service, command, connect, echoes, environment, running, system_tor
from tests.kit.socks_port import SocksPort
from tests.kit.waiting import until as wait_for
from tests.unit.namecoin.rpc.server import RpcServer, core_methods


async def test_it_announces_its_listeners_and_serves(tmp_path: Path) -> None:
    async with SocksPort() as tor, running(tmp_path, *system_tor(tor)) as service:
        port = service.port()
        assert service.listening == [
            f"listening socks 127.0.0.1:{port} isolate=ClientAddr,SOCKSAuth"
        ]
        assert await echoes(service)
        assert await service.stop() == 0
    asked = [request for request in tor.requests if request.host == b"example.com"]
    assert len(asked) == 1
    assert asked[0].username == b"<torS0X>0"


RUN_AND_ASK = """
import socket, sys
from isoproxy.cli import main
from isoproxy.daemon import Daemon
from isoproxy.errors import PolicyRefusal

async def ask(daemon):
    for look_up in (
        lambda: socket.getaddrinfo("name.test", 80),
        lambda: socket.gethostbyname("name.test"),
        lambda: socket.create_connection(("name.test", 80)),
    ):
        try:
            look_up()
        except PolicyRefusal:
            print("refused")
        except Exception as error:
            print("asked", error)

Daemon.run = ask
sys.exit(main(["run"]))
"""


async def test_the_systems_resolver_is_out_of_reach(tmp_path: Path) -> None:
    """Whatever code in the running service asks it, ours or a library's."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", RUN_AND_ASK),
        env=environment(tmp_path),
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await process.communicate()
    assert said.split() == [b"refused"] * 3


async def test_sigterm_waits_for_flows_but_not_for_ever(tmp_path: Path) -> None:
    settings = ["limits.drain_timeout_s=0.5"]
    async with SocksPort() as tor, running(tmp_path, *system_tor(tor, *settings)) as service:
        reader, writer = await connect(service.port())
        await reader.readexactly(10)
        service.process.send_signal(signal.SIGTERM)
        await service.logged("event=stopping flows=1")
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", service.port())
        writer.write(b"still there")
        assert await reader.readexactly(11) == b"still there"
        async with asyncio.timeout(10):
            assert await service.process.wait() == 0
        writer.close()


async def test_nothing_is_opened_again_while_flows_are_waited_for(tmp_path: Path) -> None:
    async with SocksPort() as tor:
        settings = system_tor(tor, "limits.drain_timeout_s=30")
        async with running(tmp_path, *settings) as service:
            reader, writer = await connect(service.port())
            await reader.readexactly(10)
            service.process.send_signal(signal.SIGTERM)
            await service.logged("event=stopping")
            late = await service.ask("reload", *settings)
            assert late.code == 1
            assert "starting or stopping" in late.err
            writer.close()
            async with asyncio.timeout(10):
                assert await service.process.wait() == 0
            assert service.text().count("event=listening") == 1


async def test_a_flow_that_ends_ends_the_drain(tmp_path: Path) -> None:
    settings = ["limits.drain_timeout_s=3600"]
    async with SocksPort() as tor, running(tmp_path, *system_tor(tor, *settings)) as service:
        reader, writer = await connect(service.port())
        await reader.readexactly(10)
        service.process.send_signal(signal.SIGTERM)
        await service.logged("event=stopping flows=1")
        writer.close()
        async with asyncio.timeout(10):
            assert await service.process.wait() == 0


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_second_signal_does_not_wait_for_the_streams(tmp_path: Path, workers: int) -> None:
    settings = ["limits.drain_timeout_s=3600"]
    async with (
        SocksPort() as tor,
        running(tmp_path, *system_tor(tor, *settings), workers=workers) as service,
    ):
        streams = [await connect(service.port()) for _ in range(8)]
        for reader, _ in streams:
            await reader.readexactly(10)
        service.process.send_signal(signal.SIGINT)
        await service.logged("event=stopping flows=8")
        service.process.send_signal(signal.SIGINT)
        async with asyncio.timeout(5):
            assert await service.process.wait() == 0
        for _, writer in streams:
            writer.close()


async def test_a_log_in_json_has_no_other_line(tmp_path: Path) -> None:
    async with SocksPort() as tor:
        settings = system_tor(tor, "observe.log_format=json")
        async with running(tmp_path, *settings, listeners=0) as service:
            await service.logged('"event": "tor_answers"')
            assert await service.stop() == 0
            assert service.process.stdout is not None
            assert await service.process.stdout.read() == b""
        lines = [json.loads(line) for line in service.text().splitlines()]
    assert {"listening", "stopping"} <= {line["event"] for line in lines}


async def test_standard_output_may_be_closed(tmp_path: Path) -> None:
    async with SocksPort() as tor:
        command = ["isoproxy", "run", "--set", "names.backend=none", *system_tor(tor)]
        with (tmp_path / "log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *("bash", "-c", 'exec "$0" -m "$@" >&-', sys.executable, *command),
                stderr=log,
                env=environment(tmp_path),
            )
        try:
            await wait_for(lambda: "event=tor_answers" in (tmp_path / "log").read_text())
            assert os.readlink(f"/proc/{process.pid}/fd/1") == os.devnull
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(20):
                assert await process.wait() == 0
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


async def test_sighup_changes_listeners_and_keeps_those_that_stay(tmp_path: Path) -> None:
    fixed, added = free_port(), free_port()
    file = tmp_path / "isoproxy.toml"
    async with SocksPort() as tor:
        head = f'[tor]\nmode="system"\nsocks="{tor.endpoint}"\ncontrol="none"\n'
        first = f'{head}[[listener]]\naddress="127.0.0.1:{fixed}"\n'
        file.write_text(first)
        async with running(tmp_path, "-c", str(file)) as service:
            reader, writer = await connect(fixed)
            await reader.readexactly(10)

            file.write_text(
                f'{first}require_auth=true\n[[listener]]\naddress="127.0.0.1:{added}"\n'
                'isolate=["DestAddr"]\n'
            )
            service.process.send_signal(signal.SIGHUP)
            assert await service.line() == f"listening socks 127.0.0.1:{added} isolate=DestAddr"
            await service.logged("event=reloaded changed=listener")
            writer.write(b"the old flow lives")
            assert await reader.readexactly(18) == b"the old flow lives"
            refused, closing = await asyncio.open_connection("127.0.0.1", fixed)
            closing.write(b"\x05\x01\x00")
            assert await refused.read(2) == b"\x05\xff"  # the new rule: credentials wanted
            closing.close()

            file.write_text(f"{first}nonsense = 1\n[tor]\n")
            service.process.send_signal(signal.SIGHUP)
            await service.logged("event=reload_refused")
            assert "isoproxy.toml:" in service.text()

            file.write_text(f'{head}[[listener]]\naddress="127.0.0.1:{added}"\n')
            service.process.send_signal(signal.SIGHUP)
            await until(lambda: _accepts(fixed), False)
            assert await _accepts(added)
            writer.write(b"and still does")
            assert await reader.readexactly(14) == b"and still does"
            writer.close()


async def test_a_reload_whose_address_is_taken_changes_nothing(tmp_path: Path) -> None:
    fixed = free_port()
    file = tmp_path / "isoproxy.toml"
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        head = '[tor]\nmode="system"\ncontrol="none"\n'
        file.write_text(f'{head}[[listener]]\naddress="127.0.0.1:{fixed}"\n')
        async with running(tmp_path, "-c", str(file)) as service:
            file.write_text(
                f'{head}[[listener]]\naddress="127.0.0.1:0"\n'
                f'[[listener]]\naddress="127.0.0.1:{taken}"\n'
            )
            answer = await service.ask("reload", "-c", str(file))
            assert answer.code == 1
            assert "cannot listen on" in answer.err
            assert await _accepts(fixed)


async def test_a_reload_is_whole_though_nobody_reads_what_it_prints(tmp_path: Path) -> None:
    """As after the end of a pipe's reader, or of a journal; else main process and workers would
    go on by different rules."""
    file = tmp_path / "isoproxy.toml"
    head = '[tor]\nmode="system"\ncontrol="none"\n[[listener]]\naddress="127.0.0.1:0"\n'
    file.write_text(head)
    async with running(tmp_path, "-c", str(file)) as service:
        transport = service.process._transport  # type: ignore[attr-defined]
        transport.get_pipe_transport(1).close()
        await asyncio.sleep(0.1)
        file.write_text(f'{head}isolate=["DestPort"]\n[[listener]]\naddress="[::1]:0"\n')
        answer = await service.ask("reload", "-c", str(file))
        assert (answer.code, answer.out) == (0, "changed: listener\n"), answer.err
        status = json.loads((await service.ask("status", "--json")).out)
        assert [one["isolate"] for one in status["listeners"]] == [
            ["DestPort"],
            ["ClientAddr", "SOCKSAuth"],
        ]
        told = json.loads((await service.ask("explain", "--json", "a", "b", "c.example:1")).out)
        assert "destination port" in told["separated_by"]


async def test_what_needs_a_restart_is_said(tmp_path: Path) -> None:
    file = tmp_path / "isoproxy.toml"
    head = '[[listener]]\naddress="127.0.0.1:0"\n[tor]\nmode="system"\ncontrol="none"\n'
    file.write_text(head)
    async with running(tmp_path, "-c", str(file), workers=None) as service:
        limits = "[limits]\nmax_connections=9000\nmax_pending_circuits=20\nworkers=1\n"
        file.write_text(f'{head}socks="127.0.0.1:9999"\n{limits}')
        answer = await service.ask("reload", "-c", str(file))
        later = "limits.workers, tor.socks"
        assert answer.out == (
            f"changed: limits.max_connections, limits.max_pending_circuits, {later}\n"
            f"takes effect after a restart: {later}\n"
        )
        assert "9999" not in service.text()


async def test_a_reload_of_what_may_be_shown_reaches_the_dns_server(tmp_path: Path) -> None:
    port, file = free_port(), tmp_path / "isoproxy.toml"
    methods = core_methods({b"d/plain": b'{"ip": "192.0.2.1"}'})
    async with SocksPort() as tor, RpcServer(methods).running() as core:
        text = (
            f'[tor]\nmode="system"\nsocks="{tor.endpoint}"\ncontrol="none"\n'
            f'[[listener]]\naddress="127.0.0.1:0"\n[dns]\naddress="127.0.0.1:{port}"\n[names]\n'
            f'rpc={{ address = "{core.endpoint}", username = "user", password = "pass" }}\n'
        )
        file.write_text(text)
        settings = ["-c", str(file), "--set", "names.backend=namecoin-core"]
        async with running(tmp_path, *settings, listeners=2) as service:
            lookup = ["dns", "lookup", "--server", f"127.0.0.1:{port}", "plain.bit"]
            assert "192.0.2.1" in (await service.ask(*lookup)).out
            file.write_text(f"{text}only_onion=true\n")
            assert "changed: names.only_onion" in (await service.ask("reload", *settings)).out
            assert "192.0.2.1" not in (await service.ask(*lookup)).out


async def test_a_reload_cannot_have_tor_merge_what_is_kept_apart(tmp_path: Path) -> None:
    """Whether Tor sees the applications' own credentials is settled at the start."""
    file = tmp_path / "isoproxy.toml"
    async with SocksPort() as tor:
        head = f'[tor]\nmode="system"\nsocks="{tor.endpoint}"\ncontrol="none"\n'
        listener = '[[listener]]\naddress="127.0.0.1:0"\nisolate=["SOCKSAuth"]\n'
        file.write_text(f'{head}credentials="verbatim"\n{listener}')
        async with running(tmp_path, "-c", str(file)) as service:
            assert await echoes(service, user=b"me")
            assert tor.requests[-1].username == b"me"
            file.write_text(f'{head}{listener}{listener}name="second"\n')
            answer = await service.ask("reload", "-c", str(file))
            assert answer.code == 1
            assert "tor.credentials: it stays what it was at the start" in answer.err
            file.write_text(head + listener)
            answer = await service.ask("reload", "-c", str(file))
            assert "after a restart: tor.credentials" in answer.out
            answer = await service.ask("newnym", "-c", str(file))
            assert answer.code == 1  # only Tor could renew them, and there is no control port


async def test_tor_that_is_away_is_reported_and_served_once_it_is_back(tmp_path: Path) -> None:
    path = tmp_path / "tor"
    away = SocksPort(endpoint=Endpoint.unix(str(path)))
    async with running(tmp_path, *system_tor(away)) as service:
        await service.logged("event=tor_does_not_answer")
        assert await echoes(service) is False
        async with SocksPort(path=path):
            await service.logged("event=tor_answers")
            assert await echoes(service)
        assert await echoes(service) is False


async def test_inherited_sockets_serve_their_listeners(tmp_path: Path) -> None:
    # the shell stands for the service manager: it alone knows the process id in time
    with socket.create_server(("127.0.0.1", 0)) as inherited:
        port = inherited.getsockname()[1]
        script = (
            f"exec 3<&{inherited.fileno()}; export LISTEN_PID=$$ LISTEN_FDS=1 "
            'LISTEN_FDNAMES=socks-default; exec "$0" "$@"'
        )
        async with SocksPort() as tor:
            process = await asyncio.create_subprocess_exec(
                *("bash", "-c", script, sys.executable, "-m", "isoproxy", "run"),
                *system_tor(tor, "listener.0.address=127.0.0.1:1"),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                env=environment(tmp_path),
                pass_fds=(inherited.fileno(),),
            )
            try:
                assert process.stdout is not None
                async with asyncio.timeout(20):
                    line = (await process.stdout.readline()).decode()
                assert f"127.0.0.1:{port} " in line
                assert await _accepts(port)
            finally:
                process.kill()
                await process.wait()


async def test_systemd_hears_ready_reloading_and_stopping(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(10)

        async def heard() -> str:
            return (await asyncio.to_thread(manager.recv, 1000)).decode()

        more = {"NOTIFY_SOCKET": str(tmp_path / "notify")}
        async with SocksPort() as tor, running(tmp_path, *system_tor(tor), more=more) as service:
            ready = await heard()
            assert ready.startswith("READY=1\nSTATUS=")
            assert "1 listeners" in await heard()
            service.process.send_signal(signal.SIGHUP)
            assert (await heard()).startswith("RELOADING=1\n")
            assert (await heard()).startswith("READY=1\n")
            service.process.send_signal(signal.SIGTERM)
            assert await heard() == "STOPPING=1"


async def test_the_order_to_stop_is_obeyed_while_tor_still_starts(tmp_path: Path) -> None:
    slow = tmp_path / "slow-tor"
    slow.write_text("#!/bin/sh\nexec sleep 600\n")
    slow.chmod(0o755)
    settings = ["--set", f"tor.binary={slow}", "--set", "listener.0.address=127.0.0.1:0"]
    async with running(tmp_path, *settings, listeners=0) as service:
        admin = tmp_path / "run" / "admin"

        async def is_up() -> bool:
            return admin.exists()

        await until(is_up, True)
        early = await service.ask("reload", *settings)
        assert early.code == 1
        assert "starting or stopping" in early.err
        assert await service.stop() == 0
        assert not admin.exists()


async def test_running_twice_is_refused(tmp_path: Path) -> None:
    async with SocksPort() as tor, running(tmp_path, *system_tor(tor)):
        second = await command(tmp_path, "run", *system_tor(tor))
        assert second.code == 1
        assert "another program listens there" in second.err


async def test_an_address_that_is_taken_ends_the_start(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = f"listener.0.address=127.0.0.1:{other.getsockname()[1]}"
        async with SocksPort() as tor:
            outcome = await command(tmp_path, "run", *system_tor(tor), "--set", taken)
    assert outcome.code == 1
    assert "Address already in use; stop the program" in outcome.err
    assert "Traceback" not in outcome.err


async def test_managed_tor_that_is_missing_is_a_configuration_error(tmp_path: Path) -> None:
    outcome = await command(tmp_path, "run", "--set", "tor.binary=/nonexistent/tor")
    assert outcome.code == 2
    assert "tor is not installed, or not where tor.binary says; install it" in outcome.err


async def test_idle_clients_leave_descriptors_for_the_rest(tmp_path: Path) -> None:
    """More clients than descriptors: the commands are answered, and admitted clients dial."""
    async with SocksPort() as tor:
        with (tmp_path / "log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *("bash", "-c", 'ulimit -Sn 200; ulimit -Hn 400; exec "$0" -m isoproxy run "$@"'),
                *(sys.executable, "--set", "names.backend=none"),
                *system_tor(tor, "limits.workers=1"),
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env=environment(tmp_path),
            )
        service = Service(tmp_path, process, log=tmp_path / "log")
        try:
            service.listening.append(await service.line())
            await service.logged("at most 88 are served; raise LimitNOFILE")
            clients = [
                await asyncio.open_connection("127.0.0.1", service.port()) for _ in range(450)
            ]
            status = json.loads((await service.ask("status", "--json")).out)
            assert status["counters"]["open"] == 88
            assert status["counters"]["out_of_descriptors"] == 0
            for _, writer in clients[:88]:
                writer.write(b"\x05\x01\x00\x05\x01\x00\x03\x04a.ex\x00\x50")
            for reader, _ in clients[:88]:
                async with asyncio.timeout(20):
                    assert (await reader.readexactly(12))[3] == 0
            assert (await service.ask("status", "--json")).code == 0
            for _, writer in clients:
                writer.close()
            assert await service.stop() == 0
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


async def test_descriptors_running_out_is_survived(tmp_path: Path) -> None:
    async with (
        SocksPort() as tor,
        running(tmp_path, *system_tor(tor)) as service,
    ):
        (worker,) = json.loads((await service.ask("status", "--json")).out)["workers"]
        limit = len(os.listdir(f"/proc/{worker['pid']}/fd")) + 6
        resource.prlimit(worker["pid"], resource.RLIMIT_NOFILE, (limit, limit))
        clients = [await asyncio.open_connection("127.0.0.1", service.port()) for _ in range(30)]
        await service.logged("event=out_of_descriptors")
        for _, writer in clients:
            writer.close()
        await until(lambda: echoes(service), True)


async def test_nothing_that_identifies_is_logged(tmp_path: Path) -> None:
    settings = ["observe.log_level=debug"]
    async with SocksPort() as tor, running(tmp_path, *system_tor(tor, *settings)) as service:
        assert await echoes(
            service, user=b"MARKEDuser", password=b"MARKEDpass", host=b"marked.example.com"
        )
        _, writer = await connect(service.port(), user=b"MARKEDuser", host=b"marked.bit")
        writer.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port())
        writer.write(b"GET http://marked.example.com/ HTTP/1.1\r\nHost: marked\r\n\r\n")
        await reader.read()
        writer.close()
        status = await service.ask("status", "--json")
        await service.stop()
        assert "marked" not in (service.text() + status.out + status.err).lower()


async def test_a_unix_listener_gets_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "socks"
    settings = [f"listener.0.address=unix:{path}", "listener.0.mode=0606"]
    async with SocksPort() as tor, running(tmp_path, *system_tor(tor, *settings)) as service:
        assert service.listening == [f"listening socks unix:{path} isolate=ClientAddr,SOCKSAuth"]
        assert stat.S_IMODE(path.stat().st_mode) == 0o606
        assert await service.stop() == 0, service.text()
        assert not path.exists(), service.text()


async def test_check(tmp_path: Path) -> None:
    good = tmp_path / "good.toml"
    good.write_text("[observe]\nsafe_logging = false\n")
    outcome = await command(tmp_path, "check", "-c", str(good))
    assert (outcome.code, outcome.out) == (0, f"the configuration is valid ({good})\n")
    assert f"{good}:2: observe.safe_logging: names and targets will be in the log" in outcome.err

    bad = tmp_path / "bad.toml"
    bad.write_text("[tor]\nsock = 1\nmode = 2\n")
    outcome = await command(tmp_path, "check", "-c", str(bad))
    assert outcome.code == 2
    assert outcome.err.splitlines() == [
        f'isoproxy: {bad}:2: unknown key "tor.sock" (did you mean tor.socks?)',
        f'isoproxy: {bad}:3: tor.mode: expected one of "managed", "system", "arti"',
    ]


async def test_the_sample_is_printed_and_valid(tmp_path: Path) -> None:
    outcome = await command(tmp_path, "check", "--sample")
    file = tmp_path / "sample.toml"
    file.write_text(outcome.out)
    assert load(file).warnings == ()

    changed = await command(tmp_path, "check", "--sample", "--set", "tor.mode=system")
    assert changed.out == outcome.out.replace('#mode = "managed"', 'mode = "system"')


async def test_usage_errors_end_with_2(tmp_path: Path) -> None:
    for arguments in ([], ["nonsense"], ["run", "--nonsense"], ["explain"]):
        assert (await command(tmp_path, *arguments)).code == 2


async def until(question: Callable[[], Awaitable[bool]], answer: bool) -> None:
    """Ask until the answer is `answer`."""
    async with asyncio.timeout(20):
        while True:
            if await question() is answer:
                return
            await asyncio.sleep(0.05)


async def _accepts(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True
