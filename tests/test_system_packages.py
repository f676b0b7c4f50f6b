"""`scripts/system-packages` with an apt-get that does nothing, or is interrupted."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "system-packages"

_SUDO = '#!/bin/sh\nexec "$@"\n'
_ID = "#!/bin/sh\necho 1000\n"


@pytest.mark.parametrize(
    ("install", "code"),
    [("exit 0", 0), ("exit 100", 100), ("kill -INT $PPID; exit 130", 130),
     ("kill -TERM $PPID; exit 143", 143)],
)  # fmt: skip
def test_services_of_later_upgrades_start(tmp_path: Path, install: str, code: int) -> None:
    """However it ends, the policy that keeps services from starting is gone."""
    policy, programs = tmp_path / "policy-rc.d", tmp_path / "bin"
    programs.mkdir()
    script = SCRIPT.read_text()
    assert "policy=/usr/sbin/policy-rc.d\n" in script
    for name, text in {
        "script": script.replace("/usr/sbin/policy-rc.d", str(policy)).replace(
            "need tor tor", "need tor /no/such/file"
        ),
        "sudo": _SUDO,
        "id": _ID,
        "apt-get": f"#!/bin/sh\n[ $1 = install ] || exit 0\n[ -x {policy} ] || exit 7\n{install}\n",
    }.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    done = subprocess.run(
        ["/bin/sh", programs / "script", "run"],
        env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "installing:" in done.stdout
    assert done.returncode == code, done.stderr
    assert not policy.exists()
