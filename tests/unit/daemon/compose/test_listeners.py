"""Listeners at a reload, on real sockets."""

from __future__ import annotations

import asyncio
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from isoproxy.config import load
from isoproxy.daemon.compose.listeners import open_listeners, switch_listeners
from isoproxy.daemon.settings.front import dialer_settings, front_limits, listener_settings
from isoproxy.errors import OperationError
from isoproxy.front.frontend import FrontEnd
from isoproxy.front.listener import ListenerSettings
from isoproxy.isolation import Isolate, Isolator, own_group
from isoproxy.net.endpoint import Endpoint
from isoproxy.net.reactor import Handler, Reactor
from isoproxy.tor.dialer import Dialer


def settings(*changes: str) -> dict[str, ListenerSettings]:
    return listener_settings(load(None, changes).config)


@asynccontextmanager
async def front_end() -> AsyncIterator[FrontEnd]:
    config = load(None, ["limits.max_connections=9", "limits.max_connections_per_client=3"]).config

    def fail(handler: Handler, error: Exception) -> None:
        raise error

    reactor = Reactor(asyncio.get_running_loop(), fail)
    isolator = Isolator()
    dialer = Dialer(reactor, isolator, dialer_settings(config, Endpoint.unix("/nonexistent")))
    front = FrontEnd(reactor, isolator, dialer, limits=front_limits(config))
    assert front.settings.limits.max_connections_per_client == 3
    try:
        yield front
    finally:
        await front.drain(0)
        dialer.close()
        reactor.close()


def addresses(front: FrontEnd) -> dict[str, str]:
    return {name: listener.address() for name, listener in front.listeners.items()}


async def test_what_stays_keeps_its_socket_and_gets_its_new_rule(tmp_path: Path) -> None:
    gone = tmp_path / "a"
    async with front_end() as front:
        before = settings("listener.0.address=127.0.0.1:0", f"listener.1.address=unix:{gone}")
        open_listeners(front, before, {})
        (kept, _) = front.listeners.values()
        at = addresses(front)["default"]
        after = settings("listener.0.address=127.0.0.1:0", 'listener.0.isolate=["DestPort"]')
        assert switch_listeners(front, after) == []
        assert addresses(front) == {"default": at}
        assert front.listeners["default"] is kept
        assert kept.rule.listener.isolate is Isolate.DEST_PORT
        assert not gone.exists()


async def test_a_renamed_listener_is_the_same_socket_in_a_group_of_its_own(tmp_path: Path) -> None:
    path = f"listener.0.address=unix:{tmp_path}/a"
    async with front_end() as front:
        open_listeners(front, settings(path), {})
        listener = front.listeners["default"]
        group = listener.rule.listener.group
        switch_listeners(front, settings(path, "listener.0.name=new"))
        assert front.listeners == {"new": listener}
        assert listener.settings.name == "new"
        assert listener.rule.listener.group != group


def test_a_name_that_moves_to_another_place_is_another_group() -> None:
    """The second of two unnamed listeners is the first, "default", once the first is gone."""
    first, second = "listener.{}.address=127.0.0.1:9250", "listener.{}.address=127.0.0.1:9251"
    before = settings(first.format(0), second.format(1))
    after = settings(second.format(0))
    assert set(before) == {"default", "listener2"}
    assert after["default"].endpoint == before["listener2"].endpoint
    assert after["default"].rule.listener != before["default"].rule.listener
    taken = settings(second.format(0), "listener.0.name=dns")
    assert taken["dns"].rule.listener.group != own_group("dns")


async def test_a_new_mode_is_given_to_the_socket_that_stays(tmp_path: Path) -> None:
    file = tmp_path / "a"
    path = f"listener.0.address=unix:{file}"
    async with front_end() as front:
        open_listeners(front, settings(path), {})
        listener = front.listeners["default"]
        assert stat.S_IMODE(file.stat().st_mode) == 0o660
        assert switch_listeners(front, settings(path, "listener.0.mode=0600")) == []
        assert front.listeners == {"default": listener}
        assert listener.settings.mode == 0o600
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


async def test_a_mode_that_cannot_be_had_leaves_the_others_as_they_were(tmp_path: Path) -> None:
    one, two = tmp_path / "a", tmp_path / "b"
    places = (f"listener.0.address=unix:{one}", f"listener.1.address=unix:{two}")
    modes = ("listener.0.mode=0600", "listener.1.mode=0600")
    async with front_end() as front:
        open_listeners(front, settings(*places), {})
        two.unlink()
        two.touch()
        with pytest.raises(OperationError, match="cannot listen on"):
            switch_listeners(front, settings(*places, *modes))
        assert stat.S_IMODE(one.stat().st_mode) == 0o660
        assert stat.S_IMODE(two.stat().st_mode) != 0o600
        assert [one.settings.mode for one in front.listeners.values()] == [0o660, 0o660]


async def test_a_failure_leaves_everything_as_it_was() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        async with front_end() as front:
            open_listeners(front, settings("listener.0.address=127.0.0.1:0"), {})
            before = addresses(front)
            with pytest.raises(OperationError, match="cannot listen on"):
                switch_listeners(
                    front,
                    settings(
                        "listener.0.address=[::1]:0",
                        f"listener.1.address=127.0.0.1:{other.getsockname()[1]}",
                        'listener.1.isolate=["DestPort"]',
                    ),
                )
            assert addresses(front) == before
            assert len(front.reactor) == 1


@pytest.mark.parametrize(
    ("address", "advice"),
    [
        ("192.0.2.1:9250", "no interface of this machine has it"),
        ("unix:/nonexistent/socket", "make it, or choose another one"),
    ],
)
async def test_the_advice_goes_with_the_reason(address: str, advice: str) -> None:
    async with front_end() as front:
        with pytest.raises(OperationError, match=advice):
            open_listeners(front, settings(f"listener.0.address={address}"), {})


async def test_inherited_sockets_go_to_the_listener_of_their_name() -> None:
    mine, stray = (socket.create_server(("127.0.0.1", 0)) for _ in range(2))
    at = "{}:{}".format(*mine.getsockname())
    async with front_end() as front:
        open_listeners(
            front,
            settings("listener.0.address=127.0.0.1:1"),
            {"socks-default": [mine], "something": [stray]},
        )
        assert addresses(front) == {"default": at}
        assert stray.fileno() == -1


async def test_machines_are_kept_apart_at_an_inherited_socket_that_they_reach() -> None:
    """The configured address is on loopback, the socket that systemd hands over is not."""
    loose = settings("listener.0.address=127.0.0.1:0", 'listener.0.isolate=["SOCKSAuth"]')
    strict = settings("listener.0.address=127.0.0.1:0")

    def reached() -> dict[str, list[socket.socket]]:
        return {"socks-default": [socket.create_server(("0.0.0.0", 0))]}

    async with front_end() as front:
        with pytest.raises(OperationError, match="add ClientAddr"):
            open_listeners(front, loose, reached())
    async with front_end() as front:
        open_listeners(front, strict, reached())
        with pytest.raises(OperationError, match="add ClientAddr"):
            switch_listeners(front, loose)
        assert front.listeners["default"].rule == strict["default"].rule
    async with front_end() as front:
        open_listeners(front, loose, {"socks-default": [socket.create_server(("127.0.0.1", 0))]})


async def test_two_sockets_of_one_name_are_both_served_by_one_rule() -> None:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    ports = [sock.getsockname()[1] for sock in sockets]
    wanted = settings("listener.0.address=127.0.0.1:1")
    async with front_end() as front:
        opened = open_listeners(front, wanted, {"socks-default": list(sockets)})
        at = {"default": f"127.0.0.1:{ports[0]}", "default-2": f"127.0.0.1:{ports[1]}"}
        assert addresses(front) == at
        assert {one.rule.listener for one in opened} == {wanted["default"].rule.listener}
        changed = settings("listener.0.address=127.0.0.1:1", 'listener.0.isolate=["DestPort"]')
        assert switch_listeners(front, changed) == []
        assert addresses(front) == at
        assert {one.rule.listener for one in front.listeners.values()} == {
            changed["default"].rule.listener
        }


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
async def test_an_inherited_socket_that_is_no_use_is_a_sentence(kind: socket.SocketKind) -> None:
    async with front_end() as front:
        with socket.socket(socket.AF_INET, kind) as sock:
            with pytest.raises(OperationError, match="the inherited socket socks-default is no"):
                open_listeners(
                    front,
                    settings("listener.0.address=127.0.0.1:0"),
                    {"socks-default": [sock]},
                )
            assert not front.listeners


async def test_a_socket_file_that_vanished_is_made_again_at_a_reload(tmp_path: Path) -> None:
    file = tmp_path / "a"
    wanted = settings(f"listener.0.address=unix:{file}")
    async with front_end() as front:
        open_listeners(front, wanted, {})
        old = front.listeners["default"]
        assert switch_listeners(front, wanted) == []
        file.unlink()
        (new,) = switch_listeners(front, wanted)
        assert front.listeners == {"default": new}
        assert new is not old
        _, writer = await asyncio.open_unix_connection(file)
        writer.close()
    assert not file.exists()


async def test_a_file_of_another_program_in_its_place_leaves_everything_as_it_was(
    tmp_path: Path,
) -> None:
    file = tmp_path / "a"
    wanted = settings(f"listener.0.address=unix:{file}")
    async with front_end() as front:
        open_listeners(front, wanted, {})
        before = dict(front.listeners)
        file.unlink()
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(file))
            other.listen()
            with pytest.raises(OperationError, match="cannot listen"):
                switch_listeners(front, wanted)
            assert front.listeners == before
            front.close("default")
            assert file.exists()
