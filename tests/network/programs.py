"""Programs of others, run to their end."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import Final

_PACKAGE: Final = {"tor-resolve": "tor"}
_TIMEOUT_S: Final = 90


def program(*command: str) -> str:
    """Run a program; returns its output, raises CalledProcessError if it failed.

    A program that is not installed fails the test: a promise about it was not kept.
    """
    name = command[0]
    assert shutil.which(name), (
        f"{name} is not installed: apt-get install {_PACKAGE.get(name, name)}"
    )
    # Settings of this machine's user are nobody's business here.
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "LC_ALL": "C"}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=_TIMEOUT_S, env=environment, check=True
    )
    return done.stdout


def curl(*arguments: str) -> str:
    """Fetch with curl; raises CalledProcessError with its explanation."""
    return program("curl", "-sS", *arguments)
