"""Reading a connection's first bytes: no more than needed, in time."""

from __future__ import annotations

import asyncio
import time

import pytest

from isoproxy.bitcoin.messages import MAINNET
from isoproxy.bitcoin.sniff import (
    MAX_VERSION,
    read_late_opening,
    read_opening,
    read_version,
)
from isoproxy.bitcoin.v1 import Detected, encode
from isoproxy.errors import LimitExceeded, RemoteProtocolError
from tests.unit.bitcoin.ends import pair, send
from tests.unit.bitcoin.peers import HELLO, v1


async def test_v1_is_found_and_no_more_is_read() -> None:
    near, far = pair()
    with near, far:
        await send(far, HELLO + b"rest")
        first, found = await read_opening(near, silence=1, patience=1)
        assert found is MAINNET
        assert first == HELLO[:16]
        whole, version = await read_version(near, first, MAINNET, 1)
        assert version.recv_port == 8333
        assert (HELLO + b"rest").startswith(whole)


async def test_something_else_is_told_at_its_first_strange_byte() -> None:
    near, far = pair()
    with near, far:
        await send(far, b"\x16\x03\x01")
        assert await read_opening(near, silence=1, patience=1) == (b"\x16\x03\x01", Detected.NOT_V1)


@pytest.mark.virtual_clock
async def test_silence_is_not_waited_out_for_long() -> None:
    near, far = pair()
    with near, far:
        found = await read_opening(near, silence=3, patience=60)
        assert found == (b"", Detected.NEED_MORE)
        assert asyncio.get_running_loop().time() == pytest.approx(3, abs=1)


@pytest.mark.virtual_clock
async def test_a_client_that_stops_within_the_prefix_is_given_up() -> None:
    near, far = pair()
    with near, far:
        await asyncio.get_running_loop().sock_sendall(far, HELLO[:9])
        with pytest.raises(TimeoutError):
            await read_opening(near, silence=3, patience=60)
        assert asyncio.get_running_loop().time() >= 60


async def test_a_client_that_closes_is_told_apart_by_its_bytes() -> None:
    near, far = pair()
    with near, far:
        await send(far, HELLO[:5])
        far.close()
        found = await read_opening(near, silence=3, patience=60)
        assert found == (HELLO[:5], Detected.NEED_MORE)


async def test_bytes_read_before_count() -> None:
    near, far = pair()
    with near, far:
        await send(far, HELLO[5:])
        first, found = await read_opening(near, silence=3, patience=60, first=HELLO[:5])
        assert (first, found) == (HELLO[:16], MAINNET)


@pytest.mark.parametrize(
    ("stream", "error"),
    [
        (encode(MAINNET, HELLO[4:16], bytes(2000)), LimitExceeded),
        (HELLO[:-1] + b"\xff", RemoteProtocolError),
        (v1("verack"), RemoteProtocolError),
        (encode(MAINNET, HELLO[4:16], bytes(20)), RemoteProtocolError),
        (HELLO[:50], RemoteProtocolError),
    ],
)
async def test_first_messages_that_are_refused(
    stream: bytes, error: type[RemoteProtocolError]
) -> None:
    near, far = pair()
    with near, far:
        await send(far, stream[16:])
        far.close()
        with pytest.raises(error):
            await read_version(near, stream[:16], MAINNET, 5)
    assert MAX_VERSION < 2000


async def test_a_silence_that_ends_as_it_is_noticed_costs_no_bytes() -> None:
    """Bytes and the end of patience come in one turn of a loop that was held up."""
    near, far = pair()
    with near, far:
        reading = asyncio.create_task(read_opening(near, silence=0.05, patience=1))
        await asyncio.sleep(0.01)
        far.send(HELLO)
        time.sleep(0.1)  # noqa: ASYNC251  that is the point
        assert await reading == (HELLO[:16], MAINNET)


@pytest.mark.virtual_clock
@pytest.mark.parametrize(
    ("client_says", "peer_says", "found"),
    [
        (HELLO, b"", (HELLO[:16], MAINNET)),
        (HELLO, b"x", (HELLO[:16], MAINNET)),
        (b"SSH-", b"", (b"SSH-", Detected.NOT_V1)),
        (b"", b"220 hello", (b"", Detected.NEED_MORE)),
    ],
)
async def test_after_a_silence_whoever_speaks_first_decides(
    client_says: bytes, peer_says: bytes, found: tuple[bytes, object]
) -> None:
    (client, near), (peer, far) = pair(), pair()
    with client, near, peer, far:
        reading = asyncio.create_task(read_late_opening(near, far, patience=60, idle=1200))
        await asyncio.sleep(1000)
        peer.send(peer_says)
        client.send(client_says)
        assert await reading == found
        if peer_says:
            assert far.recv(16) == peer_says


@pytest.mark.virtual_clock
async def test_a_silence_of_both_ends_in_the_end() -> None:
    (client, near), (peer, far) = pair(), pair()
    with client, near, peer, far, pytest.raises(TimeoutError):
        await read_late_opening(near, far, patience=60, idle=1200)
