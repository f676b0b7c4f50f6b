"""The live proof, against a stand-in for isoproxy's port: what the client sends, what is said."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from isoproxy.doctor import isolation
from isoproxy.doctor.finding import Verdict
from isoproxy.net.endpoint import Endpoint
from isoproxy.net.target import Target
from tests.kit.socks_port import SocksPort, refusing
from tests.unit.tor.scripted import ScriptedTor
from tests.unit.tor.test_onion import control_to

TARGET = Target.parse("proof.example", 443)


async def test_three_streams_under_two_identities_with_the_name_unresolved() -> None:
    async with SocksPort() as port:
        findings, opened = await isolation.prove(port.endpoint, TARGET, None, timeout_s=10)
    assert opened
    assert [request.host for request in port.requests] == [b"proof.example"] * 3
    first, second, third = ((one.username, one.password) for one in port.requests)
    assert first == second != third
    assert [finding.verdict for finding in findings] == [
        Verdict.OK,
        Verdict.UNPROVEN,
        Verdict.OK,
    ]


async def test_a_port_that_refuses_and_none_at_all() -> None:
    async with SocksPort(serve=refusing(b"\x05\x05\x00\x01" + bytes(6))) as port:
        (finding,), opened = await isolation.prove(port.endpoint, TARGET, None, timeout_s=10)
    assert (finding.verdict, opened) == (Verdict.FAILED, False)
    assert "port 443 was not opened" in str(finding)
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        closed = Endpoint.tcp(*nobody.getsockname())
        (finding,), opened = await isolation.prove(closed, TARGET, None, timeout_s=10)
    assert (finding.verdict, opened) == (Verdict.FAILED, False)
    assert "does not accept connections" in str(finding)


def test_a_circuit_is_told_by_the_one_stream_that_is_new() -> None:
    before = {b"1": ("10", b"proof.example:443")}
    one = before | {b"2": ("11", b"proof.example:443"), b"3": ("12", b"other.example:80")}
    assert isolation._new_circuit(before, one, TARGET) == "11"
    two = one | {b"4": ("13", b"proof.example:443")}
    assert isolation._new_circuit(before, two, TARGET) is None
    assert isolation._new_circuit(before, before, TARGET) is None


@pytest.mark.parametrize(
    ("host", "names"), [("name.test", 1), ("127.0.0.1", 0), ("::1", 0), (None, 0)]
)
def test_look_ups_of_names_are_counted_and_addresses_are_not(
    host: str | None, names: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "addaudithook", lambda hook: None)  # one stays for good
    watch = isolation.LookupWatch()
    watch._hook("socket.getaddrinfo", (host, 80))
    watch._hook("socket.connect", ("name.test", 80))
    assert watch.names == names
    assert isolation._lookups(watch).verdict is (Verdict.FAILED if names else Verdict.OK)


async def test_what_a_filter_in_front_of_tor_hides_is_unproven(tmp_path: Path) -> None:
    answers = {"GETINFO circuit-status": b"510 Command filtered\r\n"}
    async with (
        ScriptedTor(tmp_path / "c", answers) as tor,
        control_to(tor) as control,
        SocksPort() as port,
    ):
        findings, opened = await isolation.prove(port.endpoint, TARGET, control, timeout_s=10)
    assert opened
    hidden = findings[1]
    assert (hidden.verdict, hidden.check) == (Verdict.UNPROVEN, "circuits of separate identities")
    assert "filter" in hidden.found
