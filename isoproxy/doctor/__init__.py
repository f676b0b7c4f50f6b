"""`isoproxy doctor`: is this set-up sound, and is isolation real?

Each check gives one `Finding`: what was looked at, what was found, and when something is
wrong the one thing to do.  What cannot be proven is said to be unproven, never passed.

    environment.py   ports, permissions, passwords, the running process's sockets
    reach.py         whether Tor's two ports can be used, and what is in the way
    tor.py           Tor's version, start, clock, circuits, through its control port
    names.py         whether names can be resolved
    arti.py          the same of an Arti, through its RPC port
    isolation.py     streams of an independent client, and what circuits they got
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final

from isoproxy.admin.client import NotRunning, ask
from isoproxy.config import Config, Loaded, admin_address, state_directory
from isoproxy.config.paths import start_command
from isoproxy.doctor import environment, isolation, reach
from isoproxy.doctor import tor as tor_checks
from isoproxy.doctor.arti import UNPROVABLE, examine_arti
from isoproxy.doctor.finding import Finding, Verdict, failed, ok, unproven, warning
from isoproxy.doctor.names import examine_names
from isoproxy.errors import OperationError
from isoproxy.net.endpoint import Endpoint
from isoproxy.net.target import Target
from isoproxy.tor.control.connection import Control
from isoproxy.tor.managed.torrc import socket_in

__all__ = ["Finding", "Verdict", "examine"]

_RUNS: Final = "isoproxy"
_RUNS_NOT: Final = failed(_RUNS, "it does not run, or not for this user", start_command())


async def examine(
    loaded: Loaded, target: Target, *, timeout_s: float = isolation.TIMEOUT_S
) -> AsyncIterator[Finding]:
    """All checks, one after the other; `target` is what the probe's streams go to."""
    config = loaded.config
    asked = await _ask_status(config)
    answer = None if isinstance(asked, Finding) else asked
    state = _state_directory(answer)
    for finding in _machine(loaded, state, running=answer is not None):
        yield finding
    if asked is _RUNS_NOT:
        for finding in environment.ports(config):
            yield finding
    if _has_own_tor(config) and isinstance(asked, Finding):
        yield unproven("Tor", "isoproxy's own is known to a running isoproxy alone", asked.advice)
        async for finding in examine_names(config.names, None):
            yield finding
        yield asked
        return
    if config.tor.mode == "arti":
        async for finding in _with_arti(loaded, target, asked, state, timeout_s):
            yield finding
        return
    socks, control_at = _tor_of(config, state)
    yield await reach.socks_port(socks)
    async with reach.control_port(control_at, config.tor.control_password) as (control, access):
        yield access
        yield tor_checks.version(None if control is None else control.version)
        advised = None if answer is None else answer["tor"].get("advice")
        yield await tor_checks.bootstrap(control, await _complaint_of_tor(config), advised)
        yield await tor_checks.clock(control)
        yield await _new_identity(config, control, running=answer is not None)
        async for finding in examine_names(config.names, answer and answer["names"]):
            yield finding
        works: bool | None = None
        if isinstance(asked, Finding):
            yield asked
        else:
            for finding in _process(asked, socks, config.dns.address):
                yield finding
            findings, works = await _prove(asked, target, control, timeout_s)
            for finding in findings:
                yield finding
        yield await tor_checks.attachment(control, streams_work=works)


async def _new_identity(config: Config, control: Control | None, *, running: bool) -> Finding:
    async def heard() -> int:
        answer = await asyncio.to_thread(ask, admin_address(config), "status", timeout_s=5.0)
        return int(answer["tor"]["signals"])

    return await tor_checks.new_identity(control, heard if running else None)


def _has_own_tor(config: Config) -> bool:
    tor = config.tor
    return tor.mode == "managed" or (tor.mode == "arti" and tor.arti_rpc is None)


async def _with_arti(
    loaded: Loaded, target: Target, asked: dict[str, Any] | Finding, state: Path, timeout_s: float
) -> AsyncIterator[Finding]:
    """What can be looked at where Arti takes the place of tor."""
    config = loaded.config
    async for finding in examine_arti(_rpc_of(config, state)):
        yield finding
    answer = None if isinstance(asked, Finding) else asked
    async for finding in examine_names(config.names, answer and answer["names"]):
        yield finding
    if isinstance(asked, Finding):
        yield asked
        return
    for finding in _process(asked, Endpoint(), config.dns.address):
        yield finding
    findings, _ = await _prove(asked, target, None, timeout_s, advice=UNPROVABLE)
    for finding in findings:
        yield finding


def _state_directory(answer: dict[str, Any] | None) -> Path:
    """Where the running isoproxy keeps its state, or where this user's would."""
    if answer is not None:
        with contextlib.suppress(OSError):
            return state_directory(environment.environment_of(int(answer["pid"])))
    return state_directory()


def _machine(loaded: Loaded, state: Path, *, running: bool) -> Iterator[Finding]:
    """The configuration, and what it finds on this machine."""
    for text in loaded.warnings:
        yield warning("configuration", text, "change this setting, unless it is meant")
    if not loaded.warnings:
        yield ok("configuration", "valid")
    config = loaded.config
    admin = admin_address(config)
    yield from environment.permissions(config, state, admin, running=running)
    yield from environment.secrets(loaded.files)


def _rpc_of(config: Config, state: Path) -> Endpoint:
    """Arti's RPC socket."""
    return config.tor.arti_rpc or socket_in(state.absolute() / "arti", "rpc")


def _tor_of(config: Config, state: Path) -> tuple[Endpoint, Endpoint]:
    """Tor's SocksPort and ControlPort."""
    if config.tor.mode == "system":
        return config.tor.socks, config.tor.control
    directory = state.absolute() / "tor"
    return socket_in(directory, "socks"), socket_in(directory, "control")


async def _ask_status(config: Config) -> dict[str, Any] | Finding:
    """The running isoproxy's status, or why there is none."""
    try:
        return await asyncio.to_thread(ask, admin_address(config), "status", timeout_s=5.0)
    except NotRunning:
        return _RUNS_NOT
    except OperationError as error:  # one may run all the same, as another user
        return failed(_RUNS, "it cannot be asked", str(error))


async def _complaint_of_tor(config: Config) -> str | None:
    """The last warning of a tor of our own, that a running isoproxy has."""
    if not _has_own_tor(config):
        return None
    with contextlib.suppress(OperationError):
        answer = await asyncio.to_thread(ask, admin_address(config), "tor_log", timeout_s=5.0)
        return None if answer["complaint"] is None else str(answer["complaint"])
    return None


def _process(answer: dict[str, Any], socks: Endpoint, dns: Endpoint | None) -> list[Finding]:
    """What the running isoproxy says of itself, and the kernel of it."""
    refused = int(answer["counters"]["local_lookups_refused"])
    tor = None if socks.host is None else (socks.host, socks.port)
    return [
        ok(_RUNS, f"it runs, version {answer['version']}"),
        ok("names in isoproxy", "the local resolver was never asked")
        if refused == 0
        else failed(
            "names in isoproxy",
            f"{refused} look-ups by the local resolver were attempted and stopped",
            "report this defect",
        ),
        environment.without_credentials(
            int(answer["counters"]["destinations_without_credentials"])
        ),
        environment.connections(processes_of(answer), tor, dns),
    ]


def processes_of(status: dict[str, Any]) -> list[int]:
    """The process IDs of a running isoproxy: of the one that answers, and of its workers."""
    workers = [worker["pid"] for worker in status["workers"]]
    return [int(pid) for pid in (status["pid"], *workers) if pid is not None]


async def _prove(
    answer: dict[str, Any],
    target: Target,
    control: Control | None,
    timeout_s: float,
    advice: str = isolation.NEED_CONTROL,
) -> tuple[list[Finding], bool | None]:
    """The proof, through a listener that is to keep user names apart, or else through any."""
    reachable = [
        ("SOCKSAuth" not in listener["isolate"], address)
        for listener in answer["listeners"]
        if not (address := Endpoint.parse_listening(listener["address"])).is_unix
    ]
    if not reachable:
        return [
            unproven(
                isolation.CHECK,
                "PySocks cannot use unix sockets",
                "add a listener on 127.0.0.1 for the doctor",
            )
        ], None
    _, address = min(reachable, key=lambda one: one[0])
    return await isolation.prove(address, target, control, advice=advice, timeout_s=timeout_s)
