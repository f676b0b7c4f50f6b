"""OpenSSH's server, for the user who runs the tests, with a key that was just made."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.kit.ports import free_port

_START_S: Final = 30
_PRIVILEGE_SEPARATION: Final = Path("/run/sshd")


@dataclass(frozen=True)
class SshServer:
    """`client_lines` are what a client's configuration needs to be let in."""

    port: int
    client_lines: str


def _key(path: Path) -> str:
    """Make a key pair; returns the public half."""
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(path)]
    subprocess.run(command, check=True, timeout=_START_S)
    return path.with_suffix(".pub").read_text()


@contextlib.contextmanager
def ssh_server(host: str, directory: Path) -> Iterator[SshServer]:
    """The server at a free port of `host`; its files are below `directory`."""
    program = shutil.which("sshd") or "/usr/sbin/sshd"
    assert Path(program).exists(), "sshd is not installed: apt-get install openssh-server"
    if os.geteuid() == 0:
        _PRIVILEGE_SEPARATION.mkdir(mode=0o755, exist_ok=True)
    port = free_port(host)
    public = _key(directory / "host")
    (directory / "authorized").write_text(_key(directory / "user"))
    (directory / "known").write_text(f"* {public}")
    config = directory / "sshd_config"
    config.write_text(
        f"ListenAddress {host}:{port}\nHostKey {directory}/host\nPidFile none\nUsePAM no\n"
        f"AuthorizedKeysFile {directory}/authorized\nStrictModes no\nUseDNS no\n"
        "PermitRootLogin prohibit-password\nPasswordAuthentication no\n"
        "Subsystem sftp internal-sftp\nLogLevel ERROR\n"
    )
    with (directory / "sshd.log").open("wb") as log:
        process = subprocess.Popen([program, "-D", "-e", "-f", str(config)], stderr=log)
    try:
        _await(process, host, port, directory / "sshd.log")
        client = f"Port {port}\nIdentityFile {directory}/user\nIdentitiesOnly yes\nBatchMode yes\n"
        yield SshServer(port, client + f"UserKnownHostsFile {directory}/known\n")
    finally:
        process.terminate()
        process.wait(_START_S)


def _await(process: subprocess.Popen[bytes], host: str, port: int, log: Path) -> None:
    deadline = time.monotonic() + _START_S
    while True:
        with contextlib.suppress(OSError):
            socket.create_connection((host, port), 1).close()
            return
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, "sshd does not listen"
        time.sleep(0.05)
