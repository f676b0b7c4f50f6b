"""What is on a machine's disk, to be compared before and after a package."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

Files = dict[str, str]
"""Paths, each with type, mode, owner, and what it holds."""

_VOLATILE: Final = (
    "/dev", "/proc", "/run", "/sys", "/tmp", "/root",
    "/var/cache", "/var/log", "/var/tmp", "/var/lib/apt", "/var/lib/systemd/timers",
    "/var/lib/systemd/timesync", "/var/lib/tor",
    # dpkg's own book; of packages that are gone it holds no files
    "/var/lib/dpkg/status", "/var/lib/dpkg/status-old", "/var/lib/dpkg/available",
    "/var/lib/dpkg/info/format", "/var/lib/dpkg/triggers", "/var/lib/dpkg/lock",
)  # fmt: skip
"""Changes with time, whatever is installed."""


def files(root: Path) -> Files:
    """Everything on the disk of the machine below `root`."""
    return dict(_walk(root, ""))


def changed(before: Files, after: Files) -> list[str]:
    """What was added, removed, or is different, one line each."""
    lines = [f"added {path}" for path in sorted(after.keys() - before.keys())]
    lines += [f"removed {path}" for path in sorted(before.keys() - after.keys())]
    both = sorted(before.keys() & after.keys())
    return lines + [f"changed {path}" for path in both if before[path] != after[path]]


def _walk(root: Path, below: str) -> Iterator[tuple[str, str]]:
    with os.scandir(f"{root}{below}/") as entries:
        for entry in entries:
            path = f"{below}/{entry.name}"
            if path in _VOLATILE:
                continue
            yield path, _describe(Path(entry.path))
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(root, path)


def _describe(path: Path) -> str:
    info = path.lstat()
    text = f"{stat.filemode(info.st_mode)} {info.st_uid}:{info.st_gid}"
    if stat.S_ISLNK(info.st_mode):
        return f"{text} -> {path.readlink()}"
    if stat.S_ISREG(info.st_mode):
        return f"{text} {hashlib.sha256(path.read_bytes()).hexdigest()}"
    return text
