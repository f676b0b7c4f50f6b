"""What the doctor says of names, for each way in which they are not ready."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from isoproxy.config import NamesConfig, load
from isoproxy.doctor.finding import Finding, Verdict
from isoproxy.doctor.names import examine_names, light_client
from tests.unit.namecoin.rpc.server import (
    Method,
    RpcServer,
    consensusj_methods,
    core_methods,
    electrum_methods,
)


def settings(backend: str, *more: str) -> NamesConfig:
    return load(None, [f"names.backend={backend}", *more]).config.names


async def findings(config: NamesConfig, status: dict[str, Any] | None = None) -> list[Finding]:
    return [one async for one in examine_names(config, status)]


def synchronised(**changes: Any) -> dict[str, Any]:
    status = {
        "backend": "electrum",
        "ready": True,
        "complete": True,
        "problem": None,
        "certificates": [],
        "tip": 800_000,
        "target": 800_000,
        "base": 700_000,
        "quorum": 2,
        "servers": {"known": 5, "up": 3, "demoted": 0},
    }
    return status | changes


@pytest.mark.parametrize(
    ("status", "verdict", "found", "advice"),
    [
        (synchronised(), "ok", "synchronised to block 800000; 3 of 5", ""),
        (synchronised(servers={"known": 5, "up": 1}), "failed", "1 of 5", "other servers"),
        (synchronised(ready=False, tip=4), "warning", "4 of 800000", "wait"),
        (synchronised(complete=False), "warning", "since block 700000", "wait"),
        (synchronised(problem="It is late; set the clock."), "failed", "It is late", "set the"),
        (None, "unproven", "runs in isoproxy", "isoproxy run"),
    ],
)
def test_the_light_client(
    status: dict[str, Any] | None, verdict: str, found: str, advice: str
) -> None:
    finding = light_client(status)
    assert finding.verdict.value == verdict
    assert found in finding.found
    assert advice in finding.advice


async def test_a_certificate_that_is_refused_is_shown_with_what_to_do() -> None:
    refused = {"server": "names.example:50002", "problem": "expired", "shown": "ab" * 32}
    lapsed = {"server": "other.example:50002", "problem": "expired", "shown": None}
    status = synchronised(certificates=[refused, lapsed])
    _, first, second = await findings(settings("electrum"), status)
    assert first.verdict is Verdict.WARNING
    for part in ("names.example:50002", "expired", "ab" * 32, "in between", "host:port:s:SHA256"):
        assert part in str(first)
    assert "None" not in str(second)


async def test_names_that_are_switched_off() -> None:
    (finding,) = await findings(settings("none"), {"backend": "none"})
    assert finding.verdict is Verdict.OK


async def test_an_isoproxy_with_other_settings() -> None:
    (finding,) = await findings(settings("electrum"), {"backend": "none"})
    assert finding.verdict is Verdict.WARNING
    assert "same settings" in finding.advice


PROGRAMS: list[tuple[str, dict[str, Method], list[str], str, str]] = [
    ("electrum-nmc", electrum_methods({}), [], "unproven", "TOR_TRANSPROXY"),
    ("electrum-nmc", electrum_methods({}, isolates=False), [], "failed", "3.3.8 to 4.0.6"),
    (
        "electrum-nmc",
        electrum_methods({}, isolates=False),
        ["names.rpc.allow_unisolated=true"],
        "warning",
        "allow_unisolated",
    ),
    ("namecoin-core", core_methods({}), [], "ok", ""),
    ("namecoin-core", core_methods({}, downloading=True), [], "failed", "wait until"),
    ("namecoin-core", consensusj_methods({}), [], "failed", "built-in client"),
]


@pytest.mark.parametrize(("backend", "methods", "more", "verdict", "advice"), PROGRAMS)
async def test_the_program_that_is_asked(
    backend: str, methods: dict[str, Method], more: list[str], verdict: str, advice: str
) -> None:
    async with RpcServer(methods).running() as server:
        login = [f"names.rpc.address={server.endpoint}", "names.rpc.username=user"]
        (finding,) = await findings(settings(backend, *login, "names.rpc.password=pass", *more))
    assert finding.verdict.value == verdict
    assert advice in finding.advice
    # looking is no look-up: nobody's name went to the program
    asked = [params for method, params in server.calls if method == "name_show"]
    assert all(params["identifier"] == "d/" for params in asked)


async def test_a_program_that_is_not_there_or_refuses_us(tmp_path: Path) -> None:
    at = ["names.rpc.username=user", "names.rpc.password=wrong"]
    absent = settings("electrum-nmc", f"names.rpc.address=unix:{tmp_path}/absent", *at)
    (finding,) = await findings(absent)
    assert finding.verdict is Verdict.FAILED
    assert finding.advice == "start it or check the address"

    async with RpcServer(electrum_methods({})).running() as server:
        address = f"names.rpc.address={server.endpoint}"
        (finding,) = await findings(settings("electrum-nmc", address, *at))
    assert finding.verdict is Verdict.FAILED
    assert "names.rpc.username" in finding.advice


async def test_no_cookie(tmp_path: Path) -> None:
    config = settings(
        "namecoin-core",
        f"names.rpc.address=unix:{tmp_path}/rpc",
        f"names.rpc.cookie_file={tmp_path}/absent",
    )
    (finding,) = await findings(config)
    assert finding.verdict is Verdict.FAILED
    assert "cookie file" in finding.found


async def test_clients_with_programs_of_their_own(tmp_path: Path) -> None:
    """The one for everybody else may be absent then; each client's own may not."""
    async with RpcServer(electrum_methods({}), login=b"a:1").running() as server:
        clients = (
            f'{{"10.0.0.1/32" = "a:1@{server.endpoint}", "10.0.0.2/32" = "a:2@{server.endpoint}"}}'
        )
        config = settings(
            "electrum-nmc",
            f"names.rpc.address=unix:{tmp_path}/absent",
            "names.rpc.username=u",
            "names.rpc.password=p",
            f"names.rpc.clients={clients}",
        )
        by_check = {one.check: one for one in await findings(config)}
    assert by_check["names"].verdict is Verdict.WARNING
    assert by_check["names"].found.startswith("for other clients: ")
    assert by_check["names of 10.0.0.1/32"].verdict is Verdict.UNPROVEN
    assert by_check["names of 10.0.0.2/32"].verdict is Verdict.FAILED
