"""Promise: the demonstration works, every line of it, without the internet."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.network
def test_every_line_of_the_demo_works() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.kit.demo", "--check"],
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "All lines worked; no circuit carried two identities." in done.stdout
    assert done.stdout.count("\ncurl ") == 8
