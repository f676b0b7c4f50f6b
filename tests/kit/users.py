"""Being another user for a moment: the kernel tells servers on unix sockets who connects."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Final

NOBODY: Final = 65534


@contextlib.contextmanager
def effective_user(uid: int) -> Iterator[None]:
    """What happens inside happens as user `uid`.  Only root may become somebody else."""
    before = os.geteuid()
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(before)
