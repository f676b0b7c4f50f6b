"""What a person can do when a tor of our own does not come up, by what tor says.

Theory of operation
    Tor's percentages tell how far the first connection came: below 10 nobody has
    answered yet, below 15 no relay has (pt-spec's and control-spec's `conn_pt`, `conn`,
    `handshake`).  A transport that ends and a bridge that cannot be reached are in its log
    alone, in words that have not changed for years.

Specification: control-spec §5.5 (bootstrap phases).
"""

from __future__ import annotations

import re
from typing import Final

from isoproxy.tor.control.events import Bootstrap

STUCK_S: Final = 30.0
"""Seconds without progress that say something by themselves."""
NO_TRANSPORT: Final = (
    "the transport cannot start, its program ends or cannot be executed; see tor.transports, and "
    "isoproxy tor log"
)
NO_BRIDGE: Final = (
    "the bridge does not answer; look whether its line is whole, and try another bridge"
)
NO_RELAY: Final = (
    "no relay of Tor's can be reached from here; mend the way to the internet, or where Tor is "
    "blocked, try a bridge (tor.bridges)"
)
_FIRST_RELAY: Final = 15
_TRANSPORT_ENDED: Final = re.compile(
    r"Managed proxy .*(?:terminated|died|failed)|Could not launch managed proxy"
    r"|Pluggable Transport process"
)
_UNREACHED: Final = re.compile(r"unable to connect|general SOCKS server failure")


def advice(
    bootstrap: Bootstrap | None, waited_s: float, *, bridges: bool, complaint: str | None
) -> str | None:
    """One sentence, or None where nothing is wrong or nothing is known.

    `waited_s` is how long there was no progress; `complaint` the last warning in tor's log.
    """
    if bootstrap is None or bootstrap.percent >= _FIRST_RELAY:
        return None
    stuck = waited_s >= STUCK_S or bootstrap.warning is not None
    if not bridges:
        return NO_RELAY if stuck else None
    said = complaint or ""
    if _TRANSPORT_ENDED.search(said) and bootstrap.percent <= 1:
        return NO_TRANSPORT
    return NO_BRIDGE if stuck or _UNREACHED.search(said) else None
