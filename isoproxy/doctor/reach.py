"""Whether Tor's two ports can be used by this user, and what keeps them from it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
from collections.abc import AsyncIterator
from typing import Final, NamedTuple

from isoproxy.daemon.compose.upstream import probe_socks
from isoproxy.doctor.finding import Finding, failed, ok, unproven
from isoproxy.errors import OperationError
from isoproxy.net.endpoint import Endpoint
from isoproxy.tor.control.authentication import connect
from isoproxy.tor.control.connection import Control, Phase

_CONNECT_S: Final = 15.0
_MOMENT_S: Final = 2.0
"""What refuses for so long is not just starting."""
_SOCKS: Final = "Tor's SocksPort"
_CONTROL: Final = "Tor's ControlPort"


async def socks_port(endpoint: Endpoint) -> Finding:
    """Whether a SocksPort that takes credentials answers."""
    if await probe_socks(endpoint):
        return ok(_SOCKS, "it answers")
    try:
        async with asyncio.timeout(_CONNECT_S):
            (await connect(endpoint)).close()
    except PermissionError:
        return failed(_SOCKS, "this user may not use its socket", _join_group())
    except (OSError, TimeoutError):
        return failed(_SOCKS, "it does not answer", "start Tor, or correct tor.socks")
    return failed(
        _SOCKS,
        "what listens there is no SocksPort, or takes no user name and password",
        "correct tor.socks, or free the address for Tor",
    )


class ControlPort(NamedTuple):
    """The connection, or None, and why."""

    control: Control | None
    finding: Finding


@contextlib.asynccontextmanager
async def control_port(endpoint: Endpoint, password: str | None) -> AsyncIterator[ControlPort]:
    """A connected control port, or what is in the way of one."""
    if endpoint.is_none:
        advice = "set tor.control to have circuits, clock and version examined"
        yield ControlPort(None, unproven(_CONTROL, "there is none to ask", advice))
        return
    control = Control(endpoint, password=password)
    control.start()
    try:
        try:
            await _connected(control)
        except (TimeoutError, OperationError):
            problem = control.state.problem or "no answer"
            yield ControlPort(None, failed(_CONTROL, *_told(problem)))
        else:
            yield ControlPort(control, ok(_CONTROL, "it answers"))
    finally:
        await control.close()


async def _connected(control: Control) -> None:
    """Until it is up; raises TimeoutError, early where Tor has said no."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_MOMENT_S):
            return await control.wait_ready()
    if control.state.phase is Phase.BACKING_OFF:
        raise TimeoutError
    async with asyncio.timeout(_CONNECT_S):
        await control.wait_ready()


def _told(problem: str) -> tuple[str, str]:
    """What is wrong, and the one thing to do; Control often says both."""
    found, _, advice = problem.partition("; ")
    if "may not use" in found:
        advice = _join_group()
    elif "listens there" in found:
        found, advice = "nothing listens there", "start Tor, or correct tor.control"
    elif "does not authenticate as Tor" in found:
        advice = "correct tor.control"
    elif "refused its own control cookie" in found:
        advice = "run the doctor again; if it stays so, correct tor.control"
    return found, advice or "look into Tor's log"


def _join_group() -> str:
    return f"adduser {_user()} debian-tor, then log in or start isoproxy anew"


def _user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())
