"""The light client over a private Tor network: real ElectrumX behind exits and an onion."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator

import pytest

from isoproxy.errors import ErrorKind
from isoproxy.isolation import APP, Isolator
from isoproxy.namecoin.backend import Absent, Found
from isoproxy.namecoin.chain.params import REGTEST
from isoproxy.namecoin.electrum.backend import ElectrumBackend, ElectrumSettings
from isoproxy.namecoin.electrum.pool import PoolSettings
from isoproxy.namecoin.electrum.servers import NameServer, parse_server
from isoproxy.net.endpoint import Endpoint
from isoproxy.net.reactor import Handler, Reactor
from isoproxy.net.target import Target
from isoproxy.tor.dialer import Dialer, DialerSettings
from tests.kit.electrumx import ElectrumXServers
from tests.kit.namecoin.chain import RegtestChain, recorded_answers
from tests.kit.namecoin.daemon import NamecoinDaemon
from tests.kit.onion import publish
from tests.kit.servers import EchoServer
from tests.kit.tornet import TorNetwork
from tests.kit.witness import Witness

ANSWERS = recorded_answers()
CHAIN = RegtestChain.recorded()
POOL = PoolSettings(reserve=0, wait=60.0, open_timeout=60.0, opens_per_minute=600)


@pytest.fixture(scope="module")
def name_servers(
    tor_network: TorNetwork, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[NameServer]]:
    """One by address with a pinned certificate, one by name over TLS, one onion service."""
    directory = tmp_path_factory.mktemp("electrumx")
    host = tor_network.server_ip
    with (
        NamecoinDaemon(CHAIN) as daemon,
        ElectrumXServers(directory, daemon.url, 3, host) as (first, second, third),
        publish(tor_network.exits[0], {50001: (host, third.tcp_port)}) as onion,
    ):
        yield [
            parse_server(f"{host}:{first.tls_port}:s:{first.fingerprint.hex()}", "first"),
            parse_server(f"electrumx.test:{second.tls_port}:s", "second"),
            parse_server(f"{onion.host}:50001:t", "third"),
        ]


class User:
    """Our part of the machine: a dialer to the network's client and a light client."""

    def __init__(self, network: TorNetwork, servers: list[NameServer]) -> None:
        self.isolator = Isolator()
        self.defects: list[Exception] = []
        self.reactor = Reactor(asyncio.get_running_loop(), self._on_defect)
        socks = Endpoint.tcp(*network.client.socks)
        self.dialer = Dialer(self.reactor, self.isolator, DialerSettings(socks, timeout_s=60))
        self.names = ElectrumBackend(
            self.dialer,
            self.isolator,
            ElectrumSettings(
                network=REGTEST,
                servers=servers,
                confirmations=6,
                max_tip_age=None,
                ready_wait=60.0,
                deadline=60.0,
                pool=POOL,
            ),
            wall_clock=lambda: CHAIN.blocks[-1].time + 600.0,
        )

    def _on_defect(self, handler: Handler, error: Exception) -> None:
        self.defects.append(error)


@contextlib.asynccontextmanager
async def running(network: TorNetwork, servers: list[NameServer]) -> AsyncIterator[User]:
    user = User(network, servers)
    user.names.start()
    try:
        yield user
    finally:
        await user.names.close()
        user.dialer.close()
        user.reactor.close()
        assert user.defects == []


async def test_every_recorded_name_gives_what_namecoin_core_gave(
    tor_network: TorNetwork, name_servers: list[NameServer]
) -> None:
    async with running(tor_network, name_servers) as user:
        key = user.isolator.own_key("a user")
        names = list(ANSWERS)
        answers = await asyncio.gather(*(user.names.lookup(name.encode(), key) for name in names))
        heard: set[str] = set()
        for name, answer in zip(names, answers, strict=True):
            said = ANSWERS[name]
            heard.update(answer.servers)
            if "txid" not in said:
                assert isinstance(answer, Absent)
                assert answer.reason is ErrorKind.NAME_ABSENT
            elif said["expired"]:
                assert isinstance(answer, Absent)
                assert answer.reason is ErrorKind.NAME_EXPIRED
            else:
                assert isinstance(answer, Found)
                assert answer.value == str(said["value"]).encode()
                assert answer.txid == said["txid"]
        assert heard <= {server.label for server in name_servers}
        assert len(heard) >= 2


async def test_no_circuit_carries_two_keys_and_none_outlives_a_new_epoch(
    tor_network: TorNetwork, name_servers: list[NameServer]
) -> None:
    with EchoServer(tor_network.server_ip) as echo, Witness(tor_network.client) as witness:
        async with running(tor_network, name_servers) as user:

            async def use(key_name: str) -> None:
                key = user.isolator.own_key(key_name)
                answer = await user.names.lookup(b"d/plain4", key)
                assert isinstance(answer, Found)
                target = Target.parse(*echo.address)
                (await user.dialer.connect(key, APP, target)).close()

            await asyncio.gather(*(use(f"user {n}") for n in range(4)))
            await asyncio.to_thread(witness.settle)
            before = witness.streams()
            assert len({stream.credentials for stream in before}) >= 4 * 3
            witness.assert_isolated(before)

            mark = witness.mark()
            user.isolator.new_epoch()
            await asyncio.gather(*(use(f"user {n}") for n in range(2)))
            await asyncio.to_thread(witness.settle)
            after = witness.streams(after=mark)
            witness.assert_isolated([*before, *after])
            used = {circuit for stream in before for circuit in stream.circuits}
            assert not used & {circuit for stream in after for circuit in stream.circuits}
