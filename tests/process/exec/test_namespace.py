"""Namespaces without privileges, and what is said where there are none."""

from __future__ import annotations

import ctypes
import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from isoproxy.errors import OperationError
from isoproxy.exec import namespace
from tests.kit.namespaces import skip_without_namespaces

_PROGRAM = """
import os
from isoproxy.exec import namespace
namespace.enter()
namespace.give_up_privileges()
os.execvp("grep", ["grep", "-E", "^(Cap|NoNewPrivs|Uid|Gid)", "/proc/self/status"])
"""


def test_a_program_has_the_users_id_no_capability_and_gains_none() -> None:
    skip_without_namespaces()
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM], capture_output=True, text=True, timeout=60, check=True
    )
    status = dict(line.split(":", 1) for line in done.stdout.splitlines())
    assert set(status.pop("Uid").split()) == {str(os.geteuid())}
    assert set(status.pop("Gid").split()) == {str(os.getegid())}
    assert status.pop("NoNewPrivs").strip() == "1"
    assert len(status) == 5
    assert all(int(capabilities, 16) == 0 for capabilities in status.values())


@pytest.mark.parametrize("error", [errno.EPERM, errno.EACCES, errno.ENOSPC])
def test_what_forbids_it_is_said(
    error: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    switch = tmp_path / "switch"
    monkeypatch.setattr(namespace, "_RESTRICTED", ((switch, "1", "turn the switch"),))
    assert "a container's" in str(namespace.refused(OSError(error, "no")))
    switch.write_text("0\n")
    assert "turn" not in str(namespace.refused(OSError(error, "no")))
    switch.write_text("1\n")
    assert str(namespace.refused(OSError(error, "no"))).endswith("no namespace: turn the switch")


def test_other_problems_are_said_as_they_are() -> None:
    assert "No such device" in str(namespace.refused(OSError(errno.ENODEV, "No such device")))


def test_a_failed_call_is_an_error() -> None:
    with pytest.raises(OSError, match="Invalid argument"):
        namespace.called(namespace.libc.unshare(1))
    namespace.called(0)


def test_a_namespace_that_cannot_be_made_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(flags: int) -> int:
        ctypes.set_errno(errno.EPERM)
        return -1

    class Closed:
        unshare = staticmethod(refuse)

    monkeypatch.setattr(namespace, "libc", Closed)
    with pytest.raises(OperationError, match="no namespace"):
        namespace.enter()
