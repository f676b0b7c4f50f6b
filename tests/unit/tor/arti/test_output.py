"""What Arti prints: kept scrubbed, and repeated only of an Arti that never ran."""

from __future__ import annotations

import pytest

from isoproxy.tor.arti.output import ArtiOutput
from isoproxy.tor.managed.log import TorLog

WARNING = b"2026-11-30T21:50:00Z  WARN arti_client::status: the clock is wrong\n"
FATAL = b"arti: error: Unable to lock the state directory\n"


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_lines_are_read_however_they_come(size: int) -> None:
    log = TorLog()
    output = ArtiOutput(log)
    data = b"2026-11-30T21:49:59Z  INFO arti: Starting for www.example\n" + WARNING + FATAL
    for start in range(0, len(data), size):
        output.feed(data[start : start + size])
    assert log.lines == [
        "21:49:59 [notice] Starting for [scrubbed]",
        "21:50:00 [warn] the clock is wrong",
        "--:--:-- [err] Unable to lock the state directory",
    ]
    assert list(output.problems) == ["the clock is wrong", "Unable to lock the state directory"]
    assert output.is_refusal


def test_once_it_runs_its_words_stay_in_the_log() -> None:
    output = ArtiOutput(TorLog())
    output.settle()
    output.feed(WARNING)
    assert not output.problems


def test_a_line_without_end_costs_little() -> None:
    output = ArtiOutput(TorLog())
    for _ in range(1000):
        output.feed(b"x" * 4096)
    assert len(output._rest) <= 400
