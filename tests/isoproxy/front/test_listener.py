"""What a listener writes into the log about its clients."""

from __future__ import annotations

import logging

import pytest

from isoproxy.observe.log import Sensitive
from tests.isoproxy.front.test_frontend import CONNECT, OK, front_end, say
from tests.kit.socks_port import SocksPort

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
