"""The light client against real ElectrumX servers, over TCP and TLS, on a moving chain."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from isoproxy.errors import ErrorKind
from isoproxy.namecoin.backend import Absent, Found
from isoproxy.namecoin.electrum.header_range import SyncSettings
from isoproxy.namecoin.electrum.servers import NameServer, parse_server
from tests.kit.electrum_server import ElectrumServer
from tests.kit.electrumx import ElectrumX, ElectrumXServers, wait_until_height
from tests.kit.namecoin.chain import RECORDED_TIP, RegtestChain, recorded_answers
from tests.kit.namecoin.daemon import NamecoinDaemon
from tests.kit.namecoin.light_client import LightClient, light_client, tcp

ANSWERS = recorded_answers()


class Lab:
    """Three ElectrumX servers over one chain that tests may extend."""

    def __init__(self, chain: RegtestChain, servers: list[ElectrumX]) -> None:
        self.chain = chain
        self.servers = servers

    async def settled(self) -> None:
        """Wait until every server has indexed the tip."""
        await asyncio.gather(
            *(wait_until_height(server.tcp_port, self.chain.tip) for server in self.servers)
        )


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    chain = RegtestChain.recorded()
    directory = tmp_path_factory.mktemp("electrumx")
    with (
        NamecoinDaemon(chain) as daemon,
        ElectrumXServers(directory, daemon.url, 3) as servers,
    ):
        yield Lab(chain, servers)


def tls(server: ElectrumX, pin: bytes | None = None) -> NameServer:
    form = f"127.0.0.1:{server.tls_port}:s" + (f":{pin.hex()}" if pin else "")
    return parse_server(form, f"operator {server.tcp_port}")


@contextlib.asynccontextmanager
async def client(
    lab: Lab,
    servers: list[NameServer] | None = None,
    directory: Path | None = None,
    confirmations: int = 6,
    sync: SyncSettings | None = None,
) -> AsyncIterator[LightClient]:
    """A light client whose clock shows a while after the newest block."""
    servers = servers or [tcp(server) for server in lab.servers]

    def clock() -> float:
        return lab.chain.blocks[-1].time + 600.0

    async with light_client(servers, clock, directory, confirmations, sync) as running:
        yield running


async def test_every_recorded_name_gives_what_namecoin_core_gave(lab: Lab) -> None:
    assert lab.chain.tip == RECORDED_TIP, "this test looks at the chain as it was recorded"
    async with client(lab) as user:
        names = list(ANSWERS)
        answers = await asyncio.gather(*(user.lookup(name) for name in names))
        for name, answer in zip(names, answers, strict=True):
            said = ANSWERS[name]
            if "txid" not in said:
                assert isinstance(answer, Absent)
                assert answer.reason is ErrorKind.NAME_ABSENT
            elif said["expired"]:
                assert isinstance(answer, Absent)
                assert answer.reason is ErrorKind.NAME_EXPIRED
            else:
                assert isinstance(answer, Found)
                assert answer.value == str(said["value"]).encode()
                assert answer.height == said["height"]
                assert answer.txid == said["txid"]
                assert answer.expires_in == said["expires_in"]


async def test_over_tls_with_a_pin_or_with_what_was_shown_first(lab: Lab, tmp_path: Path) -> None:
    first, second, third = lab.servers
    servers = [tls(first, first.fingerprint), tls(second), tls(third)]
    async with client(lab, servers[:2], tmp_path) as user:
        assert await user.value("d/plain4") == b'{"ip":"192.0.2.10"}'
        assert isinstance(await user.lookup("d/nope"), Absent)
    kept = (tmp_path / "name-server-pins.json").read_text()
    assert second.fingerprint.hex() in kept
    assert first.fingerprint.hex() not in kept
    wrong = [tls(first, second.fingerprint), *servers[1:]]
    async with client(lab, wrong, tmp_path) as user:
        answer = await user.lookup("d/plain4")
        assert isinstance(answer, Found)
        assert wrong[0].label not in answer.servers


async def test_headers_are_kept_and_resumed(lab: Lab, tmp_path: Path) -> None:
    servers = [tcp(server) for server in lab.servers]
    async with client(lab, servers, tmp_path) as user:
        await user.synced(lab.chain.tip)
    liar = ElectrumServer(lab.chain, lambda method, params, result: result)
    async with liar, client(lab, [*servers, tcp_of(liar)], tmp_path) as user:
        assert user.backend.chain.tip_height == lab.chain.tip
        assert await user.value("d/plain4") == b'{"ip":"192.0.2.10"}'
        assert not [1 for method, _ in liar.requests if method.endswith("block.headers")]


def tcp_of(server: ElectrumServer) -> NameServer:
    return parse_server(f"127.0.0.1:{server.port}:t", "our own server")


async def test_renewals_reorganisations_and_expiry_on_a_moving_chain(lab: Lab) -> None:
    chain = lab.chain
    async with client(lab) as user:
        chain.update(b"d/moving", b"first")
        await lab.settled()
        await user.synced(chain.tip)
        answer = await user.lookup("d/moving")
        assert isinstance(answer, Absent)
        assert answer.reason is ErrorKind.NAME_UNCONFIRMED
        chain.mine_empty(5)
        await lab.settled()
        await user.synced(chain.tip)
        assert await user.value("d/moving") == b"first"

        fork = chain.tip
        chain.update(b"d/moving", b"on the branch that loses")
        chain.mine_empty(5)
        await lab.settled()
        await user.synced(chain.tip)
        assert await user.value("d/moving") == b"on the branch that loses"
        chain.rewind(fork)
        renewal = chain.update(b"d/moving", b"on the branch that wins")
        chain.mine_empty(7)
        await lab.settled()
        await user.synced(chain.tip)
        assert await user.value("d/moving") == b"on the branch that wins"

        chain.mine_empty(renewal.height + 29 - chain.tip)
        await lab.settled()
        await user.synced(chain.tip)
        found = await user.lookup("d/moving")
        assert isinstance(found, Found)
        assert found.expires_in == 1
        chain.mine()
        await lab.settled()
        await user.synced(chain.tip)
        gone = await user.lookup("d/moving")
        assert isinstance(gone, Absent)
        assert gone.reason is ErrorKind.NAME_EXPIRED


async def test_a_liar_among_real_servers_is_found_out(lab: Lab) -> None:
    name = b"d/among-liars"
    lab.chain.update(name, b"the truth")
    lab.chain.mine_empty(12)
    await lab.settled()

    def forge(method: str, params: list[object], result: dict[str, list[dict[str, str]]]) -> object:
        if method.endswith("get_value_proof"):
            for entry in result[str(params[0])]:
                entry["tx"] = entry["tx"].replace(b"truth".hex(), b"wrong".hex())
        return result

    async with (
        ElectrumServer(lab.chain, forge) as liar,
        client(lab, [tcp_of(liar), *map(tcp, lab.servers[:2])], confirmations=12) as user,
    ):
        for _ in range(6):
            user.key = user.isolator.own_key("a user")
            answer = await user.lookup(name.decode())
            assert isinstance(answer, Found)
            assert answer.value == b"the truth"
            assert tcp_of(liar).label not in answer.servers


async def test_a_killed_server_is_replaced_while_look_ups_go_on(lab: Lab) -> None:
    name = b"d/goes-on"
    lab.chain.update(name, b"still here")
    lab.chain.mine_empty(8)
    await lab.settled()
    async with client(lab) as user:
        assert await user.value("d/goes-on") == b"still here"
        lab.servers[0].kill()
        for _ in range(5):
            assert await user.value("d/goes-on") == b"still here"


@pytest.fixture(scope="module")
def thrifty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Two servers that hang up on sessions that cost them more than 170 units.

    They look at every 100, and every 15 s.  All headers cost some 240: a unit per
    5000 bytes, two per answer of 50 headers.
    """
    chain = RegtestChain.recorded()
    chain.mine_empty(1200)
    directory = tmp_path_factory.mktemp("thrifty")
    limits = {"COST_SOFT_LIMIT": "160", "COST_HARD_LIMIT": "170"}
    with (
        NamecoinDaemon(chain) as daemon,
        ElectrumXServers(directory, daemon.url, 2, **limits) as servers,
    ):
        yield Lab(chain, servers)


def cut_off(server: ElectrumX) -> bool:
    return "over res usage" in (server.directory / "log").read_text()


async def test_a_first_synchronisation_stays_below_what_servers_put_up_with(thrifty: Lab) -> None:
    await thrifty.settled()
    async with client(
        thrifty, sync=SyncSettings(chunk=50, cost_capacity=130.0, cost_rate=1.5)
    ) as user:
        await user.synced(thrifty.chain.tip, timeout=170)  # what is above it is waited for
        assert user.backend.health().demoted == 0
    assert not any(map(cut_off, thrifty.servers))


async def test_a_first_synchronisation_goes_on_where_a_server_hangs_up(thrifty: Lab) -> None:
    await thrifty.settled()
    first, second = thrifty.servers
    greedy = SyncSettings(chunk=50, cost_capacity=1e9)
    second.kill()
    async with client(thrifty, sync=greedy) as user:
        await user.synced(thrifty.chain.tip, timeout=60)
    assert cut_off(first)
