"""The one relay is a stream like any other, copying or splicing, over TCP and unix sockets."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from isoproxy.front.pipes import PipePool
from isoproxy.front.timed_relay import relay_stream
from tests.kit.stream_conformance import (
    CHECKS,
    HALF_CLOSE_CHECKS,
    RESET_CHECKS,
    Check,
    Ends,
    MakeStream,
    name_of,
    tcp_pair,
    unix_pair,
)
from tests.unit.front.services import front_services


@dataclass
class Counts:
    bytes_up: int = 0
    bytes_down: int = 0


def relay(*, unix: bool = False, pipes: int = 2) -> MakeStream:
    """A relay between a client over TCP and Tor over TCP or a unix socket."""

    @contextlib.asynccontextmanager
    async def make() -> AsyncIterator[Ends]:
        with front_services(pipes=PipePool(1 << 16, pipes)) as services:
            client, near = tcp_pair()
            peer, far = unix_pair() if unix else tcp_pair()
            task = asyncio.create_task(relay_stream(services, near, far, b"", Counts()))
            try:
                with client, peer:
                    yield Ends(client, peer)
                await asyncio.wait_for(task, 5)
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            assert (near.fileno(), far.fileno(), services.pipes.lent) == (-1, -1, 0)

    return make


@pytest.mark.parametrize("pipes", [0, 2], ids=["copy", "splice"])
@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])
@pytest.mark.parametrize("check", CHECKS + HALF_CLOSE_CHECKS, ids=name_of)
async def test_the_relay(check: Check, unix: bool, pipes: int) -> None:
    await check(relay(unix=unix, pipes=pipes))


@pytest.mark.parametrize("check", RESET_CHECKS, ids=name_of)
async def test_the_relay_between_tcp_connections(check: Check) -> None:
    await check(relay())
