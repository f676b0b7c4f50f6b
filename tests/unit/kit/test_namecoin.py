"""The kit's own chain: what it mines is a chain to everybody who looks at it."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

import pytest

from isoproxy.namecoin.chain.params import REGTEST
from tests.kit.namecoin.at_once import check_proof_of_work, name_update, parse_header
from tests.kit.namecoin.chain import (
    RECORDED_TIP,
    RegtestChain,
    merkle_branch,
    merkle_tree,
    recorded_answers,
)
from tests.kit.namecoin.daemon import NamecoinDaemon


def test_the_recorded_chain_is_whole() -> None:
    chain = RegtestChain.recorded()
    assert chain.tip == RECORDED_TIP
    assert len(recorded_answers()) == 37
    for before, block in zip(chain.blocks, chain.blocks[1:], strict=False):
        assert block.header[4:36] == bytes.fromhex(before.block_hash)[::-1]
        ids = [bytes.fromhex(txid)[::-1] for txid in block.transactions]
        assert block.header[36:68] == merkle_tree(ids)[-1][0]


def test_mined_blocks_continue_it() -> None:
    chain = RegtestChain.recorded()
    chain.mine_empty(3)
    output = chain.update(b"d/x", b"1")
    again = chain.update(b"d/x", b"2")
    for height in range(RECORDED_TIP + 1, chain.tip + 1):
        block = chain.blocks[height]
        check_proof_of_work(parse_header(block.header), height, REGTEST)
        assert block.header[4:36] == bytes.fromhex(chain.blocks[height - 1].block_hash)[::-1]
    update = name_update(chain.transactions[again.txid], b"d/x")
    assert update.value == b"2"
    assert output.outpoint in update.spends


def test_a_rewound_chain_forgets_names_but_not_stale_blocks() -> None:
    chain = RegtestChain.recorded()
    chain.mine()
    fork = chain.tip
    first = chain.update(b"d/x", b"1")
    stale = chain.blocks[-1].block_hash
    chain.rewind(fork)
    second = chain.update(b"d/x", b"2")
    assert first.height == second.height
    assert chain.blocks[-1].block_hash != stale
    assert stale in chain.by_hash
    assert name_update(chain.transactions[second.txid], b"d/x").op.name == "FIRSTUPDATE"


def test_branches_of_an_odd_level_repeat_its_last_node() -> None:
    leaves = [bytes([n]) * 32 for n in range(3)]
    assert merkle_branch(leaves, 2)[0] == leaves[2]


def call(url: str, body: Any) -> Any:
    bare = url.replace("user:password@", "")
    request = urllib.request.Request(bare, json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=5) as reply:
        assert reply.headers["Content-Type"] == "application/json"
        return json.load(reply)


def test_the_daemon_answers_as_electrumx_expects() -> None:
    chain = RegtestChain.recorded()
    with NamecoinDaemon(chain) as daemon:
        one = call(daemon.url, {"method": "getblockcount", "params": [], "id": 7})
        assert one == {"result": RECORDED_TIP, "error": None, "id": 7}
        chain.mine()
        several = call(
            daemon.url,
            [
                {"method": "getblockcount", "params": [], "id": 1},
                {"method": "getblockhash", "params": [10**6], "id": 2},
                {"method": "getrawtransaction", "params": ["00" * 32, 0], "id": 3},
                {"method": "nonsense", "params": [], "id": 4},
            ],
        )
        assert several[0]["result"] == RECORDED_TIP + 1
        assert [item["error"]["code"] for item in several[1:]] == [-8, -5, -32601]


def test_a_stopped_daemon_is_gone() -> None:
    with NamecoinDaemon(RegtestChain.recorded()) as daemon:
        url = daemon.url
    with pytest.raises(urllib.error.URLError):
        call(url, {"method": "getblockcount", "id": 1})
