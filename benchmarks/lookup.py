"""How long a look-up takes: `python -m benchmarks.lookup`.

A private Tor network, three real ElectrumX servers (one as an onion service), the light
client.  Printed are

    ping          `server.ping` on a connection that is bound to an identity
    warm          a look-up, verified, over that very connection, one server asked
    warm, quorum  the same of two servers, beside the slower of their pings
    pooled        the first look-up of a new identity; connections stand ready
    cold          the first look-up of a new identity where none does: circuits, TLS,
                  handshakes, and the question; bounded by the pool's wait

ElectrumX holds small answers back for up to a second, pings most of all.  So ping and warm
are measured with a server of the test kit's as well, which answers at once (*prompt*): that
is the comparison that means something.  Pings and look-ups take turns.  The target is the
ratio of the medians of warm and ping, for either server.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from isoproxy.isolation import IsolationKey, Isolator
from isoproxy.namecoin.backend import Found
from isoproxy.namecoin.chain.params import REGTEST
from isoproxy.namecoin.electrum.backend import ElectrumBackend, ElectrumSettings
from isoproxy.namecoin.electrum.pool import PoolSettings
from isoproxy.namecoin.electrum.servers import NameServer, parse_server
from isoproxy.net.endpoint import Endpoint
from isoproxy.net.reactor import Handler, Reactor, ReactorLoop
from isoproxy.tor.dialer import Dialer, DialerSettings
from tests.kit.electrum_server import ElectrumServer
from tests.kit.tornet import TorNetwork
from tests.network.name_world import CONFIRMATIONS, NameWorld, name_world

MOST_WARM: Final = 1.3
NAME: Final = b"d/bench"
# two openings a second, and none ends: a first look-up is measured with a reserve, and the next
POOL: Final = PoolSettings(reserve=1_000_000, openings_per_hour=7200.0, opens_per_minute=6000)


async def timed(work: Awaitable[Any]) -> float:
    """The s that something took."""
    began = time.perf_counter()
    await work
    return time.perf_counter() - began


class Client:
    """The light client with some of the servers."""

    def __init__(self, network: TorNetwork, servers: list[NameServer], quorum: int, ready: int):
        self.isolator = Isolator()
        self.reactor = Reactor(asyncio.get_running_loop(), self._fail)
        socks = Endpoint.tcp(*network.client.socks)
        self.dialer = Dialer(self.reactor, self.isolator, DialerSettings(socks))
        settings = ElectrumSettings(
            network=REGTEST,
            servers=servers,
            quorum=quorum,
            confirmations=CONFIRMATIONS,
            max_tip_age=None,
            pool=replace(POOL, reserve=POOL.reserve if ready else 0, asked=quorum),
        )
        self.names = ElectrumBackend(self.dialer, self.isolator, settings)

    @staticmethod
    def _fail(handler: Handler, error: Exception) -> None:
        raise error

    def key(self) -> IsolationKey:
        return self.isolator.own_key("someone")

    async def lookup(self, key: IsolationKey) -> None:
        if not isinstance(await self.names.lookup(NAME, key), Found):
            raise AssertionError("the name was not found")

    async def ping(self, key: IsolationKey, server: NameServer) -> None:
        await (await self.names.pool.session(key, server)).call("server.ping")


@contextlib.asynccontextmanager
async def running(
    network: TorNetwork, servers: list[NameServer], *, quorum: int, ready: int
) -> AsyncIterator[Client]:
    client = Client(network, servers, quorum, ready)
    client.names.start()
    try:
        await asyncio.wait_for(client.names.sync.ready.wait(), 60)
        while client.names.pool.counts()[0] < ready:  # noqa: ASYNC110  no event
            await asyncio.sleep(0.1)
        yield client
    finally:
        await client.names.close()
        client.dialer.close()
        client.reactor.close()


async def warm(
    network: TorNetwork, servers: list[NameServer], count: int
) -> dict[str, list[float]]:
    """Pings and look-ups in turns over the connections that one identity has to `servers`."""
    pings, lookups = [], []
    async with running(network, servers, quorum=len(servers), ready=0) as client:
        key = client.key()
        await client.lookup(key)
        for _ in range(count):
            pings.append(await timed(asyncio.gather(*(client.ping(key, s) for s in servers))))
            lookups.append(await timed(client.lookup(key)))
    return {"ping": pings, "warm": lookups}


async def first(
    network: TorNetwork, servers: list[NameServer], count: int, ready: int
) -> list[float]:
    """First look-ups of new identities, one after the other."""
    seconds = []
    async with running(network, servers, quorum=2, ready=ready) as client:
        for _ in range(count):
            seconds.append(await timed(client.lookup(client.key())))
            while client.names.pool.counts()[0] < ready:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
    return seconds


async def measure(network: TorNetwork, world: NameWorld, count: int) -> dict[str, list[float]]:
    servers = [parse_server(text) for text in world.servers]
    one = await warm(network, servers[:1], count)
    two = await warm(network, servers[:2], count)
    async with ElectrumServer(world.chain, host=network.server_ip) as server:
        prompt = parse_server(f"{network.server_ip}:{server.port}:t")
        quick = await warm(network, [prompt], 4 * count)
    return {
        "prompt ping": quick["ping"],
        "prompt warm": quick["warm"],
        **one,
        "ping, two": two["ping"],
        "warm, quorum": two["warm"],
        "pooled": await first(network, servers, count, ready=12),
        "cold": await first(network, servers, count, ready=0),
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lookup")
    parser.add_argument("--count", type=int, default=15, help="measurements of each kind")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as directory,
        TorNetwork() as network,
        name_world(network, Path(directory), {NAME.decode(): {"ip": "192.0.2.1"}}) as world,
        asyncio.Runner(loop_factory=ReactorLoop) as runner,
    ):
        results = runner.run(measure(network, world, options.count))
    for kind, seconds in results.items():
        print(
            f"{kind:>13}: median {statistics.median(seconds) * 1000:6.0f} ms, "
            f"worst {max(seconds) * 1000:6.0f} ms"
        )
    median = {kind: statistics.median(seconds) for kind, seconds in results.items()}
    prompt = median["prompt warm"] / median["prompt ping"]
    real = median["warm"] / median["ping"]
    both = median["warm, quorum"] / median["ping, two"]
    print(f"look-up / ping on the same connection, prompt server: {prompt:.2f} (<= {MOST_WARM})")
    print(f"look-up / ping on the same connection, ElectrumX:     {real:.2f} (<= {MOST_WARM})")
    print(f"with a quorum of two / the slower ping, ElectrumX:    {both:.2f}")
    print(f"bound of a cold one: {POOL.wait:.0f} s for a connection, then the answer")
    return 0 if max(prompt, real) <= MOST_WARM else 1


if __name__ == "__main__":
    sys.exit(main())
