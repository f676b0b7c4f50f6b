"""Each network of clients has its own name service, and nobody gets another's."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from isoproxy.errors import ErrorKind, NamingError
from isoproxy.namecoin.resolve.client_views import ClientViews

NETWORKS = {
    ip_network("10.152.152.0/24"): "any workstation",
    ip_network("10.152.152.11/32"): "workstation 11",
    ip_network("fd00::/8"): "six",
}


@pytest.mark.parametrize(
    ("client", "expected"),
    [
        ("10.152.152.11", "workstation 11"),
        ("::ffff:10.152.152.11", "workstation 11"),
        ("10.152.152.12", "any workstation"),
        ("fd00::1", "six"),
        ("fd00::1%eth0", "six"),
        ("127.0.0.1", "default"),
        ("fe80::1", "default"),
        (None, "default"),
    ],
)
def test_the_longest_network_decides(client: str | None, expected: str) -> None:
    assert ClientViews(NETWORKS, "default").choose(client) == expected


@pytest.mark.parametrize("client", ["10.152.153.11", "127.0.0.1", None])
def test_without_a_default_an_unknown_client_gets_nothing(client: str | None) -> None:
    with pytest.raises(NamingError) as caught:
        ClientViews(NETWORKS).choose(client)
    assert caught.value.kind is ErrorKind.NAME_BACKEND_DOWN
    assert "153" not in str(caught.value)
