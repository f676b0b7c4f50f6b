"""What the doctor asks of Tor: version, clock, stream attachment, which circuit a stream uses."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime

from isoproxy.doctor.finding import Finding, failed, ok, unproven, warning
from isoproxy.errors import ConfigError, IsoproxyError, OperationError
from isoproxy.tor.control import Control
from isoproxy.tor.endpoint import Endpoint
from isoproxy.tor.torrc import parse_version

OLDEST = (0, 4, 7)
_CONNECT_S = 5.0
_TOLERANCE_S = 30 * 60
_STREAM = re.compile(rb"([0-9]{1,10}) ([A-Z_]{1,20}) ([0-9]{1,10}) (\S{1,300})")


@contextlib.asynccontextmanager
async def control_port(endpoint: Endpoint, password: str | None) -> AsyncIterator[Control | None]:
    """A connected control port, or None when there is none to be had."""
    if endpoint.is_none:
        yield None
        return
    control = Control(endpoint, password=password)
    control.start()
    try:
        try:
            async with asyncio.timeout(_CONNECT_S):
                await control.wait_ready()
        except (TimeoutError, OperationError):
            yield None
        else:
            yield control
    finally:
        await control.close()


def version(text: str | None) -> Finding:
    """Whether Tor is new enough."""
    if text is None:
        return unproven("version of Tor", "it is not known", "give isoproxy a ControlPort")
    try:
        parsed = parse_version(text)
    except ConfigError:
        return unproven("version of Tor", "it is not known", "upgrade Tor")
    if tuple(parsed)[:3] < OLDEST:
        return failed("version of Tor", text, "upgrade Tor to 0.4.7 or later")
    return ok("version of Tor", text)


async def clock(control: Control | None, now: float | None = None) -> Finding:
    """Whether this machine's clock agrees with the consensus that Tor holds."""
    check, now = "clock", time.time() if now is None else now
    if control is None:
        return unproven(check, "Tor's view of time is not known", "give isoproxy a ControlPort")
    try:
        since, until = [
            datetime.strptime(
                (await control.getinfo(f"consensus/{key}")).decode("ascii"), "%Y-%m-%d %H:%M:%S"
            )
            .replace(tzinfo=UTC)
            .timestamp()
            for key in ("valid-after", "valid-until")
        ]
    except (IsoproxyError, ValueError):
        return unproven(check, "Tor has no consensus yet", "wait until Tor has bootstrapped")
    if since - _TOLERANCE_S <= now <= until + _TOLERANCE_S:
        return ok(check, "within the time of Tor's consensus")
    return failed(check, "outside of the time of Tor's consensus", "set the clock of this machine")


async def attachment(control: Control | None, *, streams_work: bool | None) -> Finding:
    """Whether Tor leaves its streams to a controller, and one is there.

    `streams_work` says whether a stream was opened just now, None if that was not tried.
    """
    check = "attachment of streams"
    if control is None:
        return unproven(check, "Tor's setting is not known", "give isoproxy a ControlPort")
    try:
        reply = await control.message("GETCONF __LeaveStreamsUnattached")
    except OperationError:
        return unproven(check, "Tor's setting is not known", "look at the ControlPort")
    if not reply.is_ok:
        return unproven(check, "a filter hides Tor's setting", "run the doctor on Tor's machine")
    if reply.lines[0] != b"__LeaveStreamsUnattached=1":
        return ok(check, "Tor attaches its streams itself")
    if streams_work:
        return ok(check, "left to a controller, and one is at work")
    advice = "start stemns, or remove __LeaveStreamsUnattached from torrc"
    if streams_work is None:
        return warning(check, "left to a controller; whether one is there was not tried", advice)
    return failed(check, "left to a controller, and none attaches them", advice)


async def streams(control: Control) -> dict[bytes, tuple[str, bytes]]:
    """Tor's open streams: number -> (circuit or conflux set, target)."""
    sets = {one.id: one.conflux_id or one.id for one in await control.refresh_circuits()}
    found = {}
    for line in (await control.getinfo("stream-status")).split(b"\n"):
        match = _STREAM.fullmatch(line.rstrip(b"\r"))
        if match is not None and match[2] == b"SUCCEEDED":
            circuit = match[3].decode()
            found[match[1]] = (sets.get(circuit, circuit), match[4])
    return found


def expected_sharing(circuits: list[str | None]) -> Iterator[Finding]:
    """Judge the circuits of three streams: tuple A, tuple A again, tuple B."""
    first, again, other = circuits
    if None in circuits:
        yield unproven(
            "circuits of separate identities",
            "other programs opened streams at the same moment",
            "run the doctor again",
        )
        return
    if other in (first, again):
        yield failed(
            "circuits of separate identities",
            "two tuples shared a circuit",
            "take NoIsolateSOCKSAuth off Tor's SocksPort; if it is not there, report this defect",
        )
    else:
        yield ok("circuits of separate identities", "two tuples, two circuits")
    if first == again:
        yield ok("circuits of one identity", "same tuple, same circuit")
    else:
        yield warning(
            "circuits of one identity",
            "same tuple, two circuits: slower, never unsafe",
            'set "ConfluxEnabled 0" in torrc if it stays so',
        )
