"""What the doctor asks of an Arti, over its RPC port.

Arti shows no circuits, so nobody can prove there which streams shared one: it is said to
be unproven, and how it can be proven.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from isoproxy.doctor import reach
from isoproxy.doctor.finding import Finding, failed, ok, unproven, warning
from isoproxy.errors import OperationError
from isoproxy.net.endpoint import Endpoint
from isoproxy.tor.arti.rpc import session

UNPROVABLE: Final = (
    'Arti shows no circuits; where proof is needed, set tor.mode = "managed", which uses C tor'
)
_RPC: Final = "Arti's RPC port"
_START: Final = "start of Arti"


async def examine_arti(rpc: Endpoint) -> AsyncIterator[Finding]:
    """RPC port, start and SOCKS port of the Arti whose RPC socket is at `rpc`."""
    try:
        async with session(rpc) as arti:
            bootstrap, socks = await arti.bootstrap(), await arti.socks_port()
    except PermissionError:
        yield failed(_RPC, "this user may not use its socket", "run the doctor as isoproxy's user")
        return
    except FileNotFoundError:
        advice = "start Arti with rpc.enable = true, or correct tor.arti_rpc"
        yield failed(_RPC, "its socket is not there", advice)
        return
    except (OSError, OperationError) as error:
        told = str(error) if isinstance(error, OperationError) else "it does not answer"
        yield failed(_RPC, told, "see 'isoproxy tor log', or Arti's own")
        return
    yield ok(_RPC, "it answers")
    if bootstrap.percent == 100:
        yield ok(_START, "it has bootstrapped")
    elif bootstrap.warning is None:
        yield warning(_START, f"{bootstrap.percent}%", "wait; if it stays so, see Arti's log")
    else:
        advice = "mend Arti's way to the internet"
        yield failed(_START, f"{bootstrap.percent}%: {bootstrap.warning}", advice)
    yield await reach.socks_port(socks)
    yield unproven("clock", "Arti does not tell its view of time", "compare it yourself: date -u")
