"""`[[transparent]]`: where it listens, as whose listener, and what is said of it."""

from __future__ import annotations

import io
import socket

import pytest

from isoproxy.config import Config, load
from isoproxy.daemon.compose.transparent import TransparentSockets
from isoproxy.daemon.settings.front import transparent_listener
from isoproxy.errors import OperationError
from isoproxy.isolation import Isolate, own_group, shared_group
from isoproxy.transparent.answer import IPV4_ONLY, IPV6_ONLY


def configured(*sections: str) -> Config:
    settings = ["names.backend=none", f"transparent=[{', '.join(sections)}]"]
    return load(None, settings).config


def test_each_section_has_its_sockets_in_one_process_and_a_family_of_addresses() -> None:
    config = configured(
        '{ address = "127.0.0.1:0", dns = "127.0.0.1:0" }', '{ address = "[::1]:0" }'
    )
    out, sockets = io.StringIO(), TransparentSockets(2)
    try:
        sockets.open(config, out)
    except OperationError:
        pytest.skip("this machine has no IPv6")
    (first,), (second,) = (list(sockets.plans(config, index)) for index in range(2))
    assert (first.listeners, first.sockets, first.families) == (1, 2, IPV4_ONLY)
    assert (second.listeners, second.sockets, second.families) == (1, 1, IPV6_ONLY)
    assert first.program is second.program is None
    kinds = [sock.type for sock in sockets.sockets_of(first)]
    assert kinds == [socket.SOCK_STREAM, socket.SOCK_DGRAM]
    said = [line.split()[:2] for line in out.getvalue().splitlines()]
    assert said == [["listening", word] for word in ("transparent", "dns", "transparent")]
    assert [view.name for view in sockets.views()] == ["transparent", "transparent2"]
    sockets.close()
    assert sockets.sockets_of(first) == []


def test_an_address_that_cannot_be_had_is_said() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        config = configured(
            f'{{ address = "127.0.0.1:0", dns = "127.0.0.1:{taken.getsockname()[1]}" }}'
        )
        sockets = TransparentSockets(1)
        with pytest.raises(OperationError, match=r"transparent\.dns"):
            sockets.open(config, io.StringIO())
        sockets.close()


def test_a_section_shares_with_no_listener_unless_it_is_told_to() -> None:
    config = configured(
        '{ address = "127.0.0.1:1" }',
        '{ address = "127.0.0.1:2", session_group = 3, isolate = ["ClientAddr", "DestAddr"] }',
    )
    own, shared = (transparent_listener(config, its).rule.listener for its in config.transparent)
    assert own.group not in {own_group("transparent 127.0.0.1:1"), shared_group(3)}
    assert own.isolate == Isolate.CLIENT_ADDR
    assert shared.group == shared_group(3)
    assert shared.isolate == Isolate.CLIENT_ADDR | Isolate.DEST_ADDR
