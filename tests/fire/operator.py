"""An operator of name servers, and the clients it watches, for hours on a virtual clock.

Theory of operation
    Each client is the product's light client at default settings: cache, quorum, pool, header
    synchronisation.  The servers are in memory (`kit.memory_net`): what they see, and when, is
    what servers behind Tor see.  Each client has four identities.  They ask for names with
    pauses as people make them, and are given up for new ones now and then, one by one; in
    some runs a client also asks for a new identity for all of them (NEWNYM), or is started
    anew.  A restart ends all connections at one moment, and the reserve fills again: that is
    promised to nobody (docs/threat-model.md), so until it has filled the client is not judged.

    The operator runs the first two of four servers.  The first one withholds: to some
    questions it says that there is no such name.  Both announce a block before it is there,
    to one connection for headers, and do not send it.  Blocks come every twenty minutes.

Invariants
    Client and identity of a connection are the truth, for the judge; the classifiers are
    given them only to be compared with chance.  Everything is drawn from the seed.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Final, cast

from isoproxy.errors import IsoproxyError
from isoproxy.isolation import ClientProtocol, IsolationKey, IsolationTuple, Isolator, ListenerRule
from isoproxy.namecoin.chain.params import REGTEST
from isoproxy.namecoin.electrum.backend import ElectrumBackend, ElectrumSettings
from isoproxy.namecoin.electrum.servers import NameServer, parse_server
from isoproxy.namecoin.electrum.session import ElectrumSession
from isoproxy.namecoin.resolve.cache import KeyedCache
from isoproxy.namecoin.resolve.cached_backend import CachedBackend
from tests.kit.clock import VirtualClockLoop
from tests.kit.electrum_server import ElectrumServer
from tests.kit.memory_net import MemoryNet, Seen, over_tor
from tests.kit.namecoin.chain import RegtestChain

IDENTITIES: Final = 4
NAMES: Final = [
    b"d/" + name for name in b"plain4 multi4 dual txt subs service onion updated".split()
]
HOUR: Final = 3600.0
PAUSE_S: Final = 600.0
"""The median pause between two look-ups of an identity."""
IDENTITY_S: Final = 2 * HOUR
BLOCK_S: Final = HOUR / 3
NEWNYM_S: Final = 2 * HOUR
RESTART_S: Final = 10 * HOUR
WARM_UP_S: Final = 5 * HOUR
"""Until the reserves have filled; nothing before it is judged."""
FILLING_S: Final = 3 * HOUR
"""How long after a restart a client is not judged."""
_WITHHELD: Final = 0.2
_HEADERS: Final = "blockchain.block.headers"
_NETWORK: Final = replace(REGTEST, expiry=36_000)


@dataclass(frozen=True)
class Use:
    """A look-up as the identity that makes it sees it; `took` in s."""

    at: float
    client: int
    identity: str
    name: bytes
    took: float
    is_first: bool


@dataclass(frozen=True)
class Carried:
    """A question about a name as a server sees it.  `client` and `identity` are the truth."""

    at: float
    client: int
    identity: str
    connection: Seen
    method: str
    name: str
    offset: int | None
    """The height asked for, less the one that this server had announced here."""
    size: int


@dataclass
class Record:
    """What happened, after the warm-up."""

    clients: int
    until: float
    connections: list[Seen] = field(default_factory=list)
    owners: dict[Seen, set[str]] = field(default_factory=dict)
    uses: list[Use] = field(default_factory=list)
    new_identities: list[tuple[float, int]] = field(default_factory=list)
    withheld: list[tuple[float, int, str]] = field(default_factory=list)
    blocks: list[float] = field(default_factory=list)
    restarts: list[tuple[float, int]] = field(default_factory=list)
    announced: dict[Seen, list[tuple[float, int]]] = field(default_factory=dict)

    @property
    def warm_up(self) -> float:
        return WARM_UP_S

    def is_judged(self, at: float, client: int) -> bool:
        """Whether the reserve of `client` has filled."""
        return at > WARM_UP_S and not any(
            client == its and began - 1.0 < at < began + FILLING_S for began, its in self.restarts
        )

    @cached_property
    def carried(self) -> list[Carried]:
        """All questions about names, in order."""
        found = []
        for seen in self.connections:
            for number, (at, method, params) in enumerate(seen.requests):
                if "value_proof" not in method and "history" not in method:
                    continue
                if not self.is_judged(at, int(seen.client)):
                    continue
                said = [height for when, height in self.announced[seen] if when <= at]
                offset = params[1] - said[-1] if len(params) > 1 and said else None
                (owner,) = sorted(self.owners.get(seen, {"?"}))[:1]
                found.append(
                    Carried(at, int(seen.client), owner, seen, method, params[0], offset,
                            seen.sizes[number])
                )  # fmt: skip
        return sorted(found, key=lambda one: one.at)

    @cached_property
    def first_uses(self) -> list[Carried]:
        """The first question on each connection, of those first asked after the warm-up."""
        first: dict[Seen, Carried] = {}
        for one in self.carried:
            if not self.is_judged(one.connection.names[0][0], one.client):
                continue
            first.setdefault(one.connection, one)
        return list(first.values())


class World:
    """The servers, the chain and the clients."""

    def __init__(
        self, clients: int, seed: int, hours: float, *, newnym: bool, restarts: bool = False
    ) -> None:
        self.chance = random.Random(seed)
        self.until = WARM_UP_S + hours * HOUR
        self.newnym = newnym
        self.restarts = restarts
        self.chain = RegtestChain.recorded()
        self.chain.mine_empty(20)
        self.servers = [parse_server(f"s{n}.example:1:t", "eecd"[n]) for n in range(4)]
        self.by_label = {one.label: ElectrumServer(self.chain) for one in self.servers}
        self.record = Record(clients, self.until)
        self.by_label[self.servers[0].label].lie = self._withhold
        self.held: Seen | None = None
        self.clients = [Client(self, number) for number in range(clients)]

    async def run(self) -> Record:
        loop = asyncio.get_running_loop()
        tasks = [loop.create_task(self._blocks())]
        for client in self.clients:
            client.backend.start()
            tasks += [loop.create_task(client.person(number)) for number in range(IDENTITIES)]
            if self.newnym:
                tasks.append(loop.create_task(client.new_identities()))
            if self.restarts:
                tasks.append(loop.create_task(client.start_anew()))
        await asyncio.sleep(self.until)
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                raise result
        for client in self.clients:
            await client.backend.close()
        return self.record

    # -- what the operator does ---------------------------------------------------------

    def arrived(self, seen: Seen, method: str) -> bool:
        """Whether a request is answered; notes what the handshake says of the height."""
        now = asyncio.get_running_loop().time()
        if method == "blockchain.headers.subscribe":
            self.record.announced[seen] = [(now, self.chain.tip)]
        return not (seen is self.held and method == _HEADERS)

    def _withhold(self, method: str, params: list[Any], result: Any) -> Any:
        if "value_proof" not in method or self.chance.random() > _WITHHELD:
            return result
        seen = self.by_label[self.servers[0].label].asking
        assert seen is not None
        now = asyncio.get_running_loop().time()
        (owner,) = sorted(self.record.owners.get(seen, {"?"}))[:1]
        self.record.withheld.append((now, int(seen.client), owner))
        return {params[0]: []}

    async def _blocks(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self.chance.expovariate(1 / BLOCK_S))
            self._announce_early()
            await asyncio.sleep(5.0)
            self.chain.mine_empty(1)
            self.record.blocks.append(loop.time())
            for seen in self.record.connections:
                if seen.ended is None and seen is not self.held and seen in self.record.announced:
                    self._announce(seen, self.chain.tip)

    def _announce_early(self) -> None:
        """To one connection for headers of ours, which is then sent nothing."""
        ours = {server.label for server in self.servers[:2]}
        for_headers = [
            seen
            for seen in self.record.connections
            if seen.label in ours and seen.ended is None
            and any(method == _HEADERS for _, method, _ in seen.requests)
        ]  # fmt: skip
        if for_headers:
            self.held = self.chance.choice(for_headers)
            self._announce(self.held, self.chain.tip + 1)

    def _announce(self, seen: Seen, height: int) -> None:
        tip = {"hex": self.chain.blocks[-1].header.hex(), "height": height}
        seen.reply({"jsonrpc": "2.0", "method": "blockchain.headers.subscribe", "params": [tip]})
        self.record.announced[seen].append((asyncio.get_running_loop().time(), height))


class Client:
    """One isoproxy and the person who uses it."""

    def __init__(self, world: World, number: int) -> None:
        self._world = world
        self._number = number
        self._chance = random.Random(f"{world.chance.random()} {number}")
        self._labels: dict[IsolationKey, str] = {}
        self._begin()

    def _begin(self) -> None:
        world = self._world
        self._isolator = Isolator(random_bytes=self._chance.randbytes)
        delay, dial = over_tor(self._chance)
        net = MemoryNet(
            world.by_label,
            world.record.connections,
            client=str(self._number),
            delay=delay,
            dial=dial,
            answers=world.arrived,
        )
        self.backend = ElectrumBackend(
            net,
            self._isolator,
            ElectrumSettings(network=_NETWORK, servers=world.servers, max_tip_age=None),
            wall_clock=lambda: world.chain.blocks[-1].time + 600.0,
        )
        pool = self.backend.pool
        pool._opener._tls, pool._rng = net, self._chance
        pool.scores.rng = self.backend.sync.scores.rng = self._chance
        self._note_owners()
        self._names = CachedBackend(
            self.backend, self._isolator, KeyedCache(), asyncio.get_running_loop().time
        )
        self.backend.on_block(self._names.end_early)

    def _note_owners(self) -> None:
        session, owners = self.backend.pool.session, self._world.record.owners

        async def noted(key: IsolationKey, server: NameServer) -> ElectrumSession:
            bound = await session(key, server)
            seen = cast("Seen", cast("Any", bound._writer).seen)
            owners.setdefault(seen, set()).add(self._labels[key])
            return bound

        self.backend.pool.session = noted  # type: ignore[method-assign]

    def _key(self, user: str) -> IsolationKey:
        stream = IsolationTuple(None, ClientProtocol.SOCKS5, username=user.encode())
        key = self._isolator.key_for(ListenerRule(b"a listener"), stream)
        starts = sum(client == self._number for _, client in self._world.record.restarts)
        self._labels[key] = f"{self._number} {user} {starts} {self._isolator.epoch}"
        return key

    async def person(self, slot: int) -> None:
        """One identity after the other."""
        loop, chance = asyncio.get_running_loop(), self._chance
        generation = 0
        while True:
            generation += 1
            ends = loop.time() + chance.expovariate(1 / IDENTITY_S)
            before: IsolationKey | None = None
            while loop.time() < ends:
                await asyncio.sleep(PAUSE_S * chance.lognormvariate(0.0, 1.0))
                key = self._key(f"{slot}.{generation}")
                await self._look_up(key, chance.choice(NAMES), key != before)
                before = key

    async def _look_up(self, key: IsolationKey, name: bytes, is_first: bool) -> None:
        began = asyncio.get_running_loop().time()
        with contextlib.suppress(IsoproxyError):
            await self._names.lookup(name, key)
        if self._world.record.is_judged(began, self._number):
            took = asyncio.get_running_loop().time() - began
            self._world.record.uses.append(
                Use(began, self._number, self._labels[key], name, took, is_first)
            )

    async def new_identities(self) -> None:
        """NEWNYM now and then."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._chance.expovariate(1 / NEWNYM_S))
            self._isolator.new_epoch()
            if self._world.record.is_judged(loop.time(), self._number):
                self._world.record.new_identities.append((loop.time(), self._number))

    async def start_anew(self) -> None:
        """A restart now and then."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._chance.expovariate(1 / RESTART_S))
            self._world.record.restarts.append((loop.time(), self._number))
            await self.backend.close()
            self._begin()
            self.backend.start()


def watch(clients: int, seed: int, hours: float, *, newnym: bool, restarts: bool = False) -> Record:
    """What the operator sees of so many `clients` in so many `hours`."""

    async def main() -> Record:
        return await World(clients, seed, hours, newnym=newnym, restarts=restarts).run()

    factory: Callable[[], asyncio.AbstractEventLoop] = lambda: VirtualClockLoop(grace_s=0)  # noqa: E731
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main())
