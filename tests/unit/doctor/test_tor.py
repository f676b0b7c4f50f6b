"""What the doctor concludes from Tor's answers; the answers are scripted."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest

from isoproxy.doctor import reach
from isoproxy.doctor import tor as tor_checks
from isoproxy.doctor.finding import Verdict
from isoproxy.net.endpoint import Endpoint
from isoproxy.tor.control.connection import Control
from isoproxy.tor.control.wire import ControlReply
from tests.unit.tor.scripted import ScriptedTor

NOW = 1_700_000_000.0  # 2023-11-14 22:13:20 UTC


@contextlib.asynccontextmanager
async def control_to(tor: ScriptedTor) -> AsyncIterator[Control]:
    async with reach.control_port(Endpoint.unix(str(tor.path)), None) as (control, access):
        assert access.verdict is Verdict.OK
        assert control is not None
        yield control


def block(key: str, value: str) -> bytes:
    return f"250-{key}={value}\r\n250 OK\r\n".encode()


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("0.4.9.11", Verdict.OK),
        ("0.4.7.0", Verdict.OK),
        ("0.4.6.12", Verdict.FAILED),
        ("0.3.5.99", Verdict.FAILED),
        ("Arti", Verdict.UNPROVEN),
        (None, Verdict.UNPROVEN),
    ],
)
def test_versions(text: str | None, verdict: Verdict) -> None:
    assert tor_checks.version(text).verdict is verdict


@pytest.mark.parametrize(
    ("after", "until", "verdict"),
    [
        ("2023-11-14 22:00:00", "2023-11-15 01:00:00", Verdict.OK),
        ("2023-11-14 22:40:00", "2023-11-15 01:00:00", Verdict.OK),
        ("2023-11-14 23:00:00", "2023-11-15 02:00:00", Verdict.FAILED),
        ("2023-11-13 22:00:00", "2023-11-14 01:00:00", Verdict.FAILED),
        ("nonsense", "2023-11-14 01:00:00", Verdict.UNPROVEN),
    ],
)
async def test_the_clock(tmp_path: Path, after: str, until: str, verdict: Verdict) -> None:
    answers = {
        "GETINFO consensus/valid-after": block("consensus/valid-after", after),
        "GETINFO consensus/valid-until": block("consensus/valid-until", until),
    }
    async with ScriptedTor(tmp_path / "c", answers) as tor, control_to(tor) as control:
        assert (await tor_checks.clock(control, NOW)).verdict is verdict
    assert (await tor_checks.clock(None, NOW)).verdict is Verdict.UNPROVEN


def started(words: str) -> bytes:
    return block("status/bootstrap-phase", words)


@pytest.mark.parametrize(
    ("answers", "verdict", "found", "advice"),
    [
        (['NOTICE BOOTSTRAP PROGRESS=100 TAG=done SUMMARY="Done"'], "ok", "bootstrapped", ""),
        (
            ['NOTICE BOOTSTRAP PROGRESS=10 TAG=conn_done SUMMARY="Connected to a relay"'],
            "warning",
            "10%, Connected to a relay",
            "wait",
        ),
        (
            [
                'WARN BOOTSTRAP PROGRESS=5 TAG=conn SUMMARY="Connecting" WARNING="No route to host"'
                " REASON=NOROUTE COUNT=7 RECOMMENDATION=warn"
            ],
            "failed",
            "No route to host",
            "mend Tor's way",
        ),
        (
            [
                'WARN BOOTSTRAP PROGRESS=14 TAG=handshake SUMMARY="Handshaking" WARNING="Clock skew'
                ' -7200 in NETINFO from DIR" REASON=CLOCK_SKEW COUNT=1 RECOMMENDATION=warn'
            ],
            "failed",
            "Clock skew",
            "set the clock",
        ),
        (["nonsense"], "unproven", "not told", "Tor's log"),
        (
            ['NOTICE BOOTSTRAP PROGRESS=0 TAG=starting SUMMARY="Starting"', "1"],
            "failed",
            "switched off",
            "DisableNetwork 0",
        ),
    ],
)
async def test_how_far_tor_has_come(
    tmp_path: Path, answers: list[str], verdict: str, found: str, advice: str
) -> None:
    scripted = {
        "GETINFO status/bootstrap-phase": started(answers[0]),
        "GETCONF DisableNetwork": f"250 DisableNetwork={answers[1:2] == ['1']:d}\r\n".encode(),
    }
    async with ScriptedTor(tmp_path / "c", scripted) as tor, control_to(tor) as control:
        finding = await tor_checks.bootstrap(control)
    assert finding.verdict.value == verdict
    assert found in finding.found
    assert advice in finding.advice
    assert (await tor_checks.bootstrap(None)).verdict is Verdict.UNPROVEN


@pytest.mark.parametrize(
    ("answer", "works", "verdict"),
    [
        (b"250 __LeaveStreamsUnattached=0\r\n", None, Verdict.OK),
        (b"250 __LeaveStreamsUnattached=1\r\n", True, Verdict.OK),
        (b"250 __LeaveStreamsUnattached=1\r\n", None, Verdict.WARNING),
        (b"250 __LeaveStreamsUnattached=1\r\n", False, Verdict.FAILED),
        (b"510 Command filtered\r\n", True, Verdict.UNPROVEN),
    ],
)
async def test_attachment(
    tmp_path: Path, answer: bytes, works: bool | None, verdict: Verdict
) -> None:
    answers = {"GETCONF __LeaveStreamsUnattached": answer}
    async with ScriptedTor(tmp_path / "c", answers) as tor, control_to(tor) as control:
        assert (await tor_checks.attachment(control, streams_work=works)).verdict is verdict
    assert (await tor_checks.attachment(None, streams_work=works)).verdict is Verdict.UNPROVEN


async def test_streams_and_their_circuits_conflux_legs_as_one(tmp_path: Path) -> None:
    status = b"250+circuit-status=\r\n" + b"".join(
        [
            b"3 BUILT PURPOSE=GENERAL\r\n",
            b"4 BUILT PURPOSE=CONFLUX_LINKED CONFLUX_ID=AB\r\n",
            b"5 BUILT PURPOSE=CONFLUX_LINKED CONFLUX_ID=AB\r\n",
            b".\r\n250 OK\r\n",
        ]
    )
    streams = (
        b"250+stream-status=\r\n1 SUCCEEDED 3 a.example:443\r\n2 SUCCEEDED 4 b.example:443\r\n"
        b"7 SUCCEEDED 5 c:1\r\n8 NEW 0 d:1\r\nnot a stream\r\n.\r\n250 OK\r\n"
    )
    answers = {"GETINFO circuit-status": status, "GETINFO stream-status": streams}
    async with ScriptedTor(tmp_path / "c", answers) as tor, control_to(tor) as control:
        assert await tor_checks.streams(control) == {
            b"1": ("3", b"a.example:443"),
            b"2": ("AB", b"b.example:443"),
            b"7": ("AB", b"c:1"),
        }


@pytest.mark.parametrize(
    ("circuits", "expected"),
    [
        (["1", "1", "2"], [Verdict.OK, Verdict.OK]),
        (["1", "3", "2"], [Verdict.OK, Verdict.WARNING]),
        (["1", "1", "1"], [Verdict.FAILED, Verdict.OK]),
        (["1", "2", "2"], [Verdict.FAILED, Verdict.WARNING]),
        (["2", "1", "2"], [Verdict.FAILED, Verdict.WARNING]),
        (["1", None, "2"], [Verdict.UNPROVEN]),
    ],
)
def test_sharing_is_judged(circuits: list[str | None], expected: list[Verdict]) -> None:
    findings = list(tor_checks.expected_sharing(circuits))
    assert [one.verdict for one in findings] == expected


async def test_what_a_tor_of_our_own_complains_of_is_advice(tmp_path: Path) -> None:
    words = 'NOTICE BOOTSTRAP PROGRESS=0 TAG=starting SUMMARY="Starting"'
    answers = {"GETINFO status/bootstrap-phase": started(words)}
    async with ScriptedTor(tmp_path / "c", answers) as tor, control_to(tor) as control:
        found = await tor_checks.bootstrap(control, "Managed proxy terminated")
        assert "Managed proxy terminated" in found.advice
        assert "isoproxy tor log" in found.advice
        assert "Tor says" not in (await tor_checks.bootstrap(control)).advice


async def test_new_identities_of_others_are_followed_if_a_signal_is_heard(tmp_path: Path) -> None:
    """By the isoproxy that runs: that the doctor may hear of them is no proof."""
    async with ScriptedTor(tmp_path / "c") as tor, control_to(tor) as control:

        async def heard() -> int:
            return tor.commands.count("SIGNAL HEARTBEAT")

        assert (await tor_checks.new_identity(control, heard)).verdict is Verdict.OK
        assert (await tor_checks.new_identity(control, None)).verdict is Verdict.UNPROVEN
        assert (await tor_checks.new_identity(None, heard)).verdict is Verdict.UNPROVEN


async def test_behind_a_filter_new_identities_of_others_are_not_followed(tmp_path: Path) -> None:
    async def heard() -> int:
        return 7

    answers = {"SIGNAL HEARTBEAT": b"510 Command filtered\r\n"}
    async with ScriptedTor(tmp_path / "c", answers) as tor, control_to(tor) as control:
        assert (await tor_checks.new_identity(control, heard)).verdict is Verdict.UNPROVEN


@pytest.mark.virtual_clock
async def test_what_is_granted_and_never_comes_is_not_followed() -> None:
    """As of an onion-grater that lets the signal through and its event not."""

    class Granting:
        async def message(self, text: str) -> ControlReply:
            assert text == "SIGNAL HEARTBEAT"
            return ControlReply(250, (b"OK",))

    async def heard() -> int:
        return 7

    finding = await tor_checks.new_identity(cast(Control, Granting()), heard)
    assert finding.verdict is Verdict.WARNING
    assert "isoproxy newnym" in finding.advice
