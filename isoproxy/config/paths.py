"""Where files of isoproxy are kept on this machine, by the conventions of systemd and XDG."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from isoproxy.errors import OperationError

SYSTEM_DIRECTORY: Final = Path("/etc/isoproxy")
_NO_HOME: Final = Path("/nonexistent")  # as Debian's policy has it
UNIT: Final = "isoproxy.service"
_UNIT_DIRECTORIES: Final = (Path("/usr/lib/systemd/system"), Path("/lib/systemd/system"))
LOCAL_DROP_INS: Final = Path("/usr/local/etc/isoproxy.d")  # kept by Whonix's bind-dirs


def configuration_directories(environment: Mapping[str, str] = os.environ) -> tuple[Path, ...]:
    """Where the configuration is, and then where drop-ins are apart from it.

    `$CONFIGURATION_DIRECTORY` alone, else those of the system.
    """
    given = environment.get("CONFIGURATION_DIRECTORY", "").partition(":")[0]
    return (Path(given),) if given else (SYSTEM_DIRECTORY, LOCAL_DROP_INS)


def state_directory(environment: Mapping[str, str] = os.environ) -> Path:
    """What must survive a restart: `$STATE_DIRECTORY`, else the XDG state directory."""
    given = environment.get("STATE_DIRECTORY", "").partition(":")[0]
    if given:
        return Path(given)
    return _absolute(environment, "XDG_STATE_HOME", _home(environment) / ".local/state")


def runtime_directory(environment: Mapping[str, str] = os.environ) -> Path:
    """Where sockets live; the state directory when the session offers no such place."""
    given = environment.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    if given:
        return Path(given)
    if environment.get("XDG_RUNTIME_DIR", "").startswith("/"):
        return Path(environment["XDG_RUNTIME_DIR"]) / "isoproxy"
    return state_directory(environment)


def private_directory(path: Path) -> Path:
    """Make `path`, for us alone, if it is missing; raises OperationError.

    One that other users could change is refused.
    """
    if path.is_relative_to(_NO_HOME):  # root could make it
        raise OperationError(
            "there is no home directory to keep anything in; set STATE_DIRECTORY to a directory "
            "that this user may write, or HOME"
        )
    try:
        _make(path)
        status = path.stat()
    except OSError as error:
        raise OperationError(
            f"the directory {path} cannot be made: {error.strerror}; set STATE_DIRECTORY to one "
            "that this user may write"
        ) from None
    if status.st_uid != os.geteuid():
        raise OperationError(
            f"the directory {path} belongs to another user, who could replace what is kept in it; "
            "run isoproxy as that user, or set STATE_DIRECTORY to another one"
        )
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise OperationError(
            f"other users may write to the directory {path}; chmod 700 it, after a look at what is "
            "in it"
        )
    return path


def start_command() -> str:
    """How isoproxy is started here: by its unit where the package installed one."""
    installed = any((directory / UNIT).exists() for directory in _UNIT_DIRECTORIES)
    return "systemctl start isoproxy" if installed else "isoproxy run"


def _make(path: Path) -> None:
    """Make a directory and those above it that are missing; all of them are ours alone."""
    if not path.parent.is_dir():
        _make(path.parent)
    path.mkdir(mode=0o700, exist_ok=True)


def _absolute(environment: Mapping[str, str], name: str, default: Path) -> Path:
    value = environment.get(name, "")
    return (Path(value) if value.startswith("/") else default) / "isoproxy"


def _home(environment: Mapping[str, str]) -> Path:
    home = environment.get("HOME", "")
    return Path(home) if home.startswith("/") else _NO_HOME
