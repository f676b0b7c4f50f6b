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
            'transparent=[{ address = "127.0.0.1:0", dns = "127.0.0.1:0" }]',
        ],
    ).config
    sockets = ListeningSockets()
    sockets.open(wanted_sockets(config), {})
    control = Control(Endpoint())
    beside = DnsAndOnions(config, Isolator(), control, _no_resolver, io.StringIO())
    parts = StreamParts(sockets, beside, TwoProcesses())  # type: ignore[arg-type]
    parts.transparent.open(config, io.StringIO())
    programs = parts.programs
    pairs = [socket.socketpair() for _ in range(2)]
    ends = [programs.begin(Program(b"u0", None, b"x"), 1, pair) for pair in pairs]
    try:
        for index, pair in enumerate(pairs):
            settings = parts.settings(config, Endpoint.unix("/socks"), index, 2)
            its = parts.sockets_of(settings)
            kinds = [sock.type for sock in its if sock.family == socket.AF_INET]
            assert [sock for sock in its if sock.family == socket.AF_UNIX] == list(pair)
            if index == 0:  # the first process has the first section
                tcp, udp = socket.SOCK_STREAM, socket.SOCK_DGRAM
                assert kinds == [tcp, tcp, udp, tcp]
                assert [plan.sockets for plan in settings.transparent] == [2, 2]
            else:
                assert kinds == [socket.SOCK_STREAM] * 2
        assert [view.name for view in parts.listener_views()] == ["default", "transparent"]
    finally:
        for end in ends:
            end()
        sockets.close()
        parts.transparent.close()


class TwoProcesses:
    count = 2

    def configure(self) -> None:
        pass


def _no_resolver(client: bytes | None) -> Resolver:
    raise AssertionError("nothing is resolved")
