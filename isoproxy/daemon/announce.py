"""Lines for whoever started isoproxy: what listens where, and which onion services there are."""

from __future__ import annotations

import contextlib
from typing import TextIO


def announce(line: str, out: TextIO) -> None:
    """Write a line; that nobody reads any more is no reason to stop serving, or to leave a reload
    half done."""
    with contextlib.suppress(OSError, ValueError):
        print(line, file=out, flush=True)
