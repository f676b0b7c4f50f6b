"""A managed Arti in virtual time, with a scripted child."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from isoproxy.errors import ConfigError
from isoproxy.tor.arti.process import ManagedArti
from isoproxy.tor.managed.program import START_S
from tests.kit.scripted_tor import ScriptedChild

REFUSAL = b"arti: error: cannot use what it was given\n"


class Program:
    """An arti that tells its version and, started, refuses."""

    def __init__(self, version: bytes = b"arti 2.7.0\n", *, refuses: bool = True) -> None:
        self.version = version
        self.refuses = refuses
        self.started: list[Sequence[str]] = []
        self.environment: Mapping[str, str] = {}

    async def spawn(
        self, arguments: Sequence[str], environment: Mapping[str, str]
    ) -> ScriptedChild:
        if "--version" in arguments:
            return ScriptedChild(self.version, 0)
        self.started.append(arguments)
        self.environment = environment
        return ScriptedChild(REFUSAL, 1) if self.refuses else ScriptedChild()


@pytest.mark.virtual_clock
async def test_what_arti_refuses_is_said_in_its_words(tmp_path: Path) -> None:
    program = Program()
    arti = ManagedArti(tmp_path, spawn=program.spawn)
    with pytest.raises(ConfigError, match="refuses to start: cannot use what it was given"):
        await arti.start()
    assert str(arti.state) == "stopped"
    assert arti.version == "2.7.0"


@pytest.mark.virtual_clock
async def test_it_ends_with_us_and_has_its_own_configuration(tmp_path: Path) -> None:
    program = Program()
    arti = ManagedArti(tmp_path, spawn=program.spawn, extra=["a.b = 1"])
    with pytest.raises(ConfigError):
        await arti.start()
    assert list(program.started[0]) == [
        *("setpriv", "--pdeathsig", "TERM", "--"),
        *("arti", "proxy", "-c", str(tmp_path / "arti.toml")),
    ]
    assert set(program.environment) == {"PATH", "HOME", "LC_ALL", "NO_COLOR"}
    assert "\na.b = 1\n" in (tmp_path / "arti.toml").read_text()
    assert (tmp_path / "arti.toml").stat().st_mode & 0o777 == 0o600


@pytest.mark.virtual_clock
async def test_an_arti_without_rpc_is_said_to_be_one(tmp_path: Path) -> None:
    program = Program(refuses=False)
    async with asyncio.timeout(2 * START_S):
        with pytest.raises(ConfigError, match="feature rpc"):
            await ManagedArti(tmp_path, spawn=program.spawn).start()
    assert len(program.started) == 1


@pytest.mark.virtual_clock
async def test_a_bridge_is_not_repeated(tmp_path: Path) -> None:
    program = Program()
    bridges = 'bridges.bridges = "192.0.2.1:443 0123"'
    arti = ManagedArti(tmp_path, spawn=program.spawn, extra=[bridges])
    arti._read.feed(b"arti: error: no bridge at 192.0.2.1:443\n")
    assert list(arti._read.problems) == ["no bridge at [scrubbed]"]


async def test_what_is_no_arti_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not tell its version"):
        await ManagedArti(tmp_path, spawn=Program(b"Tor version 0.4.9\n").spawn).start()


async def test_while_it_does_not_answer_there_is_nowhere_to_dial(tmp_path: Path) -> None:
    assert ManagedArti(tmp_path).socks.is_none
