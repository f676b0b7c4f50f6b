"""Files of the state directory, written so that no other user can read or divert them."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def replace_file(path: Path, text: str, *, durable: bool = True) -> None:
    """Put `text` into the file at `path`: complete and of mode 0600, or not at all.

    It is written beside `path` first, into a file that was not there before: one that
    another user has put there, or a symbolic link, is removed and not written to.
    Unless it need not be `durable`, the disk is waited for.  Raises OSError.
    """
    fresh = path.with_name(f"{path.name}.new")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(fresh)
    with open(os.open(fresh, _NEW, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    os.replace(fresh, path)
