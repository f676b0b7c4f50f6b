"""State files are private, whole, and where they were meant to be."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from isoproxy.private_file import replace_file


def test_a_file_is_private_and_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "pins.json"
    before = os.umask(0)
    try:
        replace_file(path, "one\n")
        replace_file(path, "two\n")
    finally:
        os.umask(before)
    assert path.read_text() == "two\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("planted", ["pins.json", "pins.json.new"])
def test_a_link_that_another_user_planted_is_not_written_through(
    tmp_path: Path, planted: str
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / planted).symlink_to(victim)
    replace_file(tmp_path / "pins.json", "ours")
    assert victim.read_text() == "precious"
    assert not (tmp_path / "pins.json").is_symlink()
    assert (tmp_path / "pins.json").read_text() == "ours"


def test_a_file_that_another_user_holds_open_is_not_written_to(tmp_path: Path) -> None:
    fresh = tmp_path / "pins.json.new"
    fresh.touch(0o666)
    with fresh.open() as held:
        replace_file(tmp_path / "pins.json", "ours")
        assert held.read() == ""
