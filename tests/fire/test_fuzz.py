"""Every fuzz target, for a moment and without a fuzzer: see `tests.fire.fuzz`."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from tests.fire.fuzz import __main__ as runner
from tests.fire.fuzz.registry import TARGETS
from tests.fire.fuzz.target import FuzzTarget, inputs

COUNT = 300


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_a_target_accepts_its_errors_and_no_others(target: FuzzTarget) -> None:
    assert all(target.run(seed) for seed in target.seeds), "a seed is not well-formed"
    for data in (b"", b"\x00", *inputs(target.seeds, COUNT)):
        try:
            target.run(data)
        except Exception as error:
            pytest.fail(f"{target.name}: {type(error).__name__}: {error} for {data.hex()}")


def test_an_error_that_is_not_accepted_is_found() -> None:
    class Unforeseen(ValueError):
        pass

    def feed(data: bytes) -> None:
        if b"\xff" in data:
            raise Unforeseen

    target = FuzzTarget("bad", feed, (ValueError,), [b"good"])
    with pytest.raises(Unforeseen):
        list(map(target.run, inputs(target.seeds, COUNT)))


def test_the_inputs_are_the_same_every_time() -> None:
    assert list(inputs([b"seed"], 50)) == list(inputs([b"seed"], 50))
    assert len(set(inputs([b"seed"], 50))) > 30


def test_after_a_target_that_does_not_end_the_next_one_is_tried(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tried = []

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        tried.append(command[3])
        if len(tried) == 1:
            raise subprocess.TimeoutExpired(command, options["timeout"])
        return subprocess.CompletedProcess(command, 0, "", "stat::number_of_executed_units: 7\n")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(sys, "argv", ["fuzz", "--all", "--seconds", "1"])
    assert runner.main() == 1
    assert tried == list(TARGETS)
    first, second = capsys.readouterr().out.splitlines()[:2]
    assert "FAILED" in first
    assert "7 inputs  ok" in second
