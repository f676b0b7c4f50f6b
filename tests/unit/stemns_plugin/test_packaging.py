"""The onion-grater profile allows what the controller says, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.kit.repository import ROOT

PROFILE = ROOT / "packaging" / "onion-grater" / "40_stemns.yml"


def allowed(line: str, profile: Path = PROFILE) -> bool:
    """Whether a profile's patterns, each matched whole, allow a command."""
    patterns: dict[str, list[str]] = {}
    verb = ""
    commands = profile.read_text().split("  commands:\n")[1].split("  events:\n")[0]
    for text in commands.splitlines():
        if heading := re.fullmatch(r"    ([A-Z]+):", text):
            verb = heading[1]
        elif pattern := re.fullmatch(r"      - '(.*)'", text):
            patterns.setdefault(verb, []).append(pattern[1])
        else:
            assert text.lstrip().startswith("#")
    verb, _, arguments = line.partition(" ")
    return any(re.fullmatch(pattern, arguments) for pattern in patterns.get(verb, []))


@pytest.mark.parametrize(
    "line",
    [
        "PROTOCOLINFO 1",
        "GETINFO version",
        "GETINFO stream-status",
        "GETINFO " + "0123456789abcdef" * 2,
        "GETCONF __LeaveStreamsUnattached",
        "GETCONF AutomapHostsOnResolve",
        "REDIRECTSTREAM 12 www.example.com",
        "REDIRECTSTREAM 12 2001:db8::1",
        "ATTACHSTREAM 12 0",
        "CLOSESTREAM 12 2",
        "CLOSESTREAM 12 7",
    ],
)
def test_what_the_controller_says_passes(line: str) -> None:
    assert allowed(line)


@pytest.mark.parametrize(
    "line",
    [
        "ATTACHSTREAM 12 5",
        "ATTACHSTREAM 12 0 HOP=1",
        "CLOSESTREAM 12 0",
        "REDIRECTSTREAM 12 a b",
        "GETINFO address",
        "GETINFO circuit-status",
        "GETCONF SocksPort",
        "SETCONF __LeaveStreamsUnattached=0",
        "SIGNAL NEWNYM",
        "MAPADDRESS a=b",
        "EXTENDCIRCUIT 0",
    ],
)
def test_the_rest_does_not(line: str) -> None:
    assert not allowed(line)
