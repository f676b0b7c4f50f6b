"""What an Arti of our own prints.

Specification: what Arti 2.7 prints.
"""

from __future__ import annotations

import re
from typing import Final

from isoproxy.tor.managed.output import ProgramOutput

_LINE = re.compile(
    r"\S*T(?P<time>\d\d:\d\d:\d\d)\S* +(?P<level>INFO|WARN|ERROR) +(?:[a-z_0-9:]+: )?(?P<text>.*)"
)
_FATAL = re.compile(r"(?:\S*arti: )?(?:error: )(?P<text>.*)")
_LEVELS: Final = {"INFO": "notice", "WARN": "warn", "ERROR": "err"}


class ArtiOutput(ProgramOutput):
    """Reads Arti's output; `is_refusal` says that it ended over what it was given."""

    is_refusal = False

    def _line(self, line: str) -> None:
        if match := _LINE.fullmatch(line):
            self.log.add(match["time"], _LEVELS[match["level"]], match["text"])
            if match["level"] != "INFO":
                self._complaint(match["text"])
        elif match := _FATAL.fullmatch(line):
            self.log.add("--:--:--", "err", match["text"])
            self.is_refusal = True
            self._complaint(match["text"])
