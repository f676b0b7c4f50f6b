"""What a tor of our own says, for the person who runs it: in memory, bounded and scrubbed.

Theory of operation
    Tor's SafeLogging leaves clients' addresses and targets out.  We do not rely on it:
    of a line only plain words, small numbers and absolute paths are kept, and everything
    else (addresses, host names, fingerprints, onion services, a bridge) is `[scrubbed]`.
    What remains says what is wrong: a transport that cannot start, a clock, a permission.

Invariants
    Nothing of it goes to a disk or to our own log.  At most `MAX_LINES` lines of at most
    `MAX_LINE` characters are kept, of all lives of tor.
"""

from __future__ import annotations

import re
from collections import deque
from typing import Final

SCRUBBED: Final = "[scrubbed]"
"""Tor's own word, and our log's."""
MAX_LINES: Final = 200
MAX_LINE: Final = 400

_KEPT: Final = re.compile(
    r"[(\"']*(?:[A-Za-z_]{1,24}(?:[-'][A-Za-z]{1,24}|\(s\))*|[0-9]{1,6}%?|/[A-Za-z0-9._/+-]*)"
    r"[\"')]*[.,;:!?]*[\"')]*|[-=]+|\[scrubbed\][.,;:]*"
)


def scrub(text: str) -> str:
    """`text` without what could identify anybody's activity or a bridge."""
    words = text[:MAX_LINE].split()
    return " ".join(word if _KEPT.fullmatch(word) else SCRUBBED for word in words)


class TorLog:
    """The last lines, oldest first."""

    def __init__(self) -> None:
        self._lines: deque[tuple[str, str, str]] = deque(maxlen=MAX_LINES)

    def add(self, time: str, level: str, text: str) -> None:
        """Keep a line of tor's; `time` is its HH:MM:SS."""
        self._lines.append((time, level, scrub(text)[:MAX_LINE]))

    @property
    def lines(self) -> list[str]:
        return [f"{time} [{level}] {text}" for time, level, text in self._lines]

    @property
    def complaint(self) -> str | None:
        """The last warning or error."""
        complaints = [text for _, level, text in self._lines if level != "notice"]
        return complaints[-1] if complaints else None
