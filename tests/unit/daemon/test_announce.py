"""Lines for the person who started isoproxy, and the log's."""

from __future__ import annotations

import io
import logging
import os

import pytest

from isoproxy.daemon.announce import announce, announce_listener, announce_proxy
from isoproxy.isolation import Isolate


@pytest.mark.parametrize(
    ("say", "protocol", "field"),
    [(announce_listener, "socks", "listener"), (announce_proxy, "bitcoin", "proxy")],
)
def test_a_line_and_an_event_say_where_and_by_what(
    say: type, protocol: str, field: str, caplog: pytest.LogCaptureFixture
) -> None:
    out = io.StringIO()
    with caplog.at_level(logging.INFO, "isoproxy"):
        say("a", "127.0.0.1:9250", Isolate.DEST_ADDR | Isolate.CLIENT_ADDR, out)
    assert out.getvalue() == f"listening {protocol} 127.0.0.1:9250 isolate=ClientAddr,DestAddr\n"
    (record,) = caplog.records
    assert record.__dict__["fields"] == {
        field: "a",
        "address": "127.0.0.1:9250",
        "isolate": ["ClientAddr", "DestAddr"],
    }


def test_that_nobody_reads_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with io.TextIOWrapper(io.FileIO(writing, "w"), write_through=True) as out:
        announce("a line", out)
    closed = io.StringIO()
    closed.close()
    announce("a line", closed)
