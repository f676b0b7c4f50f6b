"""The real Electrum-NMC (4.0.6) on regtest: believed only where it keeps look-ups apart.

ELECTRUM_NMC_PATH      its program, e.g. `bin/electrum-nmc` of an environment it is installed in
ELECTRUM_NMC_4_1_PATH  that of 4.1.0, which has lost isolation

Its servers are real ElectrumX, reached through a SOCKS port that ends the TLS and notes which
questions come under which credentials.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from isoproxy.errors import ErrorKind
from isoproxy.isolation import Isolator
from isoproxy.namecoin.backend import Absent, Found, TemporaryFailure
from isoproxy.namecoin.rpc.client import JsonRpcClient, fixed_login
from isoproxy.namecoin.rpc.electrum_nmc import ElectrumNmcBackend
from isoproxy.net.endpoint import Endpoint
from isoproxy.socks import Request, Server
from tests.kit.electrumx import ElectrumX, ElectrumXServers, self_signed
from tests.kit.namecoin.chain import RegtestChain, recorded_answers
from tests.kit.namecoin.daemon import NamecoinDaemon
from tests.kit.ports import free_port
from tests.kit.socks_port import SocksPort
from tests.unit.namecoin.kit import key_of

pytestmark = pytest.mark.skipif(
    "ELECTRUM_NMC_PATH" not in os.environ,
    reason="ELECTRUM_NMC_PATH is not set: the real Electrum-NMC 4.0.6 is needed",
)
SERVERS = [f"{letter * 56}.onion:50002:s" for letter in "abcd"]
BEGIN_S = 60.0
MORE_BLOCKS = 10


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ElectrumX]:
    chain = RegtestChain.recorded()
    chain.mine_empty(MORE_BLOCKS)  # it takes no value of less than 18 confirmations
    with (
        NamecoinDaemon(chain) as daemon,
        ElectrumXServers(tmp_path_factory.mktemp("x"), daemon.url, 1) as (only,),
    ):
        yield only


class Exit:
    """A SOCKS port whose streams all end at one ElectrumX, and what was asked over each."""

    def __init__(self, server: ElectrumX, directory: Path) -> None:
        self._server = server
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate, key, _ = self_signed(directory, SERVERS[0].split(":")[0])
        self._tls.load_cert_chain(certificate, key)
        self.port = SocksPort(self._serve)
        self.asked: list[tuple[bytes | None, bytes | None, str]] = []
        """User name, password and script hash of each question about a name."""

    async def _serve(
        self,
        request: Request,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        socks: Server,
    ) -> None:
        writer.write(socks.succeed())
        await writer.start_tls(self._tls)
        up, out = await asyncio.open_connection("127.0.0.1", self._server.tcp_port)
        back = asyncio.create_task(_copy(up, writer))
        try:
            while line := await reader.readline():
                call = json.loads(line)
                if call["method"] in ("blockchain.name.get_value_proof", _HISTORY):
                    self.asked.append((request.username, request.password, call["params"][0]))
                out.write(line)
        finally:
            back.cancel()
            out.transport.abort()


_HISTORY = "blockchain.scripthash.get_history"


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)


@contextlib.asynccontextmanager
async def electrum_nmc(
    directory: Path, *options: str, program: str | None = None
) -> AsyncIterator[ElectrumNmcBackend]:
    """A backend that asks a running Electrum-NMC."""
    port = free_port()
    program = program or os.environ["ELECTRUM_NMC_PATH"]
    regtest = directory / "regtest"
    regtest.mkdir()
    (regtest / "recent_servers").write_text(json.dumps(SERVERS))
    settings = {"rpchost": "127.0.0.1", "rpcport": port, "rpcuser": "u", "rpcpassword": "p"}
    (regtest / "config").write_text(json.dumps(settings | {"server": SERVERS[0]}))
    with (directory / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            program, "-D", str(directory), "--regtest", "daemon", *options,
            "-v", stdout=log, stderr=log,
        )  # fmt: skip
    client = JsonRpcClient(Endpoint.tcp("127.0.0.1", port), fixed_login("u", "p"))
    try:
        async with asyncio.timeout(BEGIN_S):
            while True:
                with contextlib.suppress(TemporaryFailure):
                    await client.call("getconfig", {"key": "rpcport"})
                    break
                await asyncio.sleep(0.1)
        yield ElectrumNmcBackend(client)
    finally:
        client.close()
        process.kill()
        await process.wait()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ([], "no SOCKS5 proxy"),
        (["-p", "socks4:127.0.0.1:1"], "no SOCKS5 proxy"),
        (["-p", "socks5:127.0.0.1:1:user:word:0"], "no SOCKS5 proxy"),
        (["-p", "socks5:127.0.0.1:1", "--oneserver"], "because of oneserver"),
    ],
)
async def test_where_it_does_not_isolate_it_is_refused(
    tmp_path: Path, options: list[str], sentence: str
) -> None:
    async with electrum_nmc(tmp_path, *options) as backend:
        with pytest.raises(TemporaryFailure, match=sentence):
            await backend.check()
        with pytest.raises(TemporaryFailure, match=sentence):
            await backend.lookup(b"d/plain4", key_of(Isolator(), "a"))


@pytest.mark.skipif(
    "ELECTRUM_NMC_4_1_PATH" not in os.environ, reason="ELECTRUM_NMC_4_1_PATH is not set"
)
async def test_the_release_that_ignores_stream_ids_is_refused(tmp_path: Path) -> None:
    program = os.environ["ELECTRUM_NMC_4_1_PATH"]
    proxy = "socks5:127.0.0.1:1"
    async with electrum_nmc(tmp_path, "-p", proxy, program=program) as backend:
        with pytest.raises(TemporaryFailure, match="ignores stream isolation"):
            await backend.lookup(b"d/plain4", key_of(Isolator(), "a"))


async def test_behind_a_proxy_each_identity_has_credentials_of_its_own(
    server: ElectrumX, tmp_path: Path
) -> None:
    isolator = Isolator()
    exit_ = Exit(server, tmp_path)
    async with exit_.port as port:
        proxy = f"socks5:127.0.0.1:{port.endpoint.port}"
        async with electrum_nmc(tmp_path, "-p", proxy) as backend:
            values = {}
            for user, name in (("a", b"d/plain4"), ("b", b"d/plain6"), ("a", b"d/dual")):
                values[name] = await _found(backend, name, key_of(isolator, user))
    assert values[b"d/plain4"] == b'{"ip":"192.0.2.10"}'
    by_credentials: dict[tuple[bytes | None, bytes | None], set[str]] = {}
    for username, password, asked in exit_.asked:
        by_credentials.setdefault((username, password), set()).add(asked)
    assert sorted(map(len, by_credentials.values())) == [1, 2], by_credentials
    assert all(username for username, _ in by_credentials)


async def test_every_recorded_name_gives_what_namecoin_core_gave(
    server: ElectrumX, tmp_path: Path
) -> None:
    key = key_of(Isolator(), "a")
    said = recorded_answers()
    exit_ = Exit(server, tmp_path)
    async with exit_.port as port:
        proxy = f"socks5:127.0.0.1:{port.endpoint.port}"
        async with electrum_nmc(tmp_path, "-p", proxy) as backend:
            await _found(backend, b"d/plain4", key)
            given = {name: await backend.lookup(name.encode(), key) for name in said}
    for name, answer in given.items():
        core = said[name]
        if "txid" not in core:
            assert answer == Absent(ErrorKind.NAME_ABSENT)
        elif core["expired"]:
            assert answer == Absent(ErrorKind.NAME_EXPIRED)
        else:
            assert isinstance(answer, Found), name
            assert (answer.value.decode(), answer.height) == (core["value"], core["height"])
            assert answer.txid == core["txid"]
            assert answer.expires_in == int(str(core["expires_in"])) - MORE_BLOCKS


async def _found(backend: ElectrumNmcBackend, name: bytes, key: object) -> bytes:
    """The value; asks again while the program still synchronises."""
    async with asyncio.timeout(BEGIN_S):
        while True:
            with contextlib.suppress(TemporaryFailure):
                answer = await backend.lookup(name, key)  # type: ignore[arg-type]
                assert isinstance(answer, Found), answer
                return answer.value
            await asyncio.sleep(0.5)
