from __future__ import annotations

from dataclasses import replace

import pytest

from isoproxy.errors import ErrorKind
from isoproxy.namecoin.electrum.obstacle import Standing
from isoproxy.namecoin.electrum.progress import Progress

READY = Standing(
    started=True,
    ready=True,
    progress=Progress(base=0, tip=70, target=100, wanted_base=0, fetched=90, unproven=0),
    servers=12,
    connected=2,
    untried=3,
    last_failure=None,
    tip_age=600.0,
    max_tip_age=86_400.0,
    is_future=True,  # one server says so; others are believed
)
COMING = replace(READY, ready=False, is_future=False)
ALONE = replace(COMING, connected=0)
TOR = ErrorKind.TOR_UNREACHABLE


def test_a_client_that_is_ready_has_nothing_in_its_way() -> None:
    assert READY.obstacle() is None
    assert replace(READY, connected=0, last_failure=TOR).obstacle() is None
    assert replace(READY, tip_age=1e9, max_tip_age=None).obstacle() is None


@pytest.mark.parametrize(
    ("standing", "kind", "lasting", "words"),
    [
        (replace(READY, tip_age=2.5 * 86_400), ErrorKind.NAME_WRONG_CLOCK, True, "2.5 days"),
        (replace(ALONE, started=False), TOR, False, "Tor does not answer"),
        (replace(ALONE, last_failure=TOR), TOR, True, "Tor does not answer"),
        (replace(COMING, is_future=True), ErrorKind.NAME_WRONG_CLOCK, False, "slow"),
        (ALONE, ErrorKind.NAME_BACKEND_DOWN, False, "None of the 9 name servers"),
        (replace(ALONE, untried=0), ErrorKind.NAME_BACKEND_DOWN, True, "None of the 12"),
        (COMING, ErrorKind.NAME_SYNCHRONISING, False, "90 of 100"),
    ],
)
def test_what_is_in_the_way_is_told_by_its_nearest_cause(
    standing: Standing, kind: ErrorKind, lasting: bool, words: str
) -> None:
    obstacle = standing.obstacle()
    assert obstacle is not None
    assert (obstacle.failure.kind, obstacle.lasting) == (kind, lasting)
    assert words in str(obstacle.failure)
