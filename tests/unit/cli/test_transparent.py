"""`isoproxy transparent rules`."""

from __future__ import annotations

import pytest

from isoproxy.cli import main

SECTIONS = (
    'transparent=[{ address = "10.152.152.10:9240", dns = "10.152.152.10:9253" }, '
    '{ address = "[fd19:c33d:88bc::10]:9241" }]'
)


def test_the_first_section_of_each_family_is_where_connections_go(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["transparent", "rules", "--set", SECTIONS, "eth1"]) == 0
    rules = capsys.readouterr().out
    assert 'iifname { "eth1" } meta nfproto ipv4 udp dport 53 redirect to :9253' in rules
    assert 'iifname { "eth1" } meta nfproto ipv4 meta l4proto tcp redirect to :9240' in rules
    assert 'iifname { "eth1" } meta nfproto ipv6 meta l4proto tcp redirect to :9241' in rules
    assert rules.count("udp dport 53") == 1


@pytest.mark.parametrize("settings", [(), ("--set", 'transparent=[{ address = "127.0.0.1:0" }]')])
def test_without_a_section_at_fixed_ports_there_are_no_rules(
    settings: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["transparent", "rules", *settings, "eth1"]) == 2
    assert "[[transparent]]" in capsys.readouterr().err


def test_what_is_no_interface_never_becomes_a_rule(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ('eth1" accept', "a b", "x" * 16, ""):
        assert main(["transparent", "rules", "--set", SECTIONS, name]) == 1
        assert capsys.readouterr().out == ""
