"""What one client's look-ups cost another: `python -m benchmarks.shares`.

The light client at default settings, four servers in memory, and delays as Tor has them, on a
virtual clock.  When the reserve has filled, one address has a first look-up under a new
identity now and then, undisturbed; then again while another address keeps 200 look-ups going
under ever new identities.  Printed are circuits an hour at rest, and the medians; the bound is
what the threat model (C24) promises: a new identity of another address takes at most MOST times
as long.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from isoproxy.errors import IsoproxyError
from isoproxy.isolation import (
    ClientProtocol,
    IsolationKey,
    IsolationTuple,
    Isolator,
    ListenerRule,
    client_of_address,
)
from isoproxy.namecoin.chain.params import REGTEST
from isoproxy.namecoin.electrum.backend import ElectrumBackend, ElectrumSettings
from isoproxy.namecoin.electrum.servers import parse_server
from tests.kit.clock import VirtualClockLoop
from tests.kit.electrum_server import ElectrumServer
from tests.kit.memory_net import MemoryNet, over_tor
from tests.kit.namecoin.chain import RegtestChain

MOST: Final = 2.0
FILLED_S: Final = 5 * 3600.0
REST_S: Final = 12 * 3600.0
LOOKUPS: Final = 10
PAUSE_S: Final = 20.0
AT_ONCE: Final = 200
AGAIN_S: Final = 5.0
"""How long one of the 200 waits after a look-up that was refused or done."""
_NAME: Final = b"d/plain4"


class World:
    """One isoproxy and its servers."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        chain = RegtestChain.recorded()
        chain.mine_empty(20)
        servers = [parse_server(f"s{n}.example:1:t", f"operator {n}") for n in range(4)]
        delay, dial = over_tor(self.chance)
        self.net = MemoryNet(
            {one.label: ElectrumServer(chain) for one in servers}, delay=delay, dial=dial
        )
        self.isolator = Isolator()
        self.backend = ElectrumBackend(
            self.net,
            self.isolator,
            ElectrumSettings(
                network=replace(REGTEST, expiry=36_000), servers=servers, max_tip_age=None
            ),
            wall_clock=lambda: chain.blocks[-1].time + 600.0,
        )
        pool = self.backend.pool
        pool._opener._tls, pool._rng = self.net, self.chance
        pool.scores.rng = self.backend.sync.scores.rng = self.chance
        self.number = 0
        self.refused = 0

    @property
    def circuits(self) -> int:
        """Connections that were asked of Tor so far, each with credentials of its own."""
        return len(self.net.credentials)

    def new_identity(self, address: str) -> IsolationKey:
        """A key that was never used, of a client at `address`."""
        self.number += 1
        stream = IsolationTuple(
            client_of_address(address),
            ClientProtocol.SOCKS5,
            username=b"%d" % self.number,
        )
        return self.isolator.key_for(ListenerRule(b"a listener"), stream)

    async def lookup(self, address: str) -> float:
        """The s that a new identity's first look-up took."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        await self.backend.lookup(_NAME, self.new_identity(address))
        return loop.time() - began

    async def lookups(self, address: str) -> list[float]:
        """A number of them, one after the other."""
        took = []
        for _ in range(LOOKUPS):
            await asyncio.sleep(PAUSE_S)
            took.append(await self.lookup(address))
        return took

    async def busy(self, address: str) -> None:
        """Look-ups under ever new identities without end."""
        while True:
            try:
                await self.lookup(address)
            except IsoproxyError:
                self.refused += 1
            await asyncio.sleep(AGAIN_S)


async def measure(seed: int) -> tuple[float, list[float], list[float], int]:
    """Circuits an hour at rest; the look-ups undisturbed and beside the load; refusals."""
    world = World(seed)
    world.backend.start()
    try:
        await asyncio.sleep(FILLED_S)
        before = world.circuits
        await asyncio.sleep(REST_S)
        at_rest = (world.circuits - before) / REST_S * 3600.0
        calm = await world.lookups("192.0.2.1")
        await asyncio.sleep(FILLED_S)
        load = [asyncio.ensure_future(world.busy("192.0.2.2")) for _ in range(AT_ONCE)]
        beside = await world.lookups("192.0.2.1")
        for task in load:
            task.cancel()
        await asyncio.gather(*load, return_exceptions=True)
        return at_rest, calm, beside, world.refused
    finally:
        await world.backend.close()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.shares")
    parser.add_argument("--seed", type=int, default=1)
    factory: Callable[[], asyncio.AbstractEventLoop] = lambda: VirtualClockLoop(grace_s=0)  # noqa: E731
    with asyncio.Runner(loop_factory=factory) as runner:
        at_rest, calm, beside, refused = runner.run(measure(parser.parse_args().seed))
    ratio = statistics.median(beside) / statistics.median(calm)
    print(f"circuits an hour at rest: {at_rest:.0f}")
    for name, took in (("undisturbed", calm), (f"beside {AT_ONCE} look-ups", beside)):
        print(f"{name}: median {statistics.median(took):.3f} s, worst {max(took):.3f} s")
    print(f"ratio {ratio:.2f} (at most {MOST}); of the other address {refused} were refused")
    return 0 if ratio <= MOST else 1


if __name__ == "__main__":
    sys.exit(main())
