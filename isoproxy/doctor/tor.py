"""What the doctor asks of Tor: version, start, clock, attachment of streams, their circuits."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime

from isoproxy.config.paths import start_command
from isoproxy.doctor.finding import Finding, failed, ok, unproven, warning
from isoproxy.errors import ConfigError, IsoproxyError, OperationError
from isoproxy.tor.control.connection import Control
from isoproxy.tor.control.events import parse_bootstrap
from isoproxy.tor.managed.torrc import parse_version

OLDEST = (0, 4, 7)
_NEED_CONTROL = "let isoproxy use Tor's ControlPort"
_TOLERANCE_S = 30 * 60
_LOOK_S = 0.1
_LOOKS = 50
"""How often isoproxy is asked whether it has heard of a signal."""
_STREAM = re.compile(rb"([0-9]{1,10}) ([A-Z_]{1,20}) ([0-9]{1,10}) (\S{1,300})")


def version(text: str | None) -> Finding:
    """Whether Tor is new enough."""
    if text is None:
        return unproven("version of Tor", "it is not known", _NEED_CONTROL)
    try:
        parsed = parse_version(text)
    except ConfigError:
        return unproven("version of Tor", "it is not known", "upgrade Tor")
    if tuple(parsed)[:3] < OLDEST:
        return failed("version of Tor", text, "upgrade Tor to 0.4.7 or later")
    return ok("version of Tor", text)


async def bootstrap(
    control: Control | None, complaint: str | None = None, advised: str | None = None
) -> Finding:
    """Whether Tor has found its way into the network.

    `complaint` is the last warning in the log of a tor of our own, `advised` what is to be
    done about it if that is known.
    """
    check = "start of Tor"
    in_log = "look into Tor's log"
    if complaint is not None:
        in_log = f"Tor says: {complaint} (see: isoproxy tor log)"
    if control is None:
        return unproven(check, "how far it has come is not known", _NEED_CONTROL)
    try:
        found = parse_bootstrap(await control.getinfo("status/bootstrap-phase"))
        network = await control.message("GETCONF DisableNetwork")
    except OperationError:
        found = None
    if found is None:
        return unproven(check, "how far it has come is not told", in_log)
    if network.is_ok and network.lines[0] == b"DisableNetwork=1":
        advice = "set DisableNetwork 0 (on Whonix: run anon-connection-wizard)"
        return failed(check, "its network is switched off", advice)
    if found.percent == 100:
        return ok(check, "it has bootstrapped")
    state = f"{found.percent}%, {found.summary}"
    if advised is not None:
        what, _, advice = advised.partition("; ")
        return failed(check, f"{state}: {what}", advice)
    if found.warning is None:
        return warning(check, state, f"wait; if it stays so, {in_log}")
    if "skew" in found.warning.lower():
        return failed(check, f"{state}: {found.warning}", "set the clock of this machine")
    advice = "mend Tor's way to the internet"
    if complaint is not None:
        advice = f"{advice}; {in_log}"
    return failed(check, f"{state}: {found.warning}", advice)


async def clock(control: Control | None, now: float | None = None) -> Finding:
    """Whether this machine's clock agrees with the consensus that Tor holds."""
    check, now = "clock", time.time() if now is None else now
    if control is None:
        return unproven(check, "Tor's view of time is not known", _NEED_CONTROL)
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
        return unproven(check, "Tor's setting is not known", _NEED_CONTROL)
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


async def new_identity(
    control: Control | None, heard: Callable[[], Awaitable[int]] | None
) -> Finding:
    """Whether NEWNYM of other programs is heard by the isoproxy that runs.

    A filter may grant the event and send none (onion-grater does), and another one to isoproxy
    than to us.  So Tor is sent a signal that changes nothing; `heard` tells how many isoproxy
    has heard of, and is None where it does not run.
    """
    check, advice = "New Identity of other programs", "use isoproxy newnym in its place"
    if control is None:
        return unproven(check, "without a ControlPort it is not followed", advice)
    if heard is None:
        return unproven(check, "it is followed by a running isoproxy alone", start_command())
    try:
        before = await heard()
        if not (await control.message("SIGNAL HEARTBEAT")).is_ok:
            return unproven(check, "a filter in front of Tor does not let it be tried", advice)
        for _ in range(_LOOKS):
            if await heard() > before:
                return ok(check, "a signal that Tor was sent was heard by isoproxy")
            await asyncio.sleep(_LOOK_S)
    except OperationError:
        return unproven(check, "a connection ended while it was tried", "run the doctor again")
    return warning(check, "isoproxy does not hear of signals that Tor is sent", advice)


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
