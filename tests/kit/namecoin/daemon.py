"""A Namecoin daemon's stand-in: the JSON-RPC calls that ElectrumX makes, over a chain.

It runs in a thread of the test's process, so a test mines or reorganises the chain and
the servers see it at their next poll.
"""

from __future__ import annotations

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.kit.namecoin.chain import RegtestChain


class RpcFault(Exception):
    """An error answer: code and message."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def answer(chain: RegtestChain, method: str, params: list[Any]) -> Any:
    """The result that Namecoin Core would give; raises RpcFault."""
    if method == "getblockcount":
        return chain.tip
    if method == "getbestblockhash":
        return chain.blocks[-1].block_hash
    if method == "getblockhash":
        if not 0 <= params[0] <= chain.tip:
            raise RpcFault(-8, "Block height out of range")
        return chain.blocks[params[0]].block_hash
    if method == "getblock":
        return _block(chain, params)
    if method == "getrawtransaction":
        if params[0] not in chain.transactions:
            raise RpcFault(-5, "No such mempool or blockchain transaction.")
        return chain.transactions[params[0]].hex()
    if method == "getblockheader":
        return {"hash": params[0], "chainwork": f"{2 * (chain.tip + 1):064x}"}
    if method in _FIXED:
        return _FIXED[method]
    if method == "getblockchaininfo":
        return {"chain": "regtest", "blocks": chain.tip, "headers": chain.tip}
    raise RpcFault(-32601, "Method not found")


def _block(chain: RegtestChain, params: list[Any]) -> str:
    block = chain.by_hash.get(params[0])
    if block is None:
        raise RpcFault(-5, "Block not found")
    return block.raw.hex()


_FIXED: dict[str, Any] = {
    "getrawmempool": [],
    "getnetworkinfo": {
        "version": 319900,
        "subversion": "/Satoshi:31.99.0/",
        "protocolversion": 110017,
        "relayfee": 0.00001,
        "incrementalfee": 0.00001,
        "warnings": "",
    },
    "getmempoolinfo": {"size": 0, "mempoolminfee": 0.00001, "minrelaytxfee": 0.00001},
    "estimatesmartfee": {"errors": ["Insufficient data"], "blocks": 2},
}


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that were killed; all else is a defect of the kit."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class NamecoinDaemon:
    """`with NamecoinDaemon(chain) as daemon:` serves `chain` at `daemon.url`."""

    def __init__(self, chain: RegtestChain) -> None:
        self.chain = chain
        lock = threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = 1 << 16  # head and body in one segment: no wait for delayed ACKs

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing: the tests' output is theirs."""

            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                call = json.loads(self.rfile.read(length))
                with lock:
                    reply = (
                        [_reply(chain, item) for item in call]
                        if isinstance(call, list)
                        else _reply(chain, call)
                    )
                body = json.dumps(reply).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        self.lock = lock
        self._server = _Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        """Where ElectrumX finds it."""
        return f"http://user:password@127.0.0.1:{self._server.server_address[1]}/"

    def __enter__(self) -> NamecoinDaemon:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _reply(chain: RegtestChain, call: dict[str, Any]) -> dict[str, Any]:
    try:
        result = answer(chain, call["method"], call.get("params", []))
    except RpcFault as fault:
        error = {"code": fault.code, "message": str(fault)}
        return {"result": None, "error": error, "id": call.get("id")}
    return {"result": result, "error": None, "id": call.get("id")}
