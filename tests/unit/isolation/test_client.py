"""The client field, and whose budget it draws on."""

from __future__ import annotations

from isoproxy.isolation import budget_of, client_of_address, client_of_uid, describe_client


def test_clients_of_different_families_differ() -> None:
    clients = {
        client_of_address("127.0.0.1"),
        client_of_address("::ffff:127.0.0.1"),
        client_of_address("::1"),
        client_of_address("fe80::1", 2),
        client_of_address("fe80::1", 3),
        client_of_uid(1000),
    }
    assert len(clients) == 6
    assert describe_client(client_of_address("fe80::1", 2)) == "fe80::1"
    assert describe_client(client_of_address("::1")) == "::1"
    assert describe_client(client_of_address("fe80::1%eth0")) == "fe80::1"
    assert describe_client(client_of_uid(7)) == "user id 7"
    assert describe_client(None) == "none"


def test_what_one_machine_can_be_many_of_draws_on_one_budget() -> None:
    def budgets(*hosts: str) -> set[bytes]:
        return {budget_of(client_of_address(host)) for host in hosts}

    assert budgets("127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1") == {b"this machine"}
    assert len(budgets("2001:db8::1", "2001:db8::ffff:2:3:4")) == 1
    assert len(budgets("192.0.2.1", "::ffff:192.0.2.1")) == 1
    assert len(budgets("192.0.2.1", "192.0.2.2", "2001:db8::", "2001:db8:0:1::")) == 4
    assert budget_of(client_of_uid(127)) == client_of_uid(127)
    assert budget_of(None) == b""
