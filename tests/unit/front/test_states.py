"""A connection walks its table: each row happens, and nothing else does."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from isoproxy.errors import ErrorKind
from isoproxy.front.states import TRANSITIONS, Event, State
from tests.unit.front.playbook import GREETING, REQUEST, Playbook, opening, turns
from tests.unit.front.test_carrying import Carries


def relaying() -> Playbook:
    book = opening(Playbook())
    book.tor_opens()
    return book


def closing() -> Playbook:
    book = opening(Playbook())
    book.tor_refuses(ErrorKind.ONION_NOT_FOUND)
    return book


def watching() -> Playbook:
    bitcoin = Carries()
    bitcoin.magic = b"magi"
    book = opening(Playbook(bitcoin=bitcoin))
    book.tor_opens()
    return book


BEGINS: dict[tuple[State, Event], Callable[[], Playbook]] = {
    (State.HANDSHAKE, Event.REQUESTED): Playbook,
    (State.HANDSHAKE, Event.ANSWERED): Playbook,
    (State.HANDSHAKE, Event.ENDED): Playbook,
    (State.OPENING, Event.OPENED): lambda: opening(Playbook()),
    (State.OPENING, Event.ANSWERED): lambda: opening(Playbook()),
    (State.OPENING, Event.ENDED): lambda: opening(Playbook()),
    (State.RELAYING, Event.FOR_BITCOIN): watching,
    (State.RELAYING, Event.ENDED): relaying,
    (State.CLOSING, Event.ENDED): closing,
}
HAPPENS: dict[tuple[State, Event], Callable[[Playbook], object]] = {
    (State.HANDSHAKE, Event.REQUESTED): lambda book: book.says(GREETING + REQUEST),
    (State.HANDSHAKE, Event.ANSWERED): lambda book: book.says(b"\x16"),
    (State.OPENING, Event.OPENED): lambda book: book.tor_opens(),
    (State.OPENING, Event.ANSWERED): lambda book: book.tor_refuses(ErrorKind.DIAL_TIMEOUT),
    (State.RELAYING, Event.FOR_BITCOIN): lambda book: book.says(b"magic words"),
}
ROWS = [(state, event, after) for state, row in TRANSITIONS.items() for event, after in row.items()]


@pytest.mark.parametrize(("state", "event", "after"), ROWS)
async def test_every_transition_is_walked(state: State, event: Event, after: State) -> None:
    book = BEGINS[state, event]()
    assert book.state is state
    if event is Event.ENDED:
        book.connection.abort()
    else:
        HAPPENS[state, event](book)
    await turns()
    assert book.state is after
    assert book.connection.walked[-1] == (state, event)


async def test_what_is_not_in_the_table_cannot_happen() -> None:
    book = relaying()
    phase = book.connection.phase
    assert phase is not None
    with pytest.raises(KeyError):
        book.connection.enter(Event.REQUESTED, phase)
