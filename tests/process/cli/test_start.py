"""A command that only asks a running isoproxy starts without what the daemon is made of."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = (
    "asyncio",
    "coincurve",
    "cryptography",
    "dns",
    "h11",
    "isoproxy.bitcoin",
    "isoproxy.client",
    "isoproxy.daemon",
    "isoproxy.dns",
    "isoproxy.doctor",
    "isoproxy.front",
    "isoproxy.namecoin",
    "isoproxy.observe",
    "isoproxy.workers",
    "logging",
    "ssl",
    "stem",
    "textual",
)
SCRIPT = """
import sys
from isoproxy.cli import main
code = main(sys.argv[1:])
print("CODE", code, file=sys.stderr)
print(*sys.modules, file=sys.stderr)
"""


@pytest.mark.parametrize("words", [["status"], ["newnym"], ["reload"], ["onions"]])
def test_commands_that_only_ask_load_nothing_heavy(tmp_path: Path, words: list[str]) -> None:
    place = ["-c", "/dev/null", "--set", f"observe.admin=unix:{tmp_path}/none"]
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT, *words, *place], capture_output=True, text=True, check=False
    )
    told, _, loaded = ran.stderr.partition("CODE 1\n")
    assert "no isoproxy listens" in told, ran.stderr
    modules = set(loaded.split())
    assert "isoproxy.admin.client" in modules
    assert modules.isdisjoint(HEAVY)
