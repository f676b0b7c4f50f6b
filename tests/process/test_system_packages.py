"""`scripts/system-packages` with an apt-get that does nothing, or is interrupted."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kit.repository import ROOT

SCRIPT = ROOT / "scripts" / "system-packages"

_SUDO = '#!/bin/sh\nexec "$@"\n'
_ID = "#!/bin/sh\necho 1000\n"


def installed(
    tmp_path: Path, install: str, *, tor: str = "/", **environment: str
) -> subprocess.CompletedProcess[str]:
    """The end of `system-packages run`, when `tor` shows that tor is there.

    `install` is what apt-get does when it is to install.
    """
    policy, programs = tmp_path / "policy-rc.d", tmp_path / "bin"
    programs.mkdir(exist_ok=True)
    script = SCRIPT.read_text()
    assert "policy=/usr/sbin/policy-rc.d\n" in script
    assert "\nneed tor tor\n" in script
    for name, text in {
        "script": script.replace("/usr/sbin/policy-rc.d", str(policy)).replace(
            "need tor tor", f"need tor {tor}"
        ),
        "sudo": _SUDO,
        "id": _ID,
        "apt-get": f"#!/bin/sh\n[ $1 = install ] || exit 0\n{install}\n",
    }.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    return subprocess.run(
        ["/bin/sh", programs / "script", "run"],
        env={
            **os.environ,
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PYTHON": sys.executable,
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("install", "code"),
    [("exit 0", 0), ("exit 100", 100), ("kill -INT $PPID; exit 130", 130),
     ("kill -TERM $PPID; exit 143", 143)],
)  # fmt: skip
def test_services_of_later_upgrades_start(tmp_path: Path, install: str, code: int) -> None:
    """However it ends, the policy that keeps services from starting is gone."""
    policy = tmp_path / "policy-rc.d"
    done = installed(tmp_path, f"[ -x {policy} ] || exit 7\n{install}", tor="/no/such/file")
    assert "installing: tor\n" in done.stdout
    assert done.returncode == code, done.stderr
    assert not policy.exists()


def test_authorities_are_installed_where_there_are_none(tmp_path: Path) -> None:
    """A fresh Debian has none, and the light client would believe what a server shows first."""
    directory, file = tmp_path / "certs", tmp_path / "none.pem"
    directory.mkdir()
    there = {"SSL_CERT_DIR": str(directory), "SSL_CERT_FILE": str(file)}
    assert "installing: ca-certificates\n" in installed(tmp_path, "exit 0", **there).stdout
    (directory / "0.0").touch()
    assert installed(tmp_path, "exit 0", **there).stdout == ""
    (directory / "0.0").unlink()
    file.touch()
    assert installed(tmp_path, "exit 0", **there).stdout == ""
