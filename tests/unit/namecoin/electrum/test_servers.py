from __future__ import annotations

import pytest

from isoproxy.errors import ConfigError
from isoproxy.namecoin.electrum.scores import Scores
from isoproxy.namecoin.electrum.servers import SHIPPED, parse_server, parse_servers

PIN = "ab" * 32


def test_the_forms_of_a_server() -> None:
    server = parse_server("Example.org:50002:s")
    assert (server.label, server.tls, server.pin) == ("example.org:50002", True, None)
    assert parse_server(f"1.2.3.4:1:s:{PIN}").pin == bytes.fromhex(PIN)
    assert parse_server("[2001:db8::1]:50002:s").target.host == "2001:db8::1"
    assert parse_server("example.org:1:s").operator == "example.org"
    assert parse_server("example.org:1:s", "somebody").operator == "somebody"


@pytest.mark.parametrize(
    "text",
    ["", "example.org", "example.org:50002", "example.org:50002:x", "example.org:99999:s",
     "exa mple:1:s", "a:0:t", "a:1:s:1234", f"a:1:t:{PIN}", "a\n:1:s", "-:-:s"],
)  # fmt: skip
def test_what_is_no_server_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_server(text)


def test_plain_tcp_is_for_onion_services_unless_allowed() -> None:
    with pytest.raises(ConfigError, match="plain TCP"):
        parse_servers(["example.org:50001:t"])
    assert parse_servers(["example.org:50001:t"], allow_plain=True)
    assert parse_servers([f"{'a' * 56}.onion:50001:t"])
    assert parse_servers([f"{'a' * 56}.onion.:50001:t"])[0].target.host == f"{'a' * 56}.onion"
    with pytest.raises(ConfigError, match="plain TCP"):
        parse_servers(["onion:50001:t"])


def test_duplicates_are_dropped() -> None:
    assert len(parse_servers(["a.org:1:s", "A.org:1:s", "b.org:1:s"])) == 2


def test_most_shipped_addresses_are_those_of_two_operators_and_never_a_quorum() -> None:
    """As they said when they proposed them to Electrum-NMC."""
    assert {server.operator for server in SHIPPED if server.target.is_onion} == {"s7r", "testls"}
    assert sum(server.operator in {"s7r", "testls"} for server in SHIPPED) == 9
    for _ in range(50):
        first, second = Scores(SHIPPED).choose(0.0)[:2]
        assert first.operator
        assert second.operator
        assert first.operator != second.operator


def test_the_shipped_servers_form_a_quorum_of_different_voices() -> None:
    assert len({server.label for server in SHIPPED}) == len(SHIPPED)
    assert len({server.operator for server in SHIPPED}) >= 3
    assert all(server.tls or server.target.is_onion for server in SHIPPED)
    assert all(server.target.may_be_sent_to_tor() for server in SHIPPED)
