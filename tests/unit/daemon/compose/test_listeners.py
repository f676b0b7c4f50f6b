"""Listening sockets at a start and at a reload."""

from __future__ import annotations

import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from isoproxy.config import load
from isoproxy.daemon.compose.listeners import Kind, ListeningSockets, Named, wanted_sockets
from isoproxy.errors import OperationError
from isoproxy.front.listener import ListenerSettings
from isoproxy.isolation import Isolate, own_group

DEFAULT = Named(Kind.LISTENER, "default")


def settings(*changes: str) -> dict[Named, ListenerSettings]:
    return wanted_sockets(load(None, changes).config)


@contextmanager
def opened(*changes: str) -> Iterator[ListeningSockets]:
    """The sockets of a configuration."""
    sockets = ListeningSockets()
    try:
        sockets.open(settings(*changes), {})
        yield sockets
    finally:
        sockets.close()


def addresses(sockets: ListeningSockets) -> dict[str, str]:
    return {name: each.address() for kind in Kind for name, each in sockets.of(kind).items()}


def test_listeners_and_proxies_listen_and_nobody_accepts() -> None:
    with opened("listener.0.address=127.0.0.1:0", "bitcoin.proxy.0.address=127.0.0.1:0") as sockets:
        assert list(addresses(sockets)) == ["default", "proxy"]
        for address in addresses(sockets).values():
            host, _, port = address.rpartition(":")
            with socket.create_connection((host, int(port)), 5) as client:
                client.setblocking(False)
                with pytest.raises(BlockingIOError):
                    client.recv(1)


def test_what_stays_keeps_its_socket_and_gets_its_new_rule(tmp_path: Path) -> None:
    gone, kept_proxy = tmp_path / "a", "bitcoin.proxy.0.address=127.0.0.1:0"
    with opened(
        "listener.0.address=127.0.0.1:0", f"listener.1.address=unix:{gone}", kept_proxy
    ) as sockets:
        before = addresses(sockets)
        kept = sockets.of(Kind.LISTENER)["default"].listening
        after = settings(
            "listener.0.address=127.0.0.1:0",
            'listener.0.isolate=["DestPort"]',
            kept_proxy,
            "bitcoin.proxy.1.address=127.0.0.1:0",
        )
        assert sockets.switch(after) == [Named(Kind.PROXY, "proxy2")]
        now = addresses(sockets)
        assert (now["default"], now["proxy"]) == (before["default"], before["proxy"])
        listener = sockets.of(Kind.LISTENER)["default"]
        assert listener.listening is kept
        assert listener.settings.rule.listener.isolate is Isolate.DEST_PORT
        assert not gone.exists()


def test_a_renamed_listener_is_the_same_socket_in_a_group_of_its_own(tmp_path: Path) -> None:
    path = f"listener.0.address=unix:{tmp_path}/a"
    with opened(path) as sockets:
        before = sockets.of(Kind.LISTENER)["default"]
        sockets.switch(settings(path, "listener.0.name=new"))
        ((name, now),) = sockets.of(Kind.LISTENER).items()
        assert name == now.settings.name == "new"
        assert now.listening is before.listening
        assert now.settings.rule.listener.group != before.settings.rule.listener.group


def test_a_name_that_moves_to_another_place_is_another_group() -> None:
    """The second of two unnamed listeners is the first, "default", once the first is gone."""
    first, second = "listener.{}.address=127.0.0.1:9250", "listener.{}.address=127.0.0.1:9251"
    before = settings(first.format(0), second.format(1))
    after = settings(second.format(0))
    other = Named(Kind.LISTENER, "listener2")
    assert set(before) == {DEFAULT, other}
    assert after[DEFAULT].endpoint == before[other].endpoint
    assert after[DEFAULT].rule.listener != before[DEFAULT].rule.listener
    taken = settings(second.format(0), "listener.0.name=dns")
    assert taken[Named(Kind.LISTENER, "dns")].rule.listener.group != own_group("dns")


@pytest.mark.parametrize("section", ["listener", "bitcoin.proxy"])
def test_a_new_mode_is_given_to_the_socket_that_stays(section: str, tmp_path: Path) -> None:
    file = tmp_path / "a"
    path = f"{section}.0.address=unix:{file}"
    kind = Kind.LISTENER if section == "listener" else Kind.PROXY
    with opened(path) as sockets:
        ((_, before),) = sockets.of(kind).items()
        assert stat.S_IMODE(file.stat().st_mode) == 0o660
        assert sockets.switch(settings(path, f"{section}.0.mode=0600")) == []
        ((_, now),) = sockets.of(kind).items()
        assert now.listening is before.listening
        assert now.settings.mode == 0o600
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_mode_that_cannot_be_had_leaves_the_others_as_they_were(tmp_path: Path) -> None:
    one, two = tmp_path / "a", tmp_path / "b"
    places = (f"listener.0.address=unix:{one}", f"listener.1.address=unix:{two}")
    modes = ("listener.0.mode=0600", "listener.1.mode=0600")
    with opened(*places) as sockets:
        two.unlink()
        two.touch()
        with pytest.raises(OperationError, match="cannot listen on"):
            sockets.switch(settings(*places, *modes))
        assert stat.S_IMODE(one.stat().st_mode) == 0o660
        assert stat.S_IMODE(two.stat().st_mode) != 0o600
        listeners = sockets.of(Kind.LISTENER).values()
        assert [each.settings.mode for each in listeners] == [0o660, 0o660]


@pytest.mark.parametrize("section", ["listener", "bitcoin.proxy"])
def test_a_failure_leaves_everything_as_it_was(section: str, tmp_path: Path) -> None:
    first = tmp_path / "first"
    with (
        socket.create_server(("127.0.0.1", 0)) as other,
        opened("listener.0.address=127.0.0.1:0") as sockets,
    ):
        before = addresses(sockets)
        number = 2 if section == "listener" else 0
        with pytest.raises(OperationError, match="cannot listen on"):
            sockets.switch(
                settings(
                    "listener.0.address=127.0.0.1:0",
                    'listener.0.isolate=["DestPort"]',
                    f"listener.1.address=unix:{first}",
                    f"{section}.{number}.address=127.0.0.1:{other.getsockname()[1]}",
                )
            )
        assert addresses(sockets) == before
        listener = sockets.of(Kind.LISTENER)["default"]
        assert Isolate.CLIENT_ADDR in listener.settings.rule.listener.isolate
        assert not first.exists()


@pytest.mark.parametrize(
    ("address", "advice"),
    [
        ("192.0.2.1:9250", "no interface of this machine has it"),
        ("unix:/nonexistent/socket", "make it, or choose another one"),
    ],
)
def test_the_advice_goes_with_the_reason(address: str, advice: str) -> None:
    with pytest.raises(OperationError, match=advice), opened(f"listener.0.address={address}"):
        pass


def test_inherited_sockets_go_to_the_listener_of_their_name() -> None:
    mine, stray = (socket.create_server(("127.0.0.1", 0)) for _ in range(2))
    at = "{}:{}".format(*mine.getsockname())
    sockets = ListeningSockets()
    sockets.open(
        settings("listener.0.address=127.0.0.1:1"),
        {"socks-default": [mine], "something": [stray]},
    )
    assert addresses(sockets) == {"default": at}
    assert stray.fileno() == -1
    sockets.close()
    assert addresses(sockets) == {"default": "127.0.0.1:1"}


def test_machines_are_kept_apart_at_an_inherited_socket_that_they_reach() -> None:
    """The configured address is on loopback, the socket that systemd hands over is not."""
    loose = settings("listener.0.address=127.0.0.1:0", 'listener.0.isolate=["SOCKSAuth"]')
    strict = settings("listener.0.address=127.0.0.1:0")

    def reached() -> dict[str, list[socket.socket]]:
        return {"socks-default": [socket.create_server(("0.0.0.0", 0))]}

    sockets = ListeningSockets()
    with pytest.raises(OperationError, match="add ClientAddr"):
        sockets.open(loose, reached())
    sockets.close()
    sockets = ListeningSockets()
    sockets.open(strict, reached())
    with pytest.raises(OperationError, match="add ClientAddr"):
        sockets.switch(loose)
    assert sockets.of(Kind.LISTENER)["default"].settings.rule == strict[DEFAULT].rule
    sockets.close()
    sockets = ListeningSockets()
    sockets.open(loose, {"socks-default": [socket.create_server(("127.0.0.1", 0))]})
    sockets.close()


def test_two_sockets_of_one_name_are_both_served_by_one_rule() -> None:
    inherited = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    ports = [sock.getsockname()[1] for sock in inherited]
    wanted = settings("listener.0.address=127.0.0.1:1")
    sockets = ListeningSockets()
    opened = sockets.open(wanted, {"socks-default": list(inherited)})
    at = {"default": f"127.0.0.1:{ports[0]}", "default.2": f"127.0.0.1:{ports[1]}"}
    assert addresses(sockets) == at
    assert [named.name for named in opened] == list(at)
    changed = settings("listener.0.address=127.0.0.1:1", 'listener.0.isolate=["DestPort"]')
    assert sockets.switch(changed) == []
    assert addresses(sockets) == at
    for each in sockets.of(Kind.LISTENER).values():
        assert each.settings.rule.listener == changed[DEFAULT].rule.listener
    sockets.switch(settings("listener.0.address=127.0.0.1:0", "listener.0.name=another"))
    assert [sock.fileno() for sock in inherited] == [-1, -1]
    sockets.close()


def test_a_second_socket_takes_no_other_listeners_name() -> None:
    inherited = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    wanted = settings(
        "listener.0.address=127.0.0.1:1",
        "listener.1.address=127.0.0.1:0",
        "listener.1.name=default-2",
    )
    sockets = ListeningSockets()
    sockets.open(wanted, {"socks-default": list(inherited)})
    served = {each.listening.socket for each in sockets.of(Kind.LISTENER).values()}
    assert len(served) == 3
    assert served.issuperset(inherited)
    sockets.close()
    assert [sock.fileno() for sock in inherited] == [-1, -1]


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
def test_an_inherited_socket_that_is_no_use_is_a_sentence(kind: socket.SocketKind) -> None:
    sockets = ListeningSockets()
    with socket.socket(socket.AF_INET, kind) as sock:
        with pytest.raises(OperationError, match="the inherited socket socks-default is no"):
            sockets.open(settings("listener.0.address=127.0.0.1:0"), {"socks-default": [sock]})
        assert not sockets.of(Kind.LISTENER)


@pytest.mark.parametrize("section", ["listener", "bitcoin.proxy"])
def test_a_socket_file_that_vanished_is_made_again_at_a_reload(
    section: str, tmp_path: Path
) -> None:
    file = tmp_path / "a"
    place = f"{section}.0.address=unix:{file}"
    with opened(place) as sockets:
        assert sockets.switch(settings(place)) == []
        file.unlink()
        (named,) = sockets.switch(settings(place))
        assert named.name in ("default", "proxy")
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(file))
    assert not file.exists()


def test_a_file_of_another_program_in_its_place_leaves_everything_as_it_was(
    tmp_path: Path,
) -> None:
    file = tmp_path / "a"
    place = f"listener.0.address=unix:{file}"
    with opened(place) as sockets:
        before = sockets.of(Kind.LISTENER)
        file.unlink()
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(file))
            other.listen()
            with pytest.raises(OperationError, match="cannot listen"):
                sockets.switch(settings(place))
            assert sockets.of(Kind.LISTENER) == before
            sockets.close()
            assert file.exists()
