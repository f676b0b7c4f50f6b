from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any

import pytest

from isoproxy.errors import DialError, ErrorKind
from isoproxy.isolation import Isolator
from isoproxy.namecoin.chain.params import MAINNET, REGTEST, ChainParams
from isoproxy.namecoin.electrum.connector import Opener
from isoproxy.namecoin.electrum.pins import PinStore
from isoproxy.namecoin.electrum.servers import parse_server
from isoproxy.namecoin.electrum.session import WrongNetwork
from isoproxy.namecoin.electrum.tls import TlsPolicy
from tests.kit.direct_dialer import DirectDialer
from tests.kit.electrum_server import ElectrumServer, Silence
from tests.kit.electrumx import self_signed
from tests.kit.namecoin.chain import RegtestChain

CHAIN = RegtestChain.recorded()


class Bench:
    """An opener that dials without Tor."""

    def __init__(self, network: ChainParams = REGTEST, timeout: float = 5.0) -> None:
        self.isolator, self.dialer = Isolator(), DirectDialer()
        self.opener = Opener(self.dialer, self.isolator, network, TlsPolicy(PinStore()), timeout)


async def test_each_connection_is_handshaken_and_has_credentials_of_its_own() -> None:
    bench = Bench()
    async with ElectrumServer(CHAIN) as server:
        label = parse_server(f"127.0.0.1:{server.port}:t")
        sessions = [await bench.opener.open(label) for _ in range(3)]
        assert {session.claimed_height for session in sessions} == {len(CHAIN.blocks) - 1}
        passwords = {credentials.password for credentials in bench.dialer.credentials}
        assert len(passwords) == 3
        for session in sessions:
            session.close()
            await session.wait_closed()


async def test_a_certificate_that_no_authority_vouches_for_is_judged_over_several_circuits(
    tmp_path: Path,
) -> None:
    certificate, key, _ = self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    bench = Bench()
    async with ElectrumServer(CHAIN, tls=context) as server:
        label = parse_server(f"127.0.0.1:{server.port}:s")
        for connections in (3, 4):
            session = await bench.opener.open(label)
            passwords = {credentials.password for credentials in bench.dialer.credentials}
            assert len(passwords) == len(bench.dialer.credentials) == connections
            session.close()
            await session.wait_closed()


async def test_a_new_epoch_does_not_end_what_has_reached_its_server() -> None:
    """The server would see all that are one client's end at one moment."""
    bench = Bench()
    async with ElectrumServer(CHAIN, delay=0.2) as server:
        opening = asyncio.create_task(bench.opener.open(parse_server(f"127.0.0.1:{server.port}:t")))
        await asyncio.sleep(0.1)
        bench.isolator.new_epoch()
        session = await opening
        assert session.is_usable
        session.close()
        await session.wait_closed()


async def test_who_pays_for_a_circuit_is_told_to_the_dialer() -> None:
    bench = Bench()
    async with ElectrumServer(CHAIN) as server:
        for client in (b"one", b""):
            session = await bench.opener.open(parse_server(f"127.0.0.1:{server.port}:t"), client)
            session.close()
            await session.wait_closed()
    assert bench.dialer.clients == [b"one", b""]


async def test_a_server_of_another_network_is_of_no_use() -> None:
    async with ElectrumServer(CHAIN) as server:
        with pytest.raises(WrongNetwork):
            await Bench(MAINNET).opener.open(parse_server(f"127.0.0.1:{server.port}:t"))


@pytest.mark.virtual_clock
async def test_a_server_that_says_nothing_is_given_up_in_time() -> None:
    def silent(method: str, params: list[Any], result: Any) -> Any:
        raise Silence

    async with ElectrumServer(CHAIN, silent) as server:
        began = asyncio.get_running_loop().time()
        with pytest.raises(DialError) as failed:
            await Bench(timeout=30.0).opener.open(parse_server(f"127.0.0.1:{server.port}:t"))
        assert failed.value.kind is ErrorKind.TTL_EXPIRED
        assert 29.0 < asyncio.get_running_loop().time() - began < 61.0
