"""`isoproxy tor log`: the lines of our own tor, or where those of another one are."""

from __future__ import annotations

from typing import Any

import pytest

from isoproxy.cli import main, tor


@pytest.mark.parametrize(
    ("lines", "code", "out", "err"),
    [
        (["02:08:49 [warn] x", "02:08:50 [notice] y"], 0, "[warn] x\n02:08:50 [notice] y\n", ""),
        ([], 0, "", ""),
        (None, 1, "", "journalctl"),
    ],
)
def test_the_log(
    lines: list[str] | None,
    code: int,
    out: str,
    err: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked: list[str] = []

    def ask(path: object, what: str) -> dict[str, Any]:
        asked.append(what)
        return {"lines": lines}

    monkeypatch.setattr(tor, "ask", ask)
    assert main(["tor", "log"]) == code
    told = capsys.readouterr()
    assert told.out.endswith(out)
    assert err in told.err
    assert asked == ["tor_log"]
