"""A file with an isolation ID: only the owner's, and one line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from isoproxy.cli import main


def private_file(path: Path, content: bytes, mode: int = 0o600) -> str:
    path.write_bytes(content)
    path.chmod(mode)
    return str(path)


@pytest.mark.parametrize(
    ("content", "mode", "problem"),
    [
        (b"me\n", 0o640, "chmod 600"),
        (b"me\n", 0o604, "chmod 600"),
        (b"me\nand you\n", 0o600, "alone, in one line"),
        (b"", 0o600, "alone, in one line"),
        (b"\n", 0o600, "alone, in one line"),
        (b"x" * 5000, 0o600, "alone, in one line"),
    ],
)
def test_a_file_that_would_not_keep_an_identity_apart_is_refused(
    tmp_path: Path, content: bytes, mode: int, problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = private_file(tmp_path / "id", content, mode)
    for words in (["dial", "a.test:80"], ["resolve", "a.bit"], ["dns", "lookup", "a.bit"]):
        assert main([*words, "--isolation-file", file]) == 2
        assert problem in capsys.readouterr().err


def test_a_pipe_of_the_shell_is_a_file_that_will_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--isolation-file <(pass show id)`: read, so that what fails is what comes after it."""
    reader, writer = os.pipe()
    try:
        os.write(writer, b"me\n")
        os.close(writer)
        words = ["dial", "--proxy", "127.0.0.1:1", "a.test:80"]
        assert main([*words, "--isolation-file", f"/dev/fd/{reader}"]) == 1
        assert "no isoproxy answers" in capsys.readouterr().err
    finally:
        os.close(reader)
