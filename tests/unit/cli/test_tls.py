"""`isoproxy tls`: the root from its making to its end, and the words about streams."""

from __future__ import annotations

import json
import ssl
from pathlib import Path
from typing import Any

import pytest

from isoproxy.cli import main, tls


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "state"))
    return tmp_path / "state"


def test_a_root_is_made_printed_and_forgotten(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tls", "root"]) == 1
    assert "isoproxy tls init" in capsys.readouterr().err
    assert main(["tls", "init"]) == 0
    made = capsys.readouterr().out
    assert ssl.PEM_cert_to_DER_cert(made)
    assert main(["tls", "root"]) == 0
    assert capsys.readouterr().out == made
    assert main(["tls", "root", "--path"]) == 0
    where = Path(capsys.readouterr().out.strip())
    assert where == state / "tls" / "root.pem"
    assert where.read_text() == made
    assert main(["tls", "init"]) == 1
    assert "forget" in capsys.readouterr().err
    assert main(["tls", "forget"]) == 0
    assert "browsers" in capsys.readouterr().out
    assert main(["tls", "forget"]) == 0
    assert capsys.readouterr().out == "there is no root\n"


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ({"enabled": False}, "off; see [tls] in the configuration\n"),
        (
            {
                "enabled": True,
                "listeners": ["default"],
                "intermediate_ends": "2026-12-15T00:00:00+00:00",
                "streams": [{"outcome": "onion", "count": 3, "explanation": "carried"}],
            },
            "listeners: default\nintermediate: until 2026-12-15T00:00:00+00:00\n"
            "       3  onion: carried\n",
        ),
    ],
)
def test_what_became_of_streams(
    answer: dict[str, Any],
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(tls, "ask", lambda path, what: answer if what == "tls" else None)
    assert main(["tls", "status"]) == 0
    assert capsys.readouterr().out == told
    assert main(["tls", "status", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == answer
