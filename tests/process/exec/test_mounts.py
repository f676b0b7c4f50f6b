"""What a program does not find: each path by which the host would resolve or dial for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from isoproxy.exec.mounts import RESOLVING_OR_DIALLING, nsswitch
from tests.kit.namespaces import skip_without_namespaces

_HOST = """
import os, socket, sys
from isoproxy.exec import mounts, namespace
namespace.enter()
mounts.hide((), ())
mounts.empty("/run")
kept = []
for path in (*sys.argv[2:], "/run/dbus/system_bus_socket"):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    kept.append(socket.socket(socket.AF_UNIX))
    kept[-1].bind(path)
    kept[-1].listen()
def reached(path):
    with socket.socket(socket.AF_UNIX) as sock:
        try:
            sock.connect(path)
        except OSError:
            return False
    return True
print(*map(reached, sys.argv[2:]))
if not os.fork():
    namespace.enter()
    mounts.hide((*mounts.RESOLVING_OR_DIALLING, sys.argv[1]), sys.argv[2:])
    mounts.name_services()
    namespace.give_up_privileges()
    print(*map(reached, sys.argv[2:]), reached("/run/dbus/system_bus_socket"))
    for path in ("/etc/resolv.conf", "/etc/nsswitch.conf"):
        lines = open(path).read().splitlines()
        print([line for line in lines if line.startswith(("hosts", "name"))])
    sys.stdout.flush()
    os._exit(0)
os.wait()
print(*map(reached, sys.argv[2:]))
"""
_SOCKETS = {
    "nscd": "/run/nscd/socket",
    "nss-resolve": "/run/systemd/resolve/io.systemd.Resolve",
    "avahi": "/run/avahi-daemon/socket",
    "Tor's SocksPort": "/run/tor/socks",
    "Tor's ControlPort": "/run/tor/control",
    "a system's isoproxy": "/run/isoproxy/admin",
}


def seen(hidden: str, *sockets: str) -> list[str]:
    """What is reached on a host, by a program of it, and on the host again."""
    skip_without_namespaces()
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _HOST, hidden, *sockets],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


@pytest.mark.parametrize("what", _SOCKETS)
def test_no_socket_that_would_resolve_or_dial_is_found(what: str, tmp_path: Path) -> None:
    path = _SOCKETS[what]
    assert str(Path(path).parent) in RESOLVING_OR_DIALLING
    lines = seen(str(tmp_path), path)
    assert lines[0] == "True"
    assert lines[1] == "False True"  # D-Bus stays, as the page says
    assert lines[-1] == "True"


def test_directories_and_sockets_of_our_own_are_hidden_wherever_they_are(tmp_path: Path) -> None:
    own = tmp_path / "own"
    lines = seen(str(own), str(own / "tor/socks"), str(tmp_path / "listener"))
    assert lines[:2] == ["True True", "False False True"]
    assert lines[-1] == "True True"


def test_names_are_looked_up_in_files_and_here_alone(tmp_path: Path) -> None:
    _, _, resolv, switch, *_ = seen(str(tmp_path))
    assert resolv == "['nameserver 127.0.0.1']"
    assert switch == "['hosts: files dns']"


def test_the_line_of_hosts_is_another_and_the_rest_stays() -> None:
    text = "passwd: files systemd\nhosts: mymachines resolve [!UNAVAIL=return] files dns\nrpc: db\n"
    assert nsswitch(text) == "passwd: files systemd\nrpc: db\nhosts: files dns\n"
    assert nsswitch("") == "\nhosts: files dns\n"
    assert nsswitch("  hosts: resolve") == "\nhosts: files dns\n"
