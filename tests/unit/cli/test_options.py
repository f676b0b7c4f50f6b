"""Options that cannot be are usage errors, not tracebacks."""

from __future__ import annotations

import pytest

from isoproxy.cli import main


@pytest.mark.parametrize("text", ["nan", "inf", "-5", "0", "1e300", "soon"])
@pytest.mark.parametrize("command", [["dial", "192.0.2.1:80"], ["doctor"]])
def test_times_that_cannot_be(
    command: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*command, f"--timeout={text}"])
    assert ended.value.code == 2
    assert "--timeout" in capsys.readouterr().err
