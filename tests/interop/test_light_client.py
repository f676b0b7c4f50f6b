"""The light client over real ElectrumX on a live Namecoin Core, beside what Core itself answers.

NAMECOIND_PATH     Namecoin Core's program, `namecoind`

ElectrumX is 1.16, which is what servers of the main network run, and the newest.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from benchmarks import programs
from isoproxy.errors import ErrorKind
from isoproxy.namecoin.backend import Absent, Found
from isoproxy.namecoin.rpc.client import JsonRpcClient, fixed_login
from isoproxy.namecoin.rpc.namecoin_core import NamecoinCoreBackend
from isoproxy.net.endpoint import Endpoint
from tests.kit.electrumx import ElectrumX, ElectrumXServers, wait_until_height
from tests.kit.namecoin.chain import EXPIRY, RegtestChain, recorded_answers
from tests.kit.namecoin.core import OF_ANY_AGE, PASSWORD, NamecoinCore, namecoind
from tests.kit.namecoin.light_client import LightClient, light_client, tcp

pytestmark = [pytest.mark.interop, pytest.mark.timeout(300)]
CONFIRMATIONS = 6
INDEX_S = 60.0
NAME = "d/moving"


class World:
    """A node, ElectrumX servers over it, and a light client that asks these."""

    def __init__(self, core: NamecoinCore, servers: Sequence[ElectrumX], user: LightClient) -> None:
        self.core = core
        self.servers = servers
        self.user = user
        login = fixed_login("user", PASSWORD)
        self.node = NamecoinCoreBackend(
            JsonRpcClient(Endpoint.tcp("127.0.0.1", core.rpc_port), login)
        )

    async def settled(self) -> None:
        """Wait until servers and client have what the node has."""
        height, newest = self.core.tip, self.core.call("getbestblockhash")
        async with asyncio.timeout(INDEX_S):
            await asyncio.gather(
                *(wait_until_height(one.tcp_port, height, INDEX_S) for one in self.servers)
            )
            chain = self.user.backend.chain
            while chain.tip_hash[::-1].hex() != newest:  # noqa: ASYNC110  it has no event
                await asyncio.sleep(0.02)

    async def both(self, name: str = NAME) -> tuple[Found | Absent, Found | Absent]:
        """What the light client says to somebody new, and what the node says."""
        self.user.key = self.user.isolator.own_key("a user")
        return await self.user.lookup(name), await self.node.lookup(name.encode(), self.user.key)

    async def value(self) -> bytes:
        """What the name has, as the light client says."""
        ours, _ = await self.both()
        assert isinstance(ours, Found), ours
        return ours.value


def electrumx_1_16() -> Sequence[str]:
    try:
        return programs.electrumx()
    except programs.AbsentError as error:
        pytest.skip(str(error))


@pytest.fixture(params=["1.16", "newest"])
def command(request: pytest.FixtureRequest) -> Sequence[str]:
    """How ElectrumX is started; nothing stands for the one that tests install."""
    namecoind()
    return electrumx_1_16() if request.param == "1.16" else ()


@asynccontextmanager
async def world(
    core: NamecoinCore, command: Sequence[str], directory: Path
) -> AsyncIterator[World]:
    servers = ElectrumXServers(directory / "servers", core.url, 2)
    for server in servers.servers:
        server.command = command
    with servers as running:
        addresses = [tcp(server) for server in running]

        def clock() -> float:
            return max(time.time(), core.tip_time + 600.0)

        async with light_client(addresses, clock, confirmations=CONFIRMATIONS) as user:
            made = World(core, running, user)
            try:
                await made.settled()
                yield made
            finally:
                await made.node.close()


def told(answer: Found | Absent) -> object:
    """What both kinds of source can say alike."""
    if isinstance(answer, Absent):
        return answer.reason
    return answer.value, answer.height, answer.txid, answer.expires_in


async def test_every_recorded_name_gives_what_the_node_gives(
    command: Sequence[str], tmp_path: Path
) -> None:
    with NamecoinCore(tmp_path / "core", OF_ANY_AGE) as core:
        core.submit([block.raw for block in RegtestChain.recorded().blocks[1:]])
        async with world(core, command, tmp_path) as made:
            names = list(recorded_answers())
            said = dict(zip(names, [await made.both(name) for name in names], strict=True))
    assert [name for name, (ours, node) in said.items() if told(ours) != told(node)] == []
    assert sum(isinstance(ours, Found) for ours, _ in said.values()) == 34


async def test_renewals_reorganisations_and_expiry(command: Sequence[str], tmp_path: Path) -> None:
    with NamecoinCore(tmp_path / "core") as core:
        core.register(NAME, b"first")
        async with world(core, command, tmp_path) as made:
            ours, _ = await made.both()
            assert told(ours) is ErrorKind.NAME_UNCONFIRMED
            core.mine_empty(CONFIRMATIONS - 1)
            await made.settled()
            ours, node = await made.both()
            assert told(ours) == told(node)

            core.update(NAME, b"second")  # too young: the value before it is the answer
            await made.settled()
            assert await made.value() == b"first"
            core.mine_empty(CONFIRMATIONS)
            await made.settled()
            assert await made.value() == b"second"

            fork = core.tip
            core.update(NAME, b"on the branch that loses")
            await made.settled()
            core.rewind(fork)
            core.mine_empty(2)
            await made.settled()
            ours, node = await made.both()
            assert isinstance(ours, Found)
            assert (ours.value, told(ours)) == (b"second", told(node))
            assert len(ours.servers) == 2
            assert made.user.backend.health().demoted == 0

            core.update(NAME, b"deep on the branch that loses")
            core.mine_empty(CONFIRMATIONS)
            await made.settled()
            assert await made.value() == b"deep on the branch that loses"
            core.rewind(fork + 2)
            core.mine_empty(CONFIRMATIONS + 2)
            await made.settled()
            ours, node = await made.both()
            assert isinstance(ours, Found)
            assert (ours.value, told(ours)) == (b"second", told(node))

            core.mine_empty(ours.height + EXPIRY - 1 - core.tip)
            await made.settled()
            ours, node = await made.both()
            assert isinstance(ours, Found)
            assert (ours.expires_in, told(ours)) == (1, told(node))
            core.mine_empty()
            await made.settled()
            ours, node = await made.both()
            assert told(ours) is told(node) is ErrorKind.NAME_EXPIRED
