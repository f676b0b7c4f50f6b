"""How far Tor's start has come, for a person: with a bar on a terminal, without elsewhere."""

from __future__ import annotations

import shutil
from typing import Final, TextIO

from isoproxy.tor.control.events import Bootstrap

_BAR_COLUMNS: Final = 24


def render(bootstrap: Bootstrap, columns: int) -> str:
    """One line of at most `columns` characters: bar, percent, and what Tor is doing."""
    done = bootstrap.percent * _BAR_COLUMNS // 100
    bar = "#" * done + "-" * (_BAR_COLUMNS - done)
    text = f"tor [{bar}] {bootstrap.percent:3d}% {_words(bootstrap)}"
    return text[: max(0, columns)].rstrip()


def _words(bootstrap: Bootstrap) -> str:
    if bootstrap.warning:
        return f"{bootstrap.summary}: {bootstrap.warning}"
    return bootstrap.summary


class BootstrapProgress:
    """Writes each step to `stream`, a whole line each: others write between them."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._is_terminal = stream.isatty()
        self._last: Bootstrap | None = None

    def update(self, bootstrap: Bootstrap) -> None:
        """Show a step; a callback for `ManagedTor.on_progress`."""
        if bootstrap == self._last:
            return
        self._last = bootstrap
        if self._is_terminal:
            columns = shutil.get_terminal_size().columns - 1
            self._stream.write(render(bootstrap, columns) + "\n")
        else:
            self._stream.write(f"tor: {bootstrap.percent}% {_words(bootstrap)}\n")
        self._stream.flush()
