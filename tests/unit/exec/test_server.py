"""Whose sockets are taken, which, and until when."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from isoproxy.errors import OperationError
from isoproxy.exec import server as module
from isoproxy.exec.handover import Request, connect, give_sockets
from isoproxy.exec.server import ExecServer
from isoproxy.front.transparent import Program
from isoproxy.net.unix_socket import PeerCredentials
from tests.kit.waiting import until


class Programs:
    """What was begun, and what has ended."""

    def __init__(self) -> None:
        self.begun: list[tuple[Program, int, Sequence[socket.socket]]] = []
        self.ended = 0
        self.full = False

    def begin(self, program: Program, listeners: int, sockets: Sequence[socket.socket]) -> object:
        if self.full:
            raise OperationError("full")
        self.begun.append((program, listeners, sockets))

        def end() -> None:
            self.ended += 1
            for sock in sockets:
                sock.close()

        return end


@asynccontextmanager
async def serving(directory: Path) -> AsyncIterator[tuple[ExecServer, Programs]]:
    programs = Programs()
    server = ExecServer(
        directory / "admin.exec",
        programs.begin,  # type: ignore[arg-type]
        lambda: ["/hidden"],
    )
    await server.open()
    try:
        yield server, programs
    finally:
        await server.close()


def sockets() -> list[socket.socket]:
    udp = socket.socket(type=socket.SOCK_DGRAM)
    udp.bind(("127.0.0.1", 0))
    return [socket.create_server(("127.0.0.1", 0)), udp]


async def handed(server: ExecServer, request: Request, those: list[socket.socket]) -> list[str]:
    def work() -> list[str]:
        with connect(server.path) as sock:
            return give_sockets(sock, request, those)

    try:
        return await asyncio.to_thread(work)
    finally:
        for each in those:
            each.close()


async def test_a_program_is_its_user_with_its_label_or_a_nonce(tmp_path: Path) -> None:
    async with serving(tmp_path) as (server, programs):
        assert stat.S_IMODE(server.path.stat().st_mode) == 0o600
        for isolation in ("label", None, None):
            assert await handed(server, Request(isolation, 1), sockets()) == ["/hidden"]
        labelled, fresh, other = (program for program, _, _ in programs.begun)
        assert labelled == Program(b"u%d" % os.geteuid(), b"label", None)
        assert fresh.label is None
        assert fresh.nonce is not None
        assert len(fresh.nonce) == 32
        assert fresh.nonce != other.nonce
        assert len(server) == 3
    assert programs.ended == 3


@pytest.mark.parametrize("listeners", [0, 2, -1])
async def test_sockets_that_are_of_no_use_are_refused(tmp_path: Path, listeners: int) -> None:
    async with serving(tmp_path) as (server, programs):
        with pytest.raises(OperationError, match="of no use"):
            await handed(server, Request(None, listeners), sockets())
        silent, its = sockets()
        silent.close()
        with pytest.raises(OperationError, match="of no use"):  # it does not listen
            await handed(server, Request(None, 1), [socket.socket(), its])
        accepting, its = sockets()
        its.close()
        unix = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        with pytest.raises(OperationError, match="of no use"):
            await handed(server, Request(None, 1), [accepting, unix])
        assert programs.begun == []


async def test_what_is_no_request_is_answered_and_a_full_house_said(tmp_path: Path) -> None:
    async with serving(tmp_path) as (server, programs):
        reader, writer = await asyncio.open_unix_connection(str(server.path))
        writer.write(b"{}\n")
        assert await reader.readline() == b'{"error": "this is no request"}\n'
        writer.close()
        programs.full = True
        with pytest.raises(OperationError, match="full"):
            await handed(server, Request(None, 1), sockets())
        assert len(server) == 0


async def test_another_user_is_not_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(tmp_path) as (server, programs):
        other = PeerCredentials(os.getpid(), os.geteuid() + 1, 0)
        monkeypatch.setattr(module, "peer_credentials", lambda sock: other)
        with contextlib.suppress(OperationError):
            await handed(server, Request(None, 1), sockets())
        assert programs.begun == []


async def test_a_program_that_has_ended_is_let_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(tmp_path) as (server, programs):
        ours, its = os.pipe()  # a pidfd is readable when its process has ended, as this is then
        monkeypatch.setattr(os, "pidfd_open", lambda pid: ours)
        await handed(server, Request(None, 1), sockets())
        assert (len(server), programs.ended) == (1, 0)
        os.write(its, b"x")
        await until(lambda: programs.ended)
        assert len(server) == 0
        os.close(its)


async def test_a_program_that_cannot_be_watched_is_not_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(pid: int) -> int:
        raise ProcessLookupError(3, "No such process")

    async with serving(tmp_path) as (server, programs):
        monkeypatch.setattr(os, "pidfd_open", gone)
        with pytest.raises(OperationError, match="cannot be watched"):
            await handed(server, Request(None, 1), sockets())
        assert programs.begun == []


async def test_a_place_where_no_socket_can_be_is_said(tmp_path: Path) -> None:
    programs = Programs()
    server = ExecServer(
        tmp_path / "missing" / "admin.exec",
        programs.begin,  # type: ignore[arg-type]
        list,
    )
    with pytest.raises(OperationError, match=r"observe\.admin"):
        await server.open()
    await server.close()
