"""The last steps to a program; the whole of it is in tests/process/cli/test_exec.py."""

from __future__ import annotations

import subprocess
import sys

import pytest

from isoproxy.exec import interface
from isoproxy.exec.launch import NOT_EXECUTABLE, NOT_FOUND, ProgramMissing, become
from tests.kit.namespaces import skip_without_namespaces

_SOCKETS = """
from isoproxy.exec import interface, namespace
from isoproxy.exec.launch import open_sockets
namespace.enter()
interface.make_everything_local()
sockets, listeners = open_sockets()
ports = {sock.getsockname()[1] for sock in sockets[:listeners]}
print(listeners, len(ports), {sock.getsockname()[1] for sock in sockets[listeners:]})
print(*(sock.getsockname()[0] for sock in sockets))
"""


def test_there_are_sockets_of_each_family_at_the_same_ports() -> None:
    skip_without_namespaces()
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _SOCKETS],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    if interface.has_ipv6():
        assert done.stdout == "2 1 {53}\n127.0.0.1 ::1 127.0.0.1 ::1\n"
    else:
        assert done.stdout == "1 1 {53}\n127.0.0.1 127.0.0.1\n"


@pytest.mark.parametrize(
    ("program", "code"), [("/no/such/program", NOT_FOUND), ("/dev/null", NOT_EXECUTABLE)]
)
def test_what_cannot_be_started_has_the_exit_code_of_env(program: str, code: int) -> None:
    with pytest.raises(ProgramMissing) as raised:
        become([program])
    assert raised.value.code == code


def test_a_program_takes_our_place() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from isoproxy.exec.launch import become; become(['echo', 'x'])"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == "x\n"
