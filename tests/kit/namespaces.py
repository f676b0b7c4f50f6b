"""Network namespaces of an ordinary kind, for tests of what runs in them."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from typing import Final

import pytest

_PROBE: Final = """
from isoproxy.exec import interface, namespace, nftables
from isoproxy.transparent.rules import namespace_rules
namespace.enter()
interface.make_everything_local()
nftables.load(namespace_rules(9999))
"""


@cache
def _why_not() -> str:
    """What the system says where a user may set up no namespace; nothing where one may."""
    done = subprocess.run(
        [sys.executable, "-c", _PROBE], capture_output=True, text=True, timeout=60, check=False
    )
    return done.stderr.strip().splitlines()[-1] if done.returncode else ""


def skip_without_namespaces() -> None:
    """Skip a test, with the reason, where the kernel lets no namespace be set up."""
    if why := _why_not():
        pytest.skip(f"no namespace can be set up here: {why}")
