"""`isoproxy dns`: keys and questions."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from isoproxy.cli import main
from isoproxy.dns.sign import ZoneKey


def test_keygen_makes_a_key_once_and_prints_its_anchor(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "dns.key"
    assert main(["dns", "keygen", str(path)]) == 0
    printed = capsys.readouterr().out
    assert printed == ZoneKey.load(path).anchor() + "\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert main(["dns", "keygen", str(path)]) == 1
    assert "exists already" in capsys.readouterr().err
    assert main(["dns", "anchor", str(path)]) == 0
    assert capsys.readouterr().out == printed
    assert main(["dns", "anchor", str(tmp_path / "none")]) == 2
