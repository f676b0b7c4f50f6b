"""One sentence for each thing that keeps a tor of our own from coming up."""

from __future__ import annotations

import pytest

from isoproxy.tor.control.events import Bootstrap
from isoproxy.tor.managed.advice import NO_BRIDGE, NO_RELAY, NO_TRANSPORT, STUCK_S, advice
from isoproxy.tor.managed.log import scrub

ENDED = 'Managed proxy "/usr/bin/obfs4proxy" having PID 23658 terminated with status code 1'
MISSING = "Could not launch managed proxy executable at '/opt/x' ('No such file or directory')."
DEAD = (
    "Proxy Client: unable to connect OR connection (handshaking (proxy)) with 192.0.2.1:1 "
    'ID=<none> ("general SOCKS server failure")'
)


@pytest.mark.parametrize(
    ("percent", "waited", "warning", "bridges", "complaint", "told"),
    [
        (0, 1.0, None, True, None, None),
        (0, 1.0, None, True, ENDED, NO_TRANSPORT),
        (0, 1.0, None, True, MISSING, NO_TRANSPORT),
        (2, 1.0, None, True, ENDED, None),  # it came up after all
        (2, 1.0, None, True, DEAD, NO_BRIDGE),
        (2, STUCK_S, None, True, None, NO_BRIDGE),
        (10, 1.0, "Connection refused", True, None, NO_BRIDGE),
        (5, 1.0, None, False, None, None),
        (5, STUCK_S, None, False, None, NO_RELAY),
        (5, 1.0, "No route to host", False, None, NO_RELAY),
        (15, STUCK_S, "No route to host", False, None, None),
        (100, STUCK_S, None, True, DEAD, None),
    ],
)
def test_advice(
    percent: int,
    waited: float,
    warning: str | None,
    bridges: bool,
    complaint: str | None,
    told: str | None,
) -> None:
    bootstrap = Bootstrap(percent, "", "", warning)
    said = None if complaint is None else scrub(complaint)  # as it is kept
    assert advice(bootstrap, waited, bridges=bridges, complaint=said) == told


def test_of_a_tor_that_has_said_nothing_nothing_is_known() -> None:
    assert advice(None, 99.0, bridges=True, complaint=DEAD) is None
