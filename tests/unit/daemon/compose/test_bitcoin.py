"""A proxy in the daemon: names resolved under its key, all or nothing on a reload."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from isoproxy.bitcoin.bip324 import ellswift
from isoproxy.bitcoin.bip324 import transport as bip324
from isoproxy.config import Config, load
from isoproxy.daemon.compose.bitcoin import Bitcoin
from isoproxy.daemon.settings.front import dialer_settings
from isoproxy.errors import OperationError
from isoproxy.front.frontend import FrontEnd
from isoproxy.isolation import P2P, IsolationKey, Isolator, upstream_credentials
from isoproxy.namecoin.resolve.answer import Want
from isoproxy.net.reactor import Handler, Reactor
from isoproxy.net.target import Target
from isoproxy.tor.dialer import Dialer
from tests.kit.relaying import relay_stream
from tests.kit.socks_port import SocksPort

ONION = Target.parse("b" * 56 + ".onion", 8333)


class Table:
    """Names, and who asked for them."""

    def __init__(self) -> None:
        self.asked: list[tuple[Target, IsolationKey, Want, bytes | None]] = []

    async def address_of(
        self, target: Target, key: IsolationKey, want: Want, client: bytes | None
    ) -> Target:
        self.asked.append((target, key, want, client))
        return ONION


def configured(*settings: str) -> Config:
    return load(None, ["bitcoin.proxy.0.address=127.0.0.1:0", *settings]).config


@asynccontextmanager
async def world(port: SocksPort, config: Config) -> AsyncIterator[tuple[Bitcoin, FrontEnd, Table]]:
    def fail(handler: Handler, error: Exception) -> None:
        raise error

    reactor = Reactor(asyncio.get_running_loop(), fail)
    isolator = Isolator()
    dialer = Dialer(reactor, isolator, dialer_settings(config, port.endpoint))
    bitcoin, names = Bitcoin(config, dialer, isolator, relay_stream), Table()
    front = FrontEnd(reactor, isolator, dialer, names=names, bitcoin=bitcoin.carrier)
    with bitcoin.reserved(config) as sockets:
        bitcoin.apply(front, config, sockets)
    try:
        yield bitcoin, front, names
    finally:
        await bitcoin.close()
        await front.drain(0)
        dialer.close()
        reactor.close()


async def test_without_libraries_that_compute_it_nothing_starts_but_with_v2_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ellswift, "decode", lambda encoded: bytes(32))
    for test in (ellswift.self_test, bip324.self_test):
        test.cache_clear()
    off, on = load(None, ["bitcoin.v2=off"]).config, load(None, []).config
    async with SocksPort() as port, world(port, off) as (_, front, _):
        with pytest.raises(OperationError, match="coincurve"):
            Bitcoin(on, front.dialer, Isolator(), relay_stream)


async def test_a_client_that_speaks_socks4_is_the_front_ends() -> None:
    config = configured("bitcoin.proxy.0.peer=never.example:8333")
    async with SocksPort() as port, world(port, config) as (bitcoin, _, _):
        (door,) = bitcoin.proxies.values()
        reader, writer = await asyncio.open_connection(*door.address().rsplit(":", 1))
        writer.write(b"\x04\x01\x00\x07\x01\x02\x03\x04alice\x00")
        assert await reader.readexactly(2) == b"\x00\x5a"
        writer.close()
        await writer.wait_closed()
        (request,) = port.requests
        assert (request.host, request.port) == (b"1.2.3.4", 7)


async def test_a_name_is_resolved_under_the_key_that_dials() -> None:
    config = configured("bitcoin.proxy.0.peer=node.bit:8333")
    async with SocksPort() as port, world(port, config) as (bitcoin, _, names):
        host, _, number = bitcoin.proxies["proxy"].address().rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(number))
        writer.write(b"no bitcoin at all")  # carried untouched, to the one peer
        assert await reader.readexactly(17) == b"no bitcoin at all"
        ((target, key, want, client),) = names.asked
        assert (target, want) == (Target.parse("node.bit", 8333), Want.STREAM)
        assert client is not None
        (request,) = port.requests
        assert request.host == ONION.host.encode()
        assert request.password == upstream_credentials(key, P2P).password
        writer.close()


async def test_a_reload_keeps_what_stays_and_changes_nothing_if_it_cannot() -> None:
    config = configured()
    async with SocksPort() as port, world(port, config) as (bitcoin, front, _):
        door = bitcoin.proxies["proxy"]
        changed = configured("bitcoin.proxy.0.max_connections=7", "bitcoin.garbage=none")
        with bitcoin.reserved(changed) as sockets:
            assert sockets == {}
            assert bitcoin.apply(front, changed, sockets) == []
        assert bitcoin.proxies == {"proxy": door}
        assert door.proxy.settings.max_connections == 7
        assert door.proxy.carrier.settings.options.garbage == (0, 0)

        with socket.create_server(("127.0.0.1", 0)) as taken:
            there = f"bitcoin.proxy.2.address=127.0.0.1:{taken.getsockname()[1]}"
            more = configured("bitcoin.proxy.1.address=127.0.0.1:0", there)
            with pytest.raises(OperationError, match="cannot listen"), bitcoin.reserved(more):
                pass
        assert bitcoin.proxies == {"proxy": door}


async def test_what_fails_after_the_reservation_closes_it() -> None:
    config = configured()
    async with SocksPort() as port, world(port, config) as (bitcoin, _, _names):
        more = configured("bitcoin.proxy.1.address=127.0.0.1:0")
        reserved: list[socket.socket] = []

        def follow() -> None:
            with bitcoin.reserved(more) as sockets:
                reserved.extend(each.socket for each in sockets.values())
                raise OperationError("another part cannot follow")

        with pytest.raises(OperationError):
            follow()
        assert [sock.fileno() for sock in reserved] == [-1]


async def test_a_new_mode_is_given_to_the_socket_that_stays(tmp_path: Path) -> None:
    file = tmp_path / "proxy"
    place = f"bitcoin.proxy.0.address=unix:{file}"
    config = configured(place)
    changed = configured(place, "bitcoin.proxy.0.mode=0600")

    def mode() -> int:
        return stat.S_IMODE(file.stat().st_mode)

    async with SocksPort() as port, world(port, config) as (bitcoin, front, _):
        assert mode() == 0o660
        with contextlib.suppress(OperationError), bitcoin.reserved(changed):
            assert mode() == 0o600
            raise OperationError("another part cannot follow")
        assert mode() == 0o660
        with bitcoin.reserved(changed) as sockets:
            assert bitcoin.apply(front, changed, sockets) == []
        assert mode() == 0o600


async def test_a_proxy_that_is_gone_has_left_its_address_once_it_is_settled(tmp_path: Path) -> None:
    file = tmp_path / "proxy"
    here = configured(f"bitcoin.proxy.0.address=unix:{file}")
    gone = load(None, ["bitcoin.proxy=[]"]).config
    async with SocksPort() as port, world(port, here) as (bitcoin, front, _):
        for config in (gone, here, gone, here):
            with bitcoin.reserved(config) as sockets:
                bitcoin.apply(front, config, sockets)
            await bitcoin.settled()
            assert file.exists() == (config is here)
        _, writer = await asyncio.open_unix_connection(file)
        writer.close()
