"""What the doctor says of an Arti."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from isoproxy.doctor.arti import examine_arti
from isoproxy.doctor.finding import Finding, Verdict
from isoproxy.net.endpoint import Endpoint
from tests.kit.arti_rpc import ANSWERS, serving


async def findings(rpc: Endpoint) -> dict[str, Finding]:
    return {finding.check: finding async for finding in examine_arti(rpc)}


def telling(**status: object) -> Callable[[bytes], bytes]:
    def answer(line: bytes) -> bytes:
        call = json.loads(line)
        result = status if call["method"] == "arti:get_client_status" else ANSWERS[call["method"]]
        return json.dumps({"id": call["id"], "result": result}).encode() + b"\n"

    return answer


async def test_an_arti_that_waits_for_its_network(short_path: Path) -> None:
    stuck = telling(ready=False, fraction=0.2, blocked="no way to the internet")
    async with serving(short_path, stuck) as server:
        found = await findings(server.endpoint)
    assert found["Arti's RPC port"].verdict is Verdict.OK
    assert found["start of Arti"].verdict is Verdict.FAILED
    assert "no way to the internet" in found["start of Arti"].found
    assert found["Tor's SocksPort"].verdict is Verdict.FAILED  # nobody listens there


async def test_an_arti_on_its_way_is_waited_for(short_path: Path) -> None:
    async with serving(short_path, telling(ready=False, fraction=0.2, blocked=None)) as server:
        found = await findings(server.endpoint)
    assert found["start of Arti"].verdict is Verdict.WARNING


async def test_without_an_rpc_port_it_says_how_to_have_one(short_path: Path) -> None:
    found = await findings(Endpoint.unix(str(short_path / "rpc")))
    assert [one.verdict for one in found.values()] == [Verdict.FAILED]
    assert "rpc.enable" in found["Arti's RPC port"].advice


async def test_what_is_no_arti_is_said(short_path: Path) -> None:
    async with serving(short_path, lambda _: b"220 mail\n") as server:
        found = await findings(server.endpoint)
    assert "no Arti says" in found["Arti's RPC port"].found
