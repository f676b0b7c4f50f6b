"""`scripts/system-packages` with an apt-get that does nothing, or is interrupted."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

from tests.kit.repository import ROOT

SCRIPT = ROOT / "scripts" / "system-packages"

_SUDO = '#!/bin/sh\nexec "$@"\n'
_ID = "#!/bin/sh\necho 1000\n"


def installed(
    tmp_path: Path,
    install: str,
    *,
    tor: str = "/",
    programs_too: Mapping[str, str] = MappingProxyType({}),
    environment: Mapping[str, str] = MappingProxyType({}),
) -> subprocess.CompletedProcess[str]:
    """The end of `system-packages run`, when `tor` shows that tor is there.

    `install` is what apt-get does when it is to install, `programs_too` are shell scripts
    that stand for other programs.
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
        **{name: f"#!/bin/sh\n{script}\n" for name, script in programs_too.items()},
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
    assert (
        "installing: ca-certificates\n" in installed(tmp_path, "exit 0", environment=there).stdout
    )
    (directory / "0.0").touch()
    assert installed(tmp_path, "exit 0", environment=there).stdout == ""
    (directory / "0.0").unlink()
    file.touch()
    assert installed(tmp_path, "exit 0", environment=there).stdout == ""


_DPKG = """
case $1 in
-W) echo installed old; echo config-files tor
    [ ! -e {here}/there ] || printf 'installed %s\\n' tor systemd-sysv ;;
-L) for name in a.service a.socket a.timer b.service t@.service; do
        echo /lib/systemd/system/$2-$name
    done
    echo /usr/lib/systemd/system/tor.service.wants/no.service ;;
esac
"""
_SYSTEMCTL = """
[ "$1" = --root=/ ] || exit 7
case "$2 $3" in
"is-enabled "*-b.service) echo disabled; exit 1 ;;
is-enabled*) echo enabled ;;
disable*) echo "$4" >>{here}/disabled ;;
esac
"""


@pytest.mark.parametrize("code", [0, 100])
def test_what_was_installed_is_not_enabled_for_the_next_boot(tmp_path: Path, code: int) -> None:
    """An ssh server, unbound and tor were; what was there before is left as it was."""
    done = installed(
        tmp_path,
        f"touch {tmp_path}/there; exit {code}",
        tor="/no/such/file",
        programs_too={
            "dpkg-query": _DPKG.format(here=tmp_path),
            "systemctl": _SYSTEMCTL.format(here=tmp_path),
        },
    )
    assert done.returncode == code, done.stderr
    units = ["tor-a.service", "tor-a.socket", "tor-a.timer"]
    assert (tmp_path / "disabled").read_text().split() == units
    assert [line.split()[-1] for line in done.stdout.splitlines() if "not enabled" in line] == units


def test_a_tool_chain_is_installed_for_the_package() -> None:
    """`make deb` ended at the first build dependency on a clean Debian."""
    lines = SCRIPT.read_text().split("= deb ]; then", 1)[1].split("fi\n", 1)[0]
    assert "need build-essential /" in lines
