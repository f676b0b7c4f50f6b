"""How many merge-mined headers a second one core validates, and in how much memory.

    python -m benchmarks.headers [COUNT] [DISTINCT]

A chain of DISTINCT headers is mined here, each of the size that main-network headers
have on average (about 0.8 kB: a witness coinbase with five outputs, a parent block of
thousands of transactions, a merged-mining tree of sixteen chains), at a difficulty that
is found at once.  COUNT of them then pass through the parser and all checks
of the chain, as they do in synchronisation.  The chain is begun anew
each time its headers are used up.

Where ELECTRUM_NMC_SOURCE names the directory of Electrum-NMC's source and ELECTRUM_NMC_PYTHON a
Python that has what it needs, its code reads and checks the same headers, in turns with ours.
They have no witness then: it refuses those that do.
"""

from __future__ import annotations

import dataclasses
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
import tracemalloc

from isoproxy.namecoin.chain.auxpow import Header, series
from isoproxy.namecoin.chain.header_chain import HeaderChain
from isoproxy.namecoin.chain.params import MAINNET, REGTEST, Anchor, ChainParams
from tests.kit.namecoin.at_once import append
from tests.kit.namecoin.mining import AUXPOW_VERSION, PLAIN_VERSION, MergeMining, header_bytes

TARGET = 5000
EASY = dataclasses.replace(MAINNET, pow_limit=REGTEST.pow_limit, retargets=False)
FIRST = 815_000
ROUNDS = 5
THEIRS = """
import sys, time
sys.path.insert(0, sys.argv[1])
from electrum_nmc.electrum import blockchain
target, bits = 0x7FFFFF << 232, 0x207FFFFF
blockchain.Blockchain.target_to_bits = classmethod(lambda cls, target: bits)
blob, at, height, previous = open(sys.argv[2], "rb").read(), 0, int(sys.argv[3]), None
began = time.process_time()
while at < len(blob):
    header, at = blockchain.deserialize_full_header(
        blob, height, expect_trailing_data=True, start_position=at)
    previous = previous or header["prev_block_hash"]
    blockchain.Blockchain.verify_header(header, previous, target)
    previous, height = blockchain.hash_header(header), height + 1
print((height - int(sys.argv[3])) / (time.process_time() - began))
"""
"""What Electrum-NMC's `verify_chunk` does for each header, on its main network.

Its own compact form of a target cannot write one this easy."""


def hashes(count: int, rng: random.Random) -> list[bytes]:
    return [rng.randbytes(32) for _ in range(count)]


def mine(count: int, *, witness: bool = True) -> tuple[ChainParams, Anchor, list[Header], bytes]:
    """Rules, anchor, the headers up to the anchor, and `count` full headers above it."""
    rng = random.Random(1)
    previous, when, below = bytes(32), 1_700_000_000, []
    for _ in range(11):
        below.append(Header.parse(header_bytes(PLAIN_VERSION, previous, rng.randbytes(32), when)))
        previous, when = below[-1].block_hash, when + 600
    anchor = Anchor(FIRST, previous)
    parts = []
    for _ in range(count):
        mining = MergeMining(
            branch=hashes(4, rng),
            coinbase_branch=hashes(12, rng),
            nonce=rng.getrandbits(32),
            before=b"\x03" + rng.randbytes(3),
            outputs=3,
            witness=witness,
        )
        header = header_bytes(AUXPOW_VERSION, previous, rng.randbytes(32), when)
        parts.append(mining.mine(header))
        previous, when = Header.parse(header).block_hash, when + 600
    return EASY, anchor, below, b"".join(parts)


def validate(network: ChainParams, anchor: Anchor, below: list[Header], blob: bytes) -> int:
    """Validate the whole of `blob` on top of the anchor; returns how many headers it had."""
    chain = HeaderChain(network, anchor)
    chain.extend_down(below)
    branch = chain.branch(anchor.height)
    for mined in series(blob):
        if mined is not None:
            append(branch, mined)
    chain.adopt(branch)
    return chain.tip_height - anchor.height


def peak_memory(chain: tuple[ChainParams, Anchor, list[Header], bytes], rounds: int) -> int:
    """Bytes allocated at most during `rounds` passes over the chain."""
    tracemalloc.start()
    for _ in range(rounds):
        validate(*chain)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def beside_electrum_nmc(source: str, distinct: int) -> None:
    """Print our best rate over theirs."""
    chain = mine(distinct, witness=False)
    python = os.environ.get("ELECTRUM_NMC_PYTHON", sys.executable)
    ours, theirs = [], []
    with tempfile.NamedTemporaryFile() as blob:
        blob.write(chain[3])
        blob.flush()
        command = [python, "-W", "ignore", "-c", THEIRS, source, blob.name, str(FIRST + 1)]
        for _ in range(ROUNDS):
            began = time.process_time()
            validate(*chain)
            ours.append(distinct / (time.process_time() - began))
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            theirs.append(float(done.stdout))
    print(f"beside Electrum-NMC        {max(ours):.0f} and {max(theirs):.0f} headers/s: "
          f"{max(ours) / max(theirs):.2f} times")  # fmt: skip


def main() -> int:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    distinct = min(count, int(sys.argv[2]) if len(sys.argv) > 2 else 2000)
    chain = mine(distinct)
    size = len(chain[3]) / distinct
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    done, began = 0, time.process_time()
    while done < count:
        done += validate(*chain)
    seconds = time.process_time() - began
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rate = done / seconds
    short, long = peak_memory(chain, 1), peak_memory(chain, 3)
    print(f"headers validated          {done}")
    print(f"average size               {size:.0f} bytes")
    print(f"rate on one core           {rate:.0f} headers/s (target {TARGET})")
    print(f"throughput                 {rate * size / 1e6:.1f} MB/s")
    print(f"peak allocated, one pass   {short / 1e3:.0f} kB; three passes {long / 1e3:.0f} kB")
    print(f"resident growth            {(after - before) / 1e3:.1f} MB over the whole run")
    if (source := os.environ.get("ELECTRUM_NMC_SOURCE")) is not None:
        beside_electrum_nmc(source, distinct)
    return 0 if rate >= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
