"""The diagrams of the documentation are those of the tables, and the tables are whole."""

from __future__ import annotations

from enum import Enum

import pytest

from manual.states import DOCUMENT, STATES, StateTable, drawn


def test_the_document_shows_what_is_drawn() -> None:
    text = DOCUMENT.read_text()
    assert drawn(text) == text, "draw it anew: python -m manual.states"


def test_a_place_that_is_not_there_is_an_error() -> None:
    with pytest.raises(ValueError, match="0 times"):
        drawn("no place for a diagram")


@pytest.mark.parametrize("table", STATES, ids=lambda table: table.name)
def test_every_state_is_reached_and_every_way_ends(table: StateTable) -> None:
    transitions = table.transitions
    first: Enum = next(iter(transitions))
    reached = _reached_from(first, table)
    assert reached == set(transitions)
    assert reached == set(type(first).__members__.values())
    for state in reached:
        ends = [end for end in _reached_from(state, table) if not transitions[end]]
        assert ends, f"{state} leads nowhere"


@pytest.mark.parametrize("table", STATES, ids=lambda table: table.name)
def test_every_event_can_happen_somewhere(table: StateTable) -> None:
    events: set[Enum] = {event for row in table.transitions.values() for event in row}
    (kind,) = {type(event) for event in events}
    assert events == set(kind.__members__.values())


def _reached_from(first: Enum, table: StateTable) -> set[Enum]:
    reached, waiting = {first}, [first]
    while waiting:
        for state in table.transitions[waiting.pop()].values():
            if state not in reached:
                reached.add(state)
                waiting.append(state)
    return reached
