"""An Electrum server of our own over a test chain, honest or not.

ElectrumX (`electrumx`) is the measure of what servers do.  This one is for what it never
does: it lies on request, is slow, cuts connections, speaks older protocols, and starts in
no time.  A `Lie` sees each honest result and returns what is sent instead.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import Callable, Sequence
from typing import Any

from isoproxy.namecoin.chain.name_script import parse_name_script, script_hash
from isoproxy.namecoin.chain.params import REGTEST
from isoproxy.namecoin.chain.transaction import double_sha256
from tests.kit.namecoin.at_once import parse_transaction
from tests.kit.namecoin.chain import Block, RegtestChain, merkle_branch, merkle_tree

Lie = Callable[[str, list[Any], Any], Any]
"""(method, params, honest result) -> what to send; may raise `Cut` or `Fault`."""


class Cut(Exception):
    """Close the connection instead of answering."""


class Fault(Exception):
    """Answer with this error code."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Silence(Exception):
    """Never answer this request."""


def honest(method: str, params: list[Any], result: Any) -> Any:
    """The lie that is none."""
    return result


class ElectrumServer:
    """`async with ElectrumServer(chain) as server:` serves at `host`:`server.port`.

    `protocol` is the newest version spoken; `delay` in s is waited before each answer.
    As ElectrumX does, it goes on naming the transactions of lost blocks in histories.
    It cuts headers as 1.16 and 1.18 do; as 1.19 does, unless `cuts_right`.
    """

    def __init__(
        self,
        chain: RegtestChain,
        lie: Lie = honest,
        *,
        protocol: str = "1.4.3",
        delay: float = 0.0,
        host: str = "127.0.0.1",
        port: int = 0,
        tls: ssl.SSLContext | None = None,
        cuts_right: bool = True,
    ) -> None:
        self.cuts_right = cuts_right
        self.chain = chain
        self.lie = lie
        self.protocol = protocol
        self.delay = delay
        self.host = host
        self.port = port
        self.tls = tls
        self.requests: list[tuple[str, list[Any]]] = []
        self.connections = 0
        self.asking: Any = None
        """Of a server in memory: the connection whose request it answers."""
        self._names: dict[str, list[tuple[str, str]]] = {}
        self._histories: dict[str, set[tuple[int, str]]] = {}
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> ElectrumServer:
        self._server = await asyncio.start_server(
            self.serve, self.host, self.port, limit=1 << 20, ssl=self.tls
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        self.cut_all()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def cut_all(self) -> None:
        """Close every connection."""
        for writer in list(self._writers):
            writer.transport.abort()

    def announce(self) -> None:
        """Tell every client about the tip."""
        tip = self.lie("blockchain.headers.subscribe", [], self._tip())
        note = {"jsonrpc": "2.0", "method": "blockchain.headers.subscribe", "params": [tip]}
        for writer in self._writers:
            writer.write(json.dumps(note).encode() + b"\n")

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Speak over a connection, whoever accepted it, to its end."""
        self.connections += 1
        self._writers.add(writer)
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.CancelledError):
                while line := await reader.readline():
                    message = json.loads(line)
                    answering = asyncio.create_task(self._answer(writer, message))
                    self._tasks.add(answering)
                    answering.add_done_callback(self._tasks.discard)
        finally:
            self._tasks.discard(task)
            self._writers.discard(writer)
            writer.transport.abort()

    async def _answer(self, writer: asyncio.StreamWriter, message: dict[str, Any]) -> None:
        method, params = message["method"], message["params"]
        self.requests.append((method, params))
        reply: dict[str, Any] = {"jsonrpc": "2.0", "id": message["id"]}
        try:
            reply["result"] = self.lie(method, params, self._honest(method, params))
        except Fault as fault:
            reply["error"] = {"code": fault.code, "message": "no"}
        except Silence:
            return
        except Cut:
            writer.transport.abort()
            return
        await asyncio.sleep(self.delay)
        if not writer.is_closing():
            writer.write(json.dumps(reply).encode() + b" " * 100 + b"\n")

    # -- the honest answers -------------------------------------------------------

    def _tip(self) -> dict[str, Any]:
        return {"hex": self.chain.blocks[-1].header.hex(), "height": self.chain.tip}

    def _honest(self, method: str, params: list[Any]) -> Any:
        answer = getattr(self, "_" + method.replace(".", "_"), None)
        if answer is None or ("value_proof" in method and self.protocol < "1.4.3"):
            raise Fault(-32601)
        return answer(*params)

    def _server_version(self, client: str, versions: Sequence[str]) -> list[str]:
        return ["Test 1.0", self.protocol]

    def _server_features(self) -> dict[str, Any]:
        return {"genesis_hash": self.chain.blocks[0].block_hash}

    def _server_ping(self) -> None:
        return None

    def _blockchain_headers_subscribe(self) -> dict[str, Any]:
        return self._tip()

    def _blockchain_block_header(self, height: int, checkpoint: int = 0) -> Any:
        if not 0 <= height <= self.chain.tip or checkpoint > self.chain.tip:
            raise Fault(1)
        header = self.chain.blocks[height].header
        if not checkpoint:
            return header.hex()
        leaves = [double_sha256(block.header[:80]) for block in self.chain.blocks[: checkpoint + 1]]
        return {
            "header": header[:80].hex(),
            "branch": [item[::-1].hex() for item in merkle_branch(leaves, height)],
            "root": merkle_tree(leaves)[-1][0][::-1].hex(),
        }

    def _blockchain_block_headers(
        self, start: int, count: int, checkpoint: int = 0
    ) -> dict[str, Any]:
        headers = [block.header for block in self.chain.blocks[start : start + min(count, 2016)]]
        if checkpoint:
            if not start + count - 1 <= checkpoint <= self.chain.tip:
                raise Fault(1)
            return {"count": len(headers), "hex": b"".join(self._cut(headers)).hex(), "max": 2016}
        return {"count": len(headers), "hex": b"".join(headers).hex(), "max": 2016}

    def _cut(self, headers: list[bytes]) -> list[bytes]:
        if self.cuts_right:
            return [header[:80] for header in headers]
        blob, pieces, at = b"".join(headers), list[bytes](), 0
        while at < len(blob):
            pieces.append(blob[at : at + 80])
            at += len(self.chain.blocks[len(pieces) - 1].header)
        return pieces

    def _names_in(self, block: Block) -> list[tuple[str, str]]:
        if block.block_hash not in self._names:
            self._names[block.block_hash] = [
                (script_hash(script.name), txid)
                for txid, raw in block.transactions.items()
                for output in parse_transaction(raw).outputs
                if (script := parse_name_script(output.script)) is not None and script.name
            ]
        return self._names[block.block_hash]

    def _blockchain_scripthash_get_history(self, key: str) -> list[dict[str, Any]]:
        history = self._histories.setdefault(key, set())
        history.update(
            (height, txid)
            for height, block in enumerate(self.chain.blocks)
            for name, txid in self._names_in(block)
            if name == key
        )
        return [{"tx_hash": txid, "height": height} for height, txid in sorted(history)]

    def _blockchain_transaction_get(self, txid: str) -> str:
        if txid not in self.chain.transactions:
            raise Fault(2)
        return self.chain.transactions[txid].hex()

    def _blockchain_transaction_get_merkle(self, txid: str, height: int) -> dict[str, Any]:
        txids = list(self.chain.blocks[height].transactions) if height <= self.chain.tip else []
        if txid not in txids:
            raise Fault(1)
        position = txids.index(txid)
        branch = merkle_branch([bytes.fromhex(item)[::-1] for item in txids], position)
        return {
            "block_height": height,
            "merkle": [item[::-1].hex() for item in branch],
            "pos": position,
        }

    def _blockchain_name_get_value_proof(self, key: str, checkpoint: int = 0) -> dict[str, Any]:
        proofs: list[dict[str, Any]] = []
        previous = None
        for item in reversed(self._blockchain_scripthash_get_history(key)):
            height, txid = item["height"], item["tx_hash"]
            if previous is not None and height < previous - REGTEST.expiry:
                break
            merkle = self._blockchain_transaction_get_merkle(txid, height)
            del merkle["block_height"]
            proofs.append({"height": height, "tx": self.chain.transactions[txid].hex()})
            proofs[-1]["tx_merkle"] = merkle
            if height <= checkpoint:
                proofs[-1]["header"] = self._blockchain_block_header(height, checkpoint)
                break
            previous = height
        return {key: proofs}
