"""A program's output: whole lines, however they come, bounded, and scrubbed where it must be."""

from __future__ import annotations

import pytest

from isoproxy.tor.managed.log import TorLog
from isoproxy.tor.managed.output import ProgramOutput


class Output(ProgramOutput):
    """Takes every line for a complaint."""

    def _line(self, line: str) -> None:
        self._complaint(line)


@pytest.mark.parametrize("size", [1, 3, 100])
def test_lines_are_whole_however_they_come(size: int) -> None:
    output, data = Output(TorLog()), b"one\x1b[2J line\nanother\nthe rest"
    for start in range(0, len(data), size):
        output.feed(data[start : start + size])
    assert list(output.problems) == ["one[2J line", "another"]


def test_once_it_runs_nothing_is_remembered() -> None:
    output = Output(TorLog())
    output.feed(b"before\nhalf")
    output.settle()
    output.feed(b" a line\nafter\n")
    assert list(output.problems) == ["before"]


def test_a_bridge_is_scrubbed() -> None:
    output = Output(TorLog(), scrubbed=True)
    output.feed(b"no way to 192.0.2.1:443\n")
    assert list(output.problems) == ["no way to [scrubbed]"]


def test_lines_and_their_number_are_bounded() -> None:
    output = Output(TorLog())
    for _ in range(100):
        output.feed(b"x" * 4096)
    output.feed(b"\n" + b"y" * 1000 + b"\nz\n" * 10)
    assert max(map(len, output.problems)) <= 400
    assert len(output.problems) <= 6
