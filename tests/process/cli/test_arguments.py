"""What is misspelt, misplaced or cannot be written ends in a sentence, never in a traceback."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from isoproxy.cli import main
from tests.kit.service import environment


@pytest.mark.parametrize(
    ("words", "program", "told"),
    [
        (["stats"], "isoproxy", "did you mean status?"),
        (["dns", "lokup", "a.bit"], "isoproxy dns", "did you mean lookup?"),
        (["frobnicate"], "isoproxy", "known: run, check"),
        (["status", "--wacth"], "isoproxy status", "did you mean --watch?"),
        (["explain", "a", "b", "c.test:1", "d"], "isoproxy explain", "unrecognized arguments: d"),
        (["-c", "x", "run"], "isoproxy", "after the command"),
        (["--config=x", "run"], "isoproxy", "after the command"),
        (["--set", "tor.mode=system", "status"], "isoproxy", "after the command"),
        (["dial", "--timeout", "soon", "a.test:1"], "isoproxy dial", "at most 86400"),
    ],
)
def test_what_is_misspelt_or_misplaced_is_told(
    words: list[str], program: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith(f"usage: {program} [-h]")
    assert f"\n{program}: error: " in err
    assert told in err


def test_values_have_suggestions(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--set", "tor.mode=sytem"]) == 2
    assert "did you mean system?" in capsys.readouterr().err
    assert main(["check", "--set", "tor.mode=nowhere"]) == 2
    assert "did you mean" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("redirection", "code", "told"),
    [
        (">/dev/full", 1, "isoproxy: writing failed: No space left on device; "),
        (">&-", 0, ""),
        (">&- 2>&-", 0, ""),
    ],
)
@pytest.mark.parametrize("words", ["check", "check --sample"])
async def test_output_that_goes_nowhere(
    tmp_path: Path, words: str, redirection: str, code: int, told: str
) -> None:
    process = await asyncio.create_subprocess_shell(
        f"{sys.executable} -m isoproxy {words} {redirection}",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(tmp_path, {"PYTHONWARNINGS": ""}),
    )
    out, err = await process.communicate()
    assert (process.returncode, out) == (code, b"")
    assert err.decode().startswith(told)
    assert err.count(b"\n") == bool(told)


async def test_complaints_never_go_to_standard_output(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_shell(
        f"{sys.executable} -m isoproxy status 2>&-",
        stdout=asyncio.subprocess.PIPE,
        env=environment(tmp_path),
    )
    out, _ = await process.communicate()
    assert (process.returncode, out) == (1, b"")
