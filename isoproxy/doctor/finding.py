"""One result of the doctor's."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Verdict(Enum):
    """How a check ended."""

    OK = "ok"
    UNPROVEN = "unproven"
    """It could not be looked at; nothing is known to be wrong."""
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Finding:
    """`check` was looked at, `found` is what was seen, `advice` the one thing to do."""

    check: str
    verdict: Verdict
    found: str
    advice: str = ""

    def __post_init__(self) -> None:
        if bool(self.advice) == (self.verdict is Verdict.OK):
            raise ValueError("a finding that is not ok, and no other, says what to do")

    def __str__(self) -> str:
        line = f"{self.verdict.value:8} {self.check}: {self.found}"
        return f"{line} -> {self.advice}" if self.advice else line


def ok(check: str, found: str) -> Finding:
    return Finding(check, Verdict.OK, found)


def unproven(check: str, found: str, advice: str) -> Finding:
    return Finding(check, Verdict.UNPROVEN, found, advice)


def warning(check: str, found: str, advice: str) -> Finding:
    return Finding(check, Verdict.WARNING, found, advice)


def failed(check: str, found: str, advice: str) -> Finding:
    return Finding(check, Verdict.FAILED, found, advice)
