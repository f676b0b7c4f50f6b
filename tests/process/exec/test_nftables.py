"""Rules in the kernel, by libnftables."""

from __future__ import annotations

import subprocess
import sys

import pytest

from isoproxy.errors import OperationError
from isoproxy.exec import nftables
from tests.kit.namespaces import skip_without_namespaces

_PROGRAM = """
import sys
from isoproxy.errors import OperationError
from isoproxy.exec import namespace, nftables
namespace.enter()
try:
    nftables.load(sys.argv[1])
except OperationError as error:
    print(error)
"""


def loaded(rules: str) -> str:
    skip_without_namespaces()
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, rules],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout


def test_rules_are_taken_or_it_is_said_why_not() -> None:
    assert loaded("add table inet x\nadd chain inet x y") == ""
    assert "syntax error" in loaded("table inet x { chian y { } }")


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nftables, "_LIBRARY", "libnothing.so.9")
    with pytest.raises(OperationError, match="apt-get install libnftables1"):
        nftables.load("")
