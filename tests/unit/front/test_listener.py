"""What a listener writes into the log about its clients."""

from __future__ import annotations

import logging
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from isoproxy.front.frontend import FrontEnd
from isoproxy.net.endpoint import Endpoint
from isoproxy.observe.log import Sensitive
from tests.kit.socks_port import SocksPort
from tests.unit.front.test_frontend import CONNECT, OK, front_end, say

REFUSED = b"\x05\x01\x00\x05\x01\x00\x03\x06a.test\x00\x00"


def events(caplog: pytest.LogCaptureFixture) -> list[tuple[str, dict[str, object]]]:
    return [
        (record.msg, getattr(record, "fields", {}))
        for record in caplog.records
        if record.name == "isoproxy.front"
    ]


async def test_requests_and_refusals_are_told_to_those_who_debug(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.DEBUG, "isoproxy.front"):
        async with SocksPort() as port, front_end(port) as front:
            assert await say(front, CONNECT + b"hey") == OK + b"hey"
            await say(front, REFUSED)
    (first, asked), (second, refused) = events(caplog)
    assert (first, second) == ("request", "refused")
    assert (asked["listener"], asked["protocol"], asked["command"]) == ("test", "SOCKS5", "CONNECT")
    for who in ("target", "port", "username", "password"):
        assert isinstance(asked[who], Sensitive)
    assert refused.keys() == {"listener", "kind"}


async def test_they_are_told_to_nobody_else(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "isoproxy.front"):
        async with SocksPort() as port, front_end(port) as front:
            assert await say(front, CONNECT + b"hey") == OK + b"hey"
            await say(front, REFUSED)
            assert sum(front.counters.refusals.values()) == 1
    assert events(caplog) == []


async def test_one_link_local_address_on_two_links_is_two_clients() -> None:
    async with SocksPort() as port, front_end(port) as front:
        for link in (2, 3):
            near, far = socket.socketpair()
            front.listeners["test"].admit(near, ("fe80::1", 4000, 0, link))
            far.close()
        assert len({connection.client_id for connection in front.connections}) == 2


@pytest.mark.parametrize("host", ["127.0.0.1", "127.3.2.1", "::1"])
async def test_clients_on_loopback_are_not_paced(host: str) -> None:
    async with SocksPort() as port, front_end(port) as front:
        settings = replace(
            front.listeners["test"].settings, name=host, endpoint=Endpoint(host=host)
        )
        front.open(settings)
        assert congestion_control(front, host) == b"reno"


async def test_clients_from_elsewhere_get_the_systems_congestion_control() -> None:
    async with SocksPort() as port, front_end(port) as front:
        settings = replace(
            front.listeners["test"].settings, name="any", endpoint=Endpoint(host="0.0.0.0")
        )
        front.open(settings)
        with socket.socket() as fresh:
            systems = fresh.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
        assert congestion_control(front, "any") == systems.rstrip(b"\0")


def congestion_control(front: FrontEnd, name: str) -> bytes:
    """Of the listening socket, which every accepted one inherits."""
    sock = front.listeners[name]._sock
    assert sock is not None
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0")


async def test_a_unix_listener_that_follows_new_settings_answers_as_before(tmp_path: Path) -> None:
    endpoint = Endpoint.unix(str(tmp_path / "socks"))
    async with SocksPort() as port, front_end(port, endpoint=endpoint) as front:
        answer = b"\x05\x00\x05\x00\x00\x04" + bytes(18) + b"x"
        assert await say(front, CONNECT + b"x") == answer
        listener = front.listeners["test"]
        listener.follow(replace(listener.settings, name="other"))
        assert await say(front, CONNECT + b"x") == answer
        assert front.accepted == {"test": 1, "other": 1}
