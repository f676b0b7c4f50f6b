"""Plaintext: whatever clients say, on whatever port, v1 is not seen where it must not be.

    python -m tests.fire.plaintext --streams 10000

Theory of operation
    On a private Tor network, sinks at the exits' far side keep all that comes (`exit_sinks`).
    For "never" and "onion-only" each, real programs first try to reach them, then a crowd of
    clients with random first bytes does, over SOCKS5, SOCKS4a, HTTP CONNECT and the Bitcoin
    proxy; with "never" some go to the sinks by an onion service.  No message of a known
    network may have come, with "never" nothing that is shaped like a v1 header to a port of
    Bitcoin's, whatever its magic; no circuit may have carried Bitcoin and anything else.

    What is no v1 must have come whole: so much shows that the sinks would have seen the rest.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.interop.namecoin_core import NamecoinCore
from tests.interop.nodes import BcoinSpv, Bitcoinj, Btcd, Kyoto, Neutrino, Program
from tests.kit.isoproxy_process import Isoproxy
from tests.kit.tornet import TorNetwork
from tests.network.exit_capture import LISTED, Seen, run
from tests.network.exit_sinks import Sinks

Start = Callable[[Path, int, str], Program]


def namecoind(folder: Path, proxy: int, peer: str, chain: str) -> NamecoinCore:
    """It dials loopback addresses without its proxy, so it is given a name."""
    there = "one.test:" + peer.rpartition(":")[2]
    words = (f"-proxy=127.0.0.1:{proxy}", f"-connect={there}")
    return NamecoinCore(folder, *words, v2=False, chain=chain)


PROGRAMS: Final[dict[str, Start]] = {
    "btcd": lambda folder, proxy, peer: Btcd(
        folder, f"--proxy=127.0.0.1:{proxy}", f"--connect={peer}", v2=False, listen=False
    ),
    "bcoin": BcoinSpv,
    "neutrino": Neutrino,
    "kyoto": lambda folder, proxy, peer: Kyoto(folder, peer, proxy_port=proxy),
    "bitcoinj": Bitcoinj,
    "namecoind": lambda folder, proxy, peer: namecoind(folder, proxy, peer, "regtest"),
    "namecoind on its main chain": lambda folder, proxy, peer: namecoind(
        folder, proxy, peer, "main"
    ),
}
"""Programs that speak v1, each given a folder, the proxy's port and its peer."""
LISTEN_S: Final = 45.0
"""How long the programs try."""


@contextlib.contextmanager
def programs(proxy: Isoproxy, sinks: Sinks) -> Iterator[None]:
    """Each program twice, with a peer on a port of Bitcoin's and with one on another."""
    elsewhere = [port for port in sinks.manners if port not in LISTED]
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="plaintext-")))
        for number, (name, start) in enumerate(PROGRAMS.items()):
            for port in (LISTED[number], elsewhere[number % len(elsewhere)]):
                peer = f"{sinks.host}:{port}"
                try:
                    program = start(folder / f"{name}-{port}", proxy.address[1], peer)
                except pytest.skip.Exception as reason:
                    print(f"without {name}: {reason}", file=sys.stderr, flush=True)
                    continue
                stack.callback(program.stop)
        time.sleep(LISTEN_S)
        yield


def report(seen: Seen) -> dict[str, Any]:
    """What a run showed, in numbers; `faults` is empty where all was well."""
    told = Counter(opening.kind.value for opening in seen.told)
    faults = [*seen.faults, *(f"not whole: {one.whole.hex()}" for one in seen.missing)]
    if seen.mixed:
        faults.append(f"{seen.mixed} circuits carried several tuples")
    return {
        "clients": dict(told),
        "from_programs": seen.from_programs,
        "connections_at_the_sinks": len(seen.received),
        "bytes_at_the_sinks": sum(len(one.said) for one in seen.received),
        "arrived_whole": len(seen.whole),
        "refused_by_socks": seen.failed,
        "outcomes": dict(seen.outcomes),
        "faults": faults,
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fire.plaintext")
    parser.add_argument("--streams", type=int, default=10_000, help="of both policies together")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--without-programs", action="store_true")
    parser.add_argument("--out", type=Path, default=Path(".cache/fire/plaintext"))
    options = parser.parse_args()
    print(f"plaintext: {options.streams} streams, --seed {options.seed}", flush=True)
    found = {}
    with TorNetwork() as net:
        for fallback in ("never", "onion-only"):
            with tempfile.TemporaryDirectory(prefix="plaintext-") as directory:
                seen = run(
                    Path(directory),
                    net,
                    fallback,
                    streams=options.streams // 2,
                    seed=options.seed,
                    programs=None if options.without_programs else programs,
                )
            found[fallback] = report(seen)
    options.out.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"seed": options.seed, **found}, indent=1)
    (options.out / "plaintext.json").write_text(text + "\n")
    print(text)
    return 1 if any(each["faults"] for each in found.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
