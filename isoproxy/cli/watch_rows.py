"""What the terminal view shows, as rows of text: pure functions of the status.

Invariants
    Identities are labels of the running process; where `observe.safe_logging` is on there is
    no name and no address in any row.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from isoproxy.cli.status_text import duration, size

Answer = dict[str, Any]
Rates = dict[str, tuple[float, float]]

COLUMNS: Final = (
    *("Identity", "Streams", "Look-ups", "Bitcoin", "Up", "Down", "Up/s", "Down/s", "Age"),
    "Listeners",
)
STREAM_COLUMNS: Final = ("State", "Circuit", "Relays", "Listener", "Age", "Up", "Down", "Target")


@dataclass(frozen=True)
class Order:
    """By which of `COLUMNS`, and whether the greatest comes first."""

    column: int = 1
    descending: bool = True

    def next(self) -> Order:
        """By the column after this one; words go up, numbers down."""
        column = (self.column + 1) % len(COLUMNS)
        return Order(column, descending=0 < column < len(COLUMNS) - 1)

    def reversed(self) -> Order:
        return Order(self.column, not self.descending)

    def __str__(self) -> str:
        return f"{COLUMNS[self.column].lower()} {'↓' if self.descending else '↑'}"


def rates(answer: Answer, before: Answer | None) -> tuple[float, float]:
    """Bytes per second up and down since `before`."""
    if before is None or answer["uptime_s"] <= before["uptime_s"]:
        return 0.0, 0.0
    seconds = answer["uptime_s"] - before["uptime_s"]
    now, then = answer["counters"], before["counters"]
    return (
        max(0.0, (now["bytes_up"] - then["bytes_up"]) / seconds),
        max(0.0, (now["bytes_down"] - then["bytes_down"]) / seconds),
    )


def identity_rows(
    answer: Answer, before: Answer | None, order: Order, wanted: str = ""
) -> list[tuple[str, ...]]:
    """A row for each identity whose label or listeners have `wanted` in them."""
    listeners: defaultdict[str, set[str]] = defaultdict(set)
    for flow in answer["flows"]:
        listeners[flow["key"]].add(flow["listener"])
    speeds = _rates_by_identity(answer, before)
    found = []
    for one in answer["identities"]:
        label = one["key"]
        names = ", ".join(sorted(listeners[label]))
        if wanted.lower() not in f"{label} {names}".lower():
            continue
        up, down = speeds.get(label, (0.0, 0.0))
        counts = (one["streams"], one["lookups"], one["bitcoin"])
        found.append(
            (label, *counts, one["bytes_up"], one["bytes_down"], up, down, one["age_s"], names)
        )
    found.sort(key=lambda row: row[0])
    found.sort(key=lambda row: row[order.column], reverse=order.descending)
    return [_texts(row) for row in found]


def stream_rows(answer: Answer, label: str) -> list[tuple[str, ...]]:
    """A row for each stream of an identity, the oldest first."""
    relays = answer["relays"]
    return [
        (
            flow["state"],
            ", ".join(flow["circuits"]) or "-",
            " → ".join(relays.get(flow["circuits"][0], ())) if flow["circuits"] else "-",
            flow["listener"],
            duration(flow["age_s"]),
            size(flow["bytes_up"]),
            size(flow["bytes_down"]),
            "-" if answer["scrubbed"] else flow["target"] or "-",
        )
        for flow in answer["flows"]
        if flow["key"] == label
    ]


def scale(series: Sequence[float]) -> Iterator[float]:
    """For a graph: rates differ by orders of magnitude; a trickle is seen beside a flood."""
    return (rate**0.5 for rate in series)


def _texts(row: tuple[Any, ...]) -> tuple[str, ...]:
    label, streams, lookups, bitcoin, up, down, up_s, down_s, age, names = row
    return (
        *(label, str(streams), str(lookups), str(bitcoin), size(up), size(down)),
        *(f"{size(up_s)}/s", f"{size(down_s)}/s", duration(age), names),
    )


def _rates_by_identity(answer: Answer, before: Answer | None) -> Rates:
    """Of identities that were there before; what ended meanwhile counts as nothing."""
    if before is None or answer["uptime_s"] <= before["uptime_s"]:
        return {}
    seconds = answer["uptime_s"] - before["uptime_s"]
    then = {one["key"]: one for one in before["identities"]}
    return {
        one["key"]: (
            max(0.0, (one["bytes_up"] - then[one["key"]]["bytes_up"]) / seconds),
            max(0.0, (one["bytes_down"] - then[one["key"]]["bytes_down"]) / seconds),
        )
        for one in answer["identities"]
        if one["key"] in then
    }
