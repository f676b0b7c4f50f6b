"""`python -m manual.states [FILE]`: draw the diagrams of docs/architecture.md from the tables.

Theory of operation
    A table of transitions is state → event → next state, both enums whose values are words
    for a reader.  `STATES` names all tables that have a diagram; the document has a place
    for each between two marks, and what stands there is drawn anew.  The language of the
    diagrams is mermaid's `stateDiagram-v2`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Final

from isoproxy.bitcoin import flow
from isoproxy.bitcoin.bip324 import transport
from isoproxy.front.states import TRANSITIONS
from isoproxy.socks.server_states import SERVER_TRANSITIONS

DOCUMENT: Final = Path(__file__).parent.parent / "docs" / "architecture.md"


@dataclass(frozen=True, slots=True)
class StateTable:
    """One diagram; `name` marks its place, and the table's first state is where it begins."""

    name: str
    transitions: Mapping[Any, Mapping[Any, Any]]

    def diagram(self) -> str:
        """It in mermaid's language, one line for each state, event and end."""
        first = next(iter(self.transitions))
        lines = ["stateDiagram-v2", f"    [*] --> {_id(first)}"]
        for state, row in self.transitions.items():
            lines += [f"    {_id(state)} --> {_id(to)}: {on.value}" for on, to in row.items()]
            if not row:
                lines.append(f"    {_id(state)} --> [*]")
        return "\n".join(lines)


STATES: Final = (
    StateTable("connection", TRANSITIONS),
    StateTable("socks-server", SERVER_TRANSITIONS),
    StateTable("bitcoin-flow", flow.TRANSITIONS),
    StateTable("bip324-transport", transport.TRANSITIONS),
)


def drawn(document: str, tables: tuple[StateTable, ...] = STATES) -> str:
    """`document` with each diagram between its marks; ValueError if a mark is not there once."""
    for table in tables:
        begin, end = f"<!-- states: {table.name} -->", "<!-- end of states -->"
        place = re.compile(f"{re.escape(begin)}\n.*?{re.escape(end)}", re.DOTALL)
        places = place.findall(document)
        if len(places) != 1:
            raise ValueError(f"{begin} is there {len(places)} times, not once")
        diagram = f"{begin}\n```mermaid\n{table.diagram()}\n```\n{end}"
        document = document.replace(places[0], diagram)
    return document


def _id(state: Enum) -> str:
    value: str = state.value
    return value.replace(" ", "_").replace("-", "_")


def main() -> None:
    """Draw the diagrams of the file that is named, or of the architecture."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else DOCUMENT
    path.write_text(drawn(path.read_text()))


if __name__ == "__main__":
    main()
