"""The light client on regtest, over direct connections to servers of a test."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

from isoproxy.isolation import Isolator
from isoproxy.namecoin.backend import Absent, Found
from isoproxy.namecoin.chain.params import REGTEST
from isoproxy.namecoin.electrum.backend import ElectrumBackend, ElectrumSettings
from isoproxy.namecoin.electrum.header_range import SyncSettings
from isoproxy.namecoin.electrum.pool import PoolSettings
from isoproxy.namecoin.electrum.servers import NameServer, parse_server
from tests.kit.direct_dialer import DirectDialer
from tests.kit.electrumx import ElectrumX

POOL = PoolSettings(reserve=0, opens_per_minute=6000)


def tcp(server: ElectrumX) -> NameServer:
    """How the client finds `server`, whose operator has no other."""
    return parse_server(f"127.0.0.1:{server.tcp_port}:t", f"operator {server.tcp_port}")


class LightClient:
    """A running light client with an isolator of its own; `key` is its user's."""

    def __init__(
        self,
        servers: Sequence[NameServer],
        wall_clock: Callable[[], float],
        directory: Path | None,
        confirmations: int,
        sync: SyncSettings,
    ) -> None:
        self.isolator = Isolator()
        self.dialer = DirectDialer()
        self.backend = ElectrumBackend(
            self.dialer,
            self.isolator,
            ElectrumSettings(
                network=REGTEST,
                servers=list(servers),
                confirmations=confirmations,
                max_tip_age=None,
                pool=POOL,
                sync=sync,
            ),
            directory,
            wall_clock=wall_clock,
        )
        self.key = self.isolator.own_key("a user")

    async def lookup(self, name: str) -> Found | Absent:
        return await self.backend.lookup(name.encode(), self.key)

    async def value(self, name: str) -> bytes:
        answer = await self.lookup(name)
        assert isinstance(answer, Found)
        return answer.value

    async def synced(self, tip: int, timeout: float = 15.0) -> None:
        """Return once the headers up to `tip` are there."""
        async with asyncio.timeout(timeout):
            while self.backend.chain.tip_height < tip:  # noqa: ASYNC110  it has no event
                await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def light_client(
    servers: Sequence[NameServer],
    wall_clock: Callable[[], float],
    directory: Path | None = None,
    confirmations: int = 6,
    sync: SyncSettings | None = None,
) -> AsyncIterator[LightClient]:
    running = LightClient(servers, wall_clock, directory, confirmations, sync or SyncSettings())
    running.backend.start()
    try:
        yield running
    finally:
        await running.backend.close()
