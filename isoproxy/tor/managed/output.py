"""What a program of ours prints, line by line.

Invariants
    A line is at most `_MAX_LINE` bytes.  `problems` are the last complaints before
    `settle`, for the person who started us: nobody's activity can be in the words of a
    program that has never run.  They are scrubbed where the program knows a bridge, which
    it repeats.
"""

from __future__ import annotations

import abc
from collections import deque
from typing import Final

from isoproxy.tor.managed.log import TorLog, scrub

_MAX_LINE: Final = 400


class ProgramOutput(abc.ABC):
    """Reads output into `log`."""

    def __init__(self, log: TorLog, *, scrubbed: bool = False) -> None:
        self.log = log
        self._scrubbed = scrubbed
        self.problems: deque[str] = deque(maxlen=6)
        self._rest = b""
        self._settled = False

    def feed(self, data: bytes) -> None:
        """The next bytes of output."""
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest = rest[:_MAX_LINE]
        for line in lines:
            text = line[:_MAX_LINE].decode("ascii", "replace")
            self._line("".join(c for c in text if c.isprintable()))

    def settle(self) -> None:
        """It runs: what it prints from now on may concern somebody's activity."""
        self._settled = True
        self._rest = b""

    @abc.abstractmethod
    def _line(self, line: str) -> None:
        """One line, of printable characters."""

    def _complaint(self, text: str) -> None:
        """Remember a complaint, if it is one of a program that has never run."""
        if not self._settled:
            self.problems.append(scrub(text) if self._scrubbed else text)
