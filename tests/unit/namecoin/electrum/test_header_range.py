"""HeaderRanges: how many headers a server is asked for.  How they are fetched and read is in
test_header_sync."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, cast

import pytest

from isoproxy.namecoin.chain.transaction import double_sha256
from isoproxy.namecoin.electrum.header_range import HeaderRanges, RangeTooSlow, SyncSettings
from isoproxy.namecoin.electrum.servers import parse_server
from isoproxy.namecoin.electrum.session import ElectrumSession


class Answering:
    """A session that has as many headers as it is asked for."""

    def in_use(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    async def call(self, method: str, start: int, count: int) -> Any:
        return {"count": count, "hex": "00" * 80 * count, "max": 2016}


async def test_who_refuses_is_asked_for_fewer_and_after_each_answer_for_more() -> None:
    ranges = HeaderRanges(SyncSettings(cost_capacity=1e9))
    server, session = parse_server("a.example:1:t"), cast("ElectrumSession", Answering())
    sizes = [ranges.chunk(server.label)]
    for _ in range(4):
        ranges.ask_less(server.label)
        sizes.append(ranges.chunk(server.label))
    assert sizes == [504, 63, 7, 1, 1]
    assert ranges.chunk("b.example") == 504
    grown = []
    for _ in range(10):
        await ranges.fetch(server, session, 1, ranges.chunk(server.label))
        grown.append(ranges.chunk(server.label))
    assert grown == [2, 4, 8, 16, 32, 64, 128, 256, 504, 504]


@pytest.mark.virtual_clock(grace_s=0)
async def test_a_range_is_waited_for_as_long_as_its_length_takes_and_no_longer() -> None:
    class Silent(Answering):
        async def call(self, method: str, start: int, count: int) -> Any:
            await asyncio.Event().wait()

    ranges = HeaderRanges(SyncSettings())
    server, session = parse_server("a.example:1:t"), cast("ElectrumSession", Silent())
    clock = asyncio.get_running_loop().time
    for count, most in ((1, 10.0), (504, 40.0)):
        began = clock()
        with pytest.raises(RangeTooSlow):
            await ranges.fetch(server, session, 1, count)
        assert most / 2 < clock() - began < most


class Cutting(Answering):
    """A session that has linked bare headers."""

    protocol = (1, 4, 2)
    claimed_height = 10_000

    async def call(self, method: str, start: int, count: int, *_: int) -> Any:
        blob = b"".join(LINKED[:count])
        return {"count": count, "hex": blob.hex(), "max": 2016}


def _linked(count: int) -> list[bytes]:
    headers = [bytes(80)]
    while len(headers) < count:
        headers.append(bytes(4) + double_sha256(headers[-1]) + bytes(44))
    return headers


LINKED = _linked(64)


async def test_a_range_from_the_first_block_on_does_not_show_that_a_server_can_cut() -> None:
    """ElectrumX from 1.19 on cuts right from 0, and nowhere else."""
    ranges = HeaderRanges(SyncSettings(cost_capacity=1e9))
    server, session = parse_server("a.example:1:t"), cast("ElectrumSession", Cutting())
    few = ranges.bare_chunk(server.label)
    await ranges.fetch_bare(server, session, 0, few)
    assert ranges.bare_chunk(server.label) == few
    await ranges.fetch_bare(server, session, 1, few)
    assert ranges.bare_chunk(server.label) == SyncSettings().bare_chunk
