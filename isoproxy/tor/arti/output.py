"""What an Arti of our own prints, read for `TorLog` and for the person who started us.

Invariants
    `problems` are kept as Arti wrote them until `settle`: nobody's activity can be in
    the words of an Arti that has never run.

Specification: what Arti 2.7 prints.
"""

from __future__ import annotations

import re
from collections import deque
from typing import Final

from isoproxy.tor.managed.log import TorLog

_LINE = re.compile(
    r"\S*T(?P<time>\d\d:\d\d:\d\d)\S* +(?P<level>INFO|WARN|ERROR) +(?:[a-z_0-9:]+: )?(?P<text>.*)"
)
_FATAL = re.compile(r"(?:\S*arti: )?(?:error: )(?P<text>.*)")
_LEVELS: Final = {"INFO": "notice", "WARN": "warn", "ERROR": "err"}
_MAX_LINE: Final = 400


class ArtiOutput:
    """Reads Arti's output, line by line, into `log`."""

    def __init__(self, log: TorLog) -> None:
        self._log = log
        self.problems: deque[str] = deque(maxlen=6)
        self.is_refusal = False
        """Whether it ended itself, since it cannot work with what it was given."""
        self._rest = b""
        self._settled = False

    def feed(self, data: bytes) -> None:
        """The next bytes of Arti's output."""
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest = rest[:_MAX_LINE]
        for line in lines:
            self._line(line[:_MAX_LINE].decode("ascii", "replace"))

    def settle(self) -> None:
        """Arti runs: what it prints from now on may concern somebody's activity."""
        self._settled = True
        self._rest = b""

    def _line(self, line: str) -> None:
        text = "".join(c for c in line if c.isprintable())
        if match := _LINE.fullmatch(text):
            self._log.add(match["time"], _LEVELS[match["level"]], match["text"])
            if match["level"] != "INFO":
                self._remember(match["text"])
        elif match := _FATAL.fullmatch(text):
            self._log.add("--:--:--", "err", match["text"])
            self.is_refusal = True
            self._remember(match["text"])

    def _remember(self, text: str) -> None:
        if not self._settled:
            self.problems.append(text)
