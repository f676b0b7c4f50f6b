"""How long the first verified name takes after months offline: `python -m benchmarks.first_name`.

A chain of `--blocks` merge-mined headers of main-network size (about 0.85 kB) is mined above a
trust anchor, with a name near its end.  Real ElectrumX 1.16 serves it, behind relays that add
half of `--round-trip` in each direction and count bytes.  The light client starts with nothing but
the anchor, over a private Tor network (`--direct`: without), and looks the name up.  Cases:

    three          three honest servers
    three months   the same, with an anchor as old as that
    three, full    the same with `proof = "full"`: what it took before, and takes where no server
                   can cut
    two of twelve  two honest servers among ten that accept and say nothing: 5 s more at most
    one of twelve  one among eleven: a sentence within 15 s of when its headers are there

Printed for each: seconds from the start to the answer, and the bytes that servers sent and were
sent until then.  The goals are for 38,600 blocks and three honest servers: 7 MB and 20 s with an
anchor below all of them, 2.5 MB with one of three months.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks import programs
from isoproxy.isolation import Isolator
from isoproxy.namecoin.backend import Found, TemporaryFailure
from isoproxy.namecoin.chain.params import REGTEST, Anchor, hash_from_hex
from isoproxy.namecoin.chain.transaction import double_sha256
from isoproxy.namecoin.electrum.backend import ElectrumBackend, ElectrumSettings
from isoproxy.namecoin.electrum.connector import Dials
from isoproxy.namecoin.electrum.header_range import SyncSettings
from isoproxy.namecoin.electrum.servers import NameServer, parse_server
from isoproxy.net.endpoint import Endpoint
from isoproxy.net.reactor import Handler, Reactor, ReactorLoop
from isoproxy.tor.dialer import Dialer, DialerSettings
from tests.kit.direct_dialer import DirectDialer
from tests.kit.electrumx import ElectrumX, wait_until_height
from tests.kit.namecoin.chain import RECORDED_TIP, Block, RegtestChain
from tests.kit.namecoin.compact_size import write_compact_size
from tests.kit.namecoin.daemon import NamecoinDaemon
from tests.kit.namecoin.mining import (
    ADDRESS_SCRIPT,
    AUXPOW_VERSION,
    NULL_OUTPOINT,
    MergeMining,
    header_bytes,
    serialise,
)
from tests.kit.tornet import TorNetwork

NINE_MONTHS: Final = 38_600
THREE_MONTHS: Final = 13_000
MOST_BYTES: Final = 7e6
MOST_BYTES_THREE_MONTHS: Final = 2.5e6
MOST_SECONDS: Final = 20.0
NAME: Final = b"d/first"
CONFIRMATIONS: Final = 6


def mined(blocks: int) -> RegtestChain:
    """The recorded chain, `blocks` more of main-network size, and a name on top."""
    rng = random.Random(1)
    grown = list(RegtestChain.recorded().blocks)
    for height in range(len(grown), len(grown) + blocks):
        before = grown[-1]
        script = b"\x04" + height.to_bytes(4, "little")
        coinbase = serialise(1, [(NULL_OUTPOINT, script)], [(1_000_000, ADDRESS_SCRIPT)] * 2)
        txid = double_sha256(coinbase)
        previous = bytes.fromhex(before.block_hash)[::-1]
        plain = header_bytes(AUXPOW_VERSION, previous, txid, before.time + 600)
        mining = MergeMining(
            branch=[rng.randbytes(32) for _ in range(4)],
            coinbase_branch=[rng.randbytes(32) for _ in range(9)],
            nonce=rng.getrandbits(32),
            before=b"\x03" + rng.randbytes(3),
            outputs=3,
            witness=True,
        )
        header = mining.mine(plain)
        block_hash = double_sha256(plain)[::-1].hex()
        raw = header + write_compact_size(1) + coinbase
        grown.append(Block(raw, header, block_hash, {txid[::-1].hex(): coinbase}))
    chain = RegtestChain(grown)
    chain.update(NAME, b'{"ip":"192.0.2.1"}')
    chain.mine_empty(CONFIRMATIONS)
    return chain


@contextlib.contextmanager
def electrumx(directory: Path, chain: RegtestChain, host: str, count: int) -> Iterator[list[int]]:
    """TCP ports of `count` real servers; the first one indexes, the others have a copy."""
    with NamecoinDaemon(chain) as daemon, contextlib.ExitStack() as stack:
        servers = [
            ElectrumX(
                directory / f"server{number}",
                daemon.url,
                host,
                COST_SOFT_LIMIT="1000",
                COST_HARD_LIMIT="10000",
            )
            for number in range(count)
        ]
        for number, server in enumerate(servers):
            server.command = programs.electrumx()
            stack.callback(server.kill)
            if number:
                for name in ("hist", "utxo", "meta"):
                    source = servers[0].directory / name
                    if source.exists():
                        shutil.copytree(source, server.directory / name)
            server.start()
            server.wait_ready()
            asyncio.run(wait_until_height(server.tcp_port, chain.tip, timeout=900.0, host=host))
            if not number and count > 1:
                server.kill()
        servers[0].start()
        servers[0].wait_ready()
        yield [server.tcp_port for server in servers]


class Relays:
    """Servers as the client sees them: behind a delay, or silent."""

    def __init__(self, host: str, delay: float) -> None:
        self._host = host
        self._delay = delay
        self._servers: list[asyncio.Server] = []
        self.bytes = 0

    async def __aenter__(self) -> Relays:
        return self

    async def __aexit__(self, *exc: object) -> None:
        for server in self._servers:
            server.close()

    async def honest(self, port: int) -> int:
        """The port of a relay before the server at `port`."""

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(asyncio.CancelledError):
                await copy(reader, writer)

        async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            there, back = await asyncio.open_connection(self._host, port, limit=1 << 20)
            await asyncio.gather(self._carry(reader, back), self._carry(there, writer))

        return await self._listen(serve)

    async def silent(self) -> int:
        """The port of a server that accepts and never says a word."""

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError, asyncio.CancelledError):
                while await reader.read(1 << 16):
                    pass

        return await self._listen(serve)

    async def _listen(self, serve: object) -> int:
        server = await asyncio.start_server(serve, self._host, 0, limit=1 << 20)  # type: ignore[arg-type]
        self._servers.append(server)
        return int(server.sockets[0].getsockname()[1])

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Every byte `delay` s later, however many there are."""
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 14):
                self.bytes += len(data)
                loop.call_later(self._delay, _write, writer, data)
                await asyncio.sleep(0)
        loop.call_later(self._delay, writer.close)


def _write(writer: asyncio.StreamWriter, data: bytes) -> None:
    if not writer.is_closing():
        writer.write(data)


@contextlib.asynccontextmanager
async def dialer(network: TorNetwork | None, isolator: Isolator) -> AsyncIterator[Dials]:
    """Through the network's client, or straight."""
    if network is None:
        yield DirectDialer()
        return

    def fail(handler: Handler, error: Exception) -> None:
        raise error

    reactor = Reactor(asyncio.get_running_loop(), fail)
    tor = Dialer(reactor, isolator, DialerSettings(Endpoint.tcp(*network.client.socks)))
    try:
        yield tor
    finally:
        tor.close()
        reactor.close()


@dataclass(frozen=True)
class Outcome:
    """One run: seconds to the headers and to the answer, bytes, and what it was."""

    ready: float
    seconds: float
    bytes: int
    said: str


async def run(
    network: TorNetwork | None,
    servers: list[NameServer],
    anchor: Anchor,
    relays: Relays,
    *,
    now: float,
    sampled: bool,
) -> Outcome:
    """From nothing but the anchor to the first name."""
    isolator = Isolator()
    async with dialer(network, isolator) as tor:
        settings = ElectrumSettings(
            network=REGTEST,
            servers=servers,
            confirmations=CONFIRMATIONS,
            anchor=anchor,
            max_tip_age=None,
            ready_wait=3600.0,
            sync=SyncSettings(sampled=sampled),
        )
        names = ElectrumBackend(tor, isolator, settings, wall_clock=lambda: now)
        before, began = relays.bytes, time.perf_counter()
        names.start()
        looking = asyncio.create_task(names.lookup(NAME, isolator.own_key("someone")))
        await names.sync.ready.wait()
        ready = time.perf_counter() - began
        try:
            answer = await looking
            assert isinstance(answer, Found), "the name was not found"
            said = answer.evidence.value
        except TemporaryFailure as failure:
            said = str(failure)
        outcome = Outcome(ready, time.perf_counter() - began, relays.bytes - before, said)
        await names.close()
    return outcome


async def measure(
    network: TorNetwork | None,
    ports: list[int],
    chain: RegtestChain,
    options: argparse.Namespace,
) -> dict[str, list[Outcome]]:
    now = chain.blocks[-1].time + 600.0
    far = _anchor(chain, RECORDED_TIP)
    near = _anchor(chain, max(RECORDED_TIP, chain.tip - THREE_MONTHS))
    host = network.server_ip if network is not None else "127.0.0.1"
    results: dict[str, list[Outcome]] = {}
    async with Relays(host, options.round_trip / 2) as relays:
        honest = [await relays.honest(port) for port in ports]
        silent = [await relays.silent() for _ in range(11)]
        all_honest = _servers(host, honest)
        cases = {
            "three": (all_honest, True, far),
            "three months": (all_honest, True, near),
            "two of twelve": (_servers(host, honest[:2] + silent[:10]), True, far),
            "one of twelve": (_servers(host, honest[:1] + silent), True, far),
        }
        if options.full:
            cases["three, full"] = (all_honest, False, far)
        for name, (servers, sampled, anchor) in cases.items():
            if options.only and name not in options.only:
                continue
            for _ in range(options.repetitions):
                outcome = await run(network, servers, anchor, relays, now=now, sampled=sampled)
                results.setdefault(name, []).append(outcome)
                print(
                    f"{name:>14}: headers {outcome.ready:6.1f} s, answer {outcome.seconds:6.1f} s,"
                    f" {outcome.bytes / 1e6:6.2f} MB, {outcome.said}",
                    flush=True,
                )
    return results


def _anchor(chain: RegtestChain, height: int) -> Anchor:
    return Anchor(height, hash_from_hex(chain.blocks[height].block_hash))


def _servers(host: str, ports: list[int]) -> list[NameServer]:
    return [parse_server(f"{host}:{port}:t", f"operator {port}") for port in ports]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.first_name")
    parser.add_argument("--blocks", type=int, default=NINE_MONTHS)
    parser.add_argument("--round-trip", type=float, default=0.3, help="s added (default: 0.3)")
    parser.add_argument("--repetitions", type=int, default=10)
    parser.add_argument("--direct", action="store_true", help="without Tor")
    parser.add_argument("--full", action="store_true", help="also with proof = full")
    parser.add_argument("--only", action="append", help="a case; may be repeated")
    options = parser.parse_args()
    began = time.perf_counter()
    chain = mined(options.blocks)
    size = sum(len(block.header) for block in chain.blocks[-1000:]) / 1000
    print(f"{options.blocks} blocks, headers of {size:.0f} bytes, mined in "
          f"{time.perf_counter() - began:.0f} s", flush=True)  # fmt: skip
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        network = None if options.direct else stack.enter_context(TorNetwork())
        host = network.server_ip if network is not None else "127.0.0.1"
        ports = stack.enter_context(electrumx(directory, chain, host, 3))
        runner = stack.enter_context(asyncio.Runner(loop_factory=ReactorLoop))
        results = runner.run(measure(network, ports, chain, options))
    for name, outcomes in results.items():
        print(
            f"{name:>14}: median of {len(outcomes)}: "
            f"{statistics.median(one.seconds for one in outcomes):6.1f} s, "
            f"{statistics.median(one.bytes for one in outcomes) / 1e6:6.2f} MB"
        )
    if options.blocks != NINE_MONTHS:
        return 0
    print(f"goals: {MOST_SECONDS:.0f} s, {MOST_BYTES / 1e6:.0f} MB; three months: "
          f"{MOST_BYTES_THREE_MONTHS / 1e6:.1f} MB")  # fmt: skip
    far, near = results.get("three", []), results.get("three months", [])
    is_met = not far or (
        statistics.median(one.seconds for one in far) <= MOST_SECONDS
        and statistics.median(one.bytes for one in far) <= MOST_BYTES
    )
    if near and statistics.median(one.bytes for one in near) > MOST_BYTES_THREE_MONTHS:
        is_met = False
    return 0 if is_met else 1


if __name__ == "__main__":
    sys.exit(main())
