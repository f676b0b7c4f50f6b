"""`isoproxy status --watch` at a terminal: graphs, identities to sort and filter, their streams.

Theory of operation
    Textual draws and reads keys.  Every second a thread asks the running isoproxy for its status,
    for the admin socket's client blocks; what it says is shown in the one after.  The graphs
    begin with the last hour, if the running isoproxy keeps it (where it has a dashboard).

    Only the handler of `status --watch` imports this: Textual is an extra of the package, and
    takes its time to load.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any, ClassVar, Final

from textual import work
from textual.app import App, ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical
from textual.widgets import DataTable, Footer, Input, Label, Sparkline, Static
from textual.worker import get_current_worker

from isoproxy.cli.status_text import counted, duration, names_text, size, tor_text
from isoproxy.cli.watch_rows import (
    COLUMNS,
    STREAM_COLUMNS,
    Answer,
    Order,
    identity_rows,
    rates,
    scale,
    stream_rows,
)
from isoproxy.errors import OperationError

PERIOD_S: Final = 1.0
SAMPLES: Final = 360

Ask = Callable[[str], Answer]


class Watch(App[None]):
    """The view; `ask` is how a running isoproxy is asked, and blocks."""

    CSS = """
    #head { height: auto; padding: 0 1; color: $text-muted; }
    #graphs { height: 5; }
    #graphs Vertical { padding: 0 1; }
    Sparkline { height: 3; width: 1fr; }
    #up .sparkline--max-color, #up .sparkline--min-color { color: $warning; }
    #down .sparkline--max-color, #down .sparkline--min-color { color: $success; }
    #filter { display: none; height: 3; }
    #filter.shown { display: block; }
    #identities { height: 2fr; }
    #streams { height: 1fr; border-top: solid $primary; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        ("q", "quit", "Quit"),
        ("s", "sort", "Sort by the next column"),
        ("r", "reverse", "Reverse"),
        ("slash", "filter", "Filter"),
        ("escape", "everything", "No filter"),
    ]
    ENABLE_COMMAND_PALETTE = False

    def __init__(self, ask: Ask) -> None:
        super().__init__()
        self._ask = ask
        self._before: Answer | None = None
        self._answer: Answer | None = None
        self._order = Order()
        self._label = ""
        self._series: dict[str, deque[float]] = {
            way: deque(maxlen=SAMPLES) for way in ("up", "down")
        }

    def compose(self) -> ComposeResult:
        yield Static("waiting", id="head", markup=False)
        with Horizontal(id="graphs"):
            for way in ("up", "down"):
                with Vertical():
                    yield Label(way, id=f"{way}-now", markup=False)
                    yield Sparkline([], id=way)
        yield Input(placeholder="part of a label or of a listener's name", id="filter")
        yield DataTable(id="identities", cursor_type="row", zebra_stripes=True)
        yield DataTable(id="streams", cursor_type="none")
        yield Footer()

    def on_mount(self) -> None:
        """Begin to ask."""
        self._table("identities").add_columns(*COLUMNS)
        self._table("streams").add_columns(*STREAM_COLUMNS)
        self._table("identities").focus()
        self._keep_asking()

    @work(thread=True)
    def _keep_asking(self) -> None:
        worker = get_current_worker()
        try:
            history = self._ask("history")
            self.call_from_thread(self._begin, history)
        except OperationError:
            pass  # the first status says why
        while not worker.is_cancelled:
            try:
                self.call_from_thread(self.show, self._ask("status"))
            except OperationError as error:
                self.call_from_thread(self._say, str(error))
            time.sleep(PERIOD_S)

    def _begin(self, history: dict[str, Any]) -> None:
        """The graphs as they were before anybody looked."""
        for way, series in self._series.items():
            series.extend(history[way])

    def show(self, answer: Answer) -> None:
        """Show a status."""
        self._before, self._answer = self._answer, answer
        counters = answer["counters"]
        shared = counters["destinations_without_credentials"]
        lines = [
            f"isoproxy {answer['version']}, up {duration(answer['uptime_s'])}; "
            f"{counted(counters['identities'], 'identity', 'identities')}, "
            f"{counted(counters['open'], 'stream', 'streams')}, epoch {answer['epoch']}",
            tor_text(answer["tor"]),
            names_text(answer["names"]),
        ]
        if shared > 1:
            lines.append(f"WITHOUT CREDENTIALS: {shared} destinations share one identity")
        self._say("\n".join(lines))
        for way, rate in zip(("up", "down"), rates(answer, self._before), strict=True):
            if self._before is not None:
                self._series[way].append(rate)
            self.query_one(f"#{way}-now", Label).update(f"{way} {size(rate)}/s")
            self.query_one(f"#{way}", Sparkline).data = list(scale(self._series[way]))
        self._show_rows()

    def _show_rows(self) -> None:
        if self._answer is None:
            return
        wanted = self.query_one("#filter", Input).value
        rows = identity_rows(self._answer, self._before, self._order, wanted)
        table = self._table("identities")
        table.border_title = f"sorted by {self._order}"
        scrolled = table.scroll_y
        # the cursor may have moved since its last event was heard
        self._label = self._under_cursor() or self._label
        table.clear()
        for row in rows:
            table.add_row(*row, key=row[0])
        labels = [row[0] for row in rows]
        if self._label in labels:
            table.move_cursor(row=labels.index(self._label), scroll=False)
            table.scroll_to(y=scrolled, animate=False)
        else:
            self._label = labels[0] if labels else ""
        self._show_streams()

    def _show_streams(self) -> None:
        table = self._table("streams")
        table.clear()
        if self._answer is not None:
            for row in stream_rows(self._answer, self._label):
                table.add_row(*row)

    def on_data_table_row_highlighted(self, event: DataTable.RowHighlighted) -> None:
        """Show the streams of the identity under the cursor.

        Where that is now counts, not at the event: filling the table anew moves it, too.
        """
        label = self._under_cursor()
        if event.data_table.id == "identities" and label not in ("", self._label):
            self._label = label
            self._show_streams()

    def on_data_table_header_selected(self, event: DataTable.HeaderSelected) -> None:
        """Sort by the column that was clicked; once more reverses."""
        if event.data_table.id != "identities":
            return
        again = event.column_index == self._order.column
        self._order = self._order.reversed() if again else Order(event.column_index)
        self._show_rows()

    def on_input_changed(self, event: Input.Changed) -> None:
        """Filter as it is typed."""
        self._show_rows()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Back to the table, with the filter."""
        self._table("identities").focus()

    def action_sort(self) -> None:
        """By the next column."""
        self._order = self._order.next()
        self._show_rows()

    def action_reverse(self) -> None:
        """The other way round."""
        self._order = self._order.reversed()
        self._show_rows()

    def action_filter(self) -> None:
        """Type what rows must have."""
        field = self.query_one("#filter", Input)
        field.add_class("shown")
        field.focus()

    def action_everything(self) -> None:
        """All rows again."""
        field = self.query_one("#filter", Input)
        field.value = ""
        field.remove_class("shown")
        self._table("identities").focus()

    def _under_cursor(self) -> str:
        """The label of the row with the cursor, "" if there is none."""
        table = self._table("identities")
        return table.get_row_at(table.cursor_row)[0] if table.row_count else ""

    def _say(self, text: str) -> None:
        self.query_one("#head", Static).update(text)

    def _table(self, name: str) -> DataTable[str]:
        return self.query_one(f"#{name}", DataTable)


def watch(ask: Ask) -> None:
    """Show it until `q`."""
    Watch(ask).run()
