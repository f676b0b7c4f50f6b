"""Onion services on the private network: reached, and closed to whom they do not know."""

from __future__ import annotations

import pytest

from tests.kit.dial import Refused, dial
from tests.kit.onion import ClientKey, authorize, publish
from tests.kit.servers import EchoServer
from tests.kit.tornet import TorNetwork


def test_a_service_is_reached(tor_network: TorNetwork) -> None:
    with (
        EchoServer(tor_network.server_ip) as echo,
        publish(tor_network.relays[1], {7: echo.address}) as service,
        dial(tor_network.client.socks, service.host, 7) as connection,
    ):
        assert len(service.host) == 62
        connection.sendall(b"hello")
        assert connection.recv(5) == b"hello"


def test_the_same_key_is_the_same_service(tor_network: TorNetwork) -> None:
    with EchoServer(tor_network.server_ip) as echo:
        with publish(tor_network.relays[1], {7: echo.address}) as first:
            pass
        with publish(tor_network.relays[2], {7: echo.address}, key=first.key) as second:
            dial(tor_network.client.socks, second.host, 7).close()
    assert second == first


def test_client_authorization(tor_network: TorNetwork) -> None:
    """Without the key tor's extended error F4, with a wrong one F5, with the right one in."""
    right, wrong = ClientKey.generate(), ClientKey.generate()
    with (
        EchoServer(tor_network.server_ip) as echo,
        publish(tor_network.relays[1], {7: echo.address}, clients=[right]) as service,
        tor_network.temporary_client() as client,
    ):
        with pytest.raises(Refused) as missing:
            dial(client.socks_path, service.host, 7)
        assert missing.value.reply == 0xF4
        authorize(client, service, wrong)
        with pytest.raises(Refused) as bad:
            dial(client.socks_path, service.host, 7)
        assert bad.value.reply == 0xF5
        authorize(client, service, right)
        dial(client.socks_path, service.host, 7).close()


def test_a_key_does_not_show_itself() -> None:
    key = ClientKey.generate()
    assert str(key.private) not in repr(key)
