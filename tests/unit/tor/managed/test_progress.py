"""The progress of Tor's start: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import io

from isoproxy.tor.control.events import Bootstrap
from isoproxy.tor.managed.progress import BootstrapProgress, render


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_bar_grows_with_the_percent() -> None:
    assert render(Bootstrap(0, "starting", "Starting"), 80) == f"tor [{'-' * 24}]   0% Starting"
    assert render(Bootstrap(50, "t", "Half"), 80) == f"tor [{'#' * 12}{'-' * 12}]  50% Half"
    assert render(Bootstrap(100, "done", "Done"), 80) == f"tor [{'#' * 24}] 100% Done"


def test_the_bar_fits_the_terminal_and_says_what_holds_it_up() -> None:
    stuck = Bootstrap(5, "conn", "Connecting", "No route to host")
    assert render(stuck, 200).endswith("5% Connecting: No route to host")
    assert len(render(stuck, 20)) == 20
    assert render(stuck, -1) == ""


def test_on_a_terminal_each_step_is_a_line_that_nobody_elses_words_run_into() -> None:
    terminal = Terminal()
    progress = BootstrapProgress(terminal)
    progress.update(Bootstrap(10, "conn", "Connecting"))
    progress.update(Bootstrap(10, "conn", "Connecting"))
    terminal.write("listening\n")
    progress.update(Bootstrap(100, "done", "Done"))
    assert terminal.getvalue().splitlines() == [
        f"tor [{'#' * 2}{'-' * 22}]  10% Connecting",
        "listening",
        f"tor [{'#' * 24}] 100% Done",
    ]


def test_elsewhere_each_step_is_a_plain_line() -> None:
    stream = io.StringIO()
    progress = BootstrapProgress(stream)
    for percent in (5, 5, 100):
        progress.update(Bootstrap(percent, "t", "Words"))
    assert stream.getvalue() == "tor: 5% Words\ntor: 100% Words\n"
