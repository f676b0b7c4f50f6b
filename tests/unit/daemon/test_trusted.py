"""Whose client keys are whose, in which order who is told, and what is on the disk."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from isoproxy.daemon.trusted import TrustedServices
from isoproxy.errors import OperationError
from isoproxy.tor.client_keys import read_client_key
from tests.unit.tor.scripted import ScriptedTor
from tests.unit.tor.test_client_keys import ADD, KEY, REMOVE, SERVICE
from tests.unit.tor.test_onion import control_to

CLIENT_KEY = read_client_key(f"{SERVICE}.onion", KEY)


class Told:
    """What Tor had been told each time when the stream processes were."""

    def __init__(self, tor: ScriptedTor) -> None:
        self._tor = tor
        self.times: list[bool] = []

    async def __call__(self) -> None:
        commands = self._tor.commands
        self.times.append(commands.count(ADD) > commands.count(REMOVE))


async def test_other_listeners_are_refused_before_tor_has_the_key_and_until_it_has_not(
    tmp_path: Path,
) -> None:
    directory = tmp_path / "keys"
    async with ScriptedTor(tmp_path / "c") as tor, control_to(tor) as control:
        await control.wait_ready()
        trusted, told = TrustedServices(control, directory), Told(tor)
        await trusted.trust(CLIENT_KEY, "alice", told)
        assert trusted.listeners == {SERVICE: "alice"}
        assert (told.times, tor.commands[-1]) == ([False], ADD)
        (file,) = directory.glob("*/*")
        assert file == directory / "alice" / f"{SERVICE}.auth_private"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert all(stat.S_IMODE(d.stat().st_mode) == 0o700 for d in (directory, file.parent))
        with pytest.raises(OperationError, match="listener alice"):
            await trusted.trust(CLIENT_KEY, "bob", told)
        again = TrustedServices(control, directory)
        assert again.listeners == {SERVICE: "alice"}
        await again.close()
        await trusted.distrust(SERVICE, told)
        assert (told.times, tor.commands[-1]) == ([False, False], REMOVE)
        assert trusted.listeners == {}
        assert not list(directory.glob("*/*"))
        with pytest.raises(OperationError, match="no client key"):
            await trusted.distrust(SERVICE, told)
        await trusted.close()


async def test_a_key_that_tor_refuses_leaves_nothing_behind(tmp_path: Path) -> None:
    answers = {ADD: b"510 Command filtered\r\n"}
    async with ScriptedTor(tmp_path / "c", answers) as tor, control_to(tor) as control:
        await control.wait_ready()
        trusted, told = TrustedServices(control, tmp_path / "keys"), Told(tor)
        with pytest.raises(OperationError, match="refused"):
            await trusted.trust(CLIENT_KEY, "alice", told)
        assert trusted.listeners == {}
        assert not list((tmp_path / "keys").glob("*/*"))
        assert len(told.times) == 2
        await trusted.close()


async def test_a_file_that_cannot_be_read_is_passed_over_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "keys" / "alice").mkdir(parents=True)
    (tmp_path / "keys" / "alice" / f"{SERVICE}.auth_private").write_text("nothing")
    async with ScriptedTor(tmp_path / "c") as tor, control_to(tor) as control:
        trusted = TrustedServices(control, tmp_path / "keys")
        assert trusted.listeners == {}
        await trusted.close()
    assert "client_key_unreadable" in caplog.text
    assert SERVICE not in caplog.text
