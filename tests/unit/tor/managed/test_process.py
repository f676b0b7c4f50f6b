"""What is particular to a managed tor: its torrc, its version, its control port."""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path

import pytest

from isoproxy.errors import ConfigError
from isoproxy.tor.managed.process import ManagedTor
from isoproxy.tor.managed.program import Stage
from tests.kit.scripted_tor import ScriptedChild, managed


@pytest.mark.virtual_clock
async def test_a_tor_that_lacks_an_isolation_flag_is_not_used(tmp_path: Path) -> None:
    output = b"Nov 21 02:08:49.368 [warn] Unrecognized SocksPort option '\"ExtendedErrors\"'\n"
    child = ScriptedChild(output)
    tor, _, _ = managed(tmp_path, child)
    with pytest.raises(ConfigError, match="isolation flags"):
        await tor.start()
    assert child.signals == ["TERM"]
    assert tor.state.stage is Stage.STOPPED


@pytest.mark.virtual_clock
async def test_a_refused_configuration_ends_the_start(tmp_path: Path) -> None:
    output = (
        b"Nov 21 02:08:49.355 [warn] Failed to parse/validate config: Unknown option 'Foo'.\n"
        b"Nov 21 02:08:49.355 [err] Reading config failed--see warnings above.\n"
    )
    tor, _, _ = managed(tmp_path, ScriptedChild(output, 1))
    with pytest.raises(ConfigError, match="Unknown option 'Foo'"):
        await tor.start()


@pytest.mark.virtual_clock
async def test_tor_gets_its_own_torrc_and_a_clean_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/systemd/notify")
    monkeypatch.setenv("LD_PRELOAD", "")
    tor, _, program = managed(tmp_path)
    await tor.start()
    arguments = program.arguments[-1]
    assert arguments[:3] == ["tor", "-f", str(tmp_path / "torrc")]
    assert arguments[3:5] == ["--defaults-torrc", "/dev/null"]
    assert arguments[5:] == ["__OwningControllerProcess", str(os.getpid())]
    assert set(program.environment) == {"PATH", "HOME", "LC_ALL"}
    assert stat.S_IMODE((tmp_path / "torrc").stat().st_mode) == 0o600
    assert tor.version == (0, 4, 9, 11)
    await tor.stop()


@pytest.mark.virtual_clock
async def test_a_tor_that_was_upgraded_is_told_what_the_old_one_did_not_know(
    tmp_path: Path,
) -> None:
    tor, _, program = managed(tmp_path)
    program.version = b"0.4.7.16"
    await tor.start()
    assert "ConfluxEnabled" not in (tmp_path / "torrc").read_text()
    program.version = b"0.4.9.11"
    program.children[-1].end(0)
    await asyncio.sleep(1.5)
    assert len(program.children) == 2
    assert "\nConfluxEnabled 0\n" in (tmp_path / "torrc").read_text()
    assert tor.version == (0, 4, 9, 11)
    await tor.stop()


@pytest.mark.virtual_clock
async def test_a_tor_that_became_too_old_is_not_started_until_it_is_upgraded(
    tmp_path: Path,
) -> None:
    tor, _, program = managed(tmp_path)
    await tor.start()
    program.version = b"0.4.5.1"
    program.children[-1].end(0)
    await asyncio.sleep(2)
    assert "too old" in (tor.state.problem or "")
    assert len(program.children) == 1
    program.version = b"0.4.8.1"
    await asyncio.sleep(3)
    assert len(program.children) == 2
    assert str(tor.state) == "bootstrapping 0%"
    await tor.stop()


def test_a_path_too_long_for_a_socket_is_refused() -> None:
    with pytest.raises(ConfigError, match="shorter directory"):
        ManagedTor(Path("/" + "d" * 100))
