"""What stream processes serve by goes with the sockets of exactly that, in one order."""

from __future__ import annotations

import io
import socket
from pathlib import Path

import pytest

from isoproxy.config import load
from isoproxy.daemon.compose.dns_and_onions import DnsAndOnions
from isoproxy.daemon.compose.listeners import ListeningSockets, wanted_sockets
from isoproxy.daemon.compose.streams import StreamParts
from isoproxy.daemon.programs import RunningPrograms
from isoproxy.front.transparent import Program
from isoproxy.isolation import Isolator
from isoproxy.namecoin.resolve.resolver import Resolver
from isoproxy.net.endpoint import Endpoint
from isoproxy.tor.control.connection import Control


def test_sockets_are_those_of_the_settings_and_of_that_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))
    config = load(
        None,
        [
            "names.backend=none",
            'listener=[{ address = "127.0.0.1:0" }]',
            'bitcoin.proxy=[{ address = "127.0.0.1:0" }]',
        ],
    ).config
    sockets, programs = ListeningSockets(), RunningPrograms(2, lambda: None)
    sockets.open(wanted_sockets(config), {})
    control = Control(Endpoint())
    beside = DnsAndOnions(config, Isolator(), control, _no_resolver, io.StringIO())
    parts = StreamParts(sockets, beside, programs)
    pairs = [socket.socketpair() for _ in range(2)]
    ends = [programs.begin(Program(b"u0", None, b"x"), 1, pair) for pair in pairs]
    try:
        for index, pair in enumerate(pairs):
            settings = parts.settings(config, Endpoint.unix("/socks"), index, 2)
            its = parts.sockets_of(settings)
            assert len(its) == 4
            assert its[1:3] == list(pair)
            assert its[0].getsockname() != its[3].getsockname()
    finally:
        for end in ends:
            end()
        sockets.close()


def _no_resolver(client: bytes | None) -> Resolver:
    raise AssertionError("nothing is resolved")
