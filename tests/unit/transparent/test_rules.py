"""nftables rules, as nft(8) reads them; what they do is seen in tests/process/cli/test_exec.py."""

from __future__ import annotations

import pytest

from isoproxy.errors import OperationError
from isoproxy.transparent.rules import GatewayPorts, gateway_rules, namespace_rules


def test_in_a_namespace_all_else_is_refused_and_nothing_is_swallowed() -> None:
    lines = [line.strip() for line in namespace_rules(4000).splitlines()]
    assert "meta l4proto tcp redirect to :4000" in lines
    assert "type filter hook output priority 0; policy drop;" in lines
    assert lines[-4:-2] == [
        "meta l4proto tcp reject with tcp reset",
        "reject with icmpx admin-prohibited",
    ]


def test_at_a_gateway_a_family_without_a_port_is_refused() -> None:
    rules = gateway_rules(["eth1", "wlan0"], [GatewayPorts(4, 9240, None)])
    assert 'iifname { "eth1", "wlan0" } reject with icmpx admin-prohibited' in rules
    assert "ipv6" not in rules
    assert "udp dport 53" not in rules
    with pytest.raises(OperationError, match="interface"):
        gateway_rules([], [GatewayPorts(4, 9240, None)])
