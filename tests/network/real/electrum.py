"""Debian's Electrum, and the little that servers have to say for it to stay connected.

Electrum asks a new server for its version, a header and the tip; ours have a chain of one block,
that of Bitcoin's regtest.  Electrum keeps the certificate that a server shows first.
"""

from __future__ import annotations

import json
import os
import socketserver
import ssl
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from tests.kit.servers import Server

_GENESIS: Final = (
    "01000000" + "00" * 32 + "3ba3edfd7a7b12b27ac72c3e67768f617fc81bc3888a51323a9fb8aa4b1e5e4a"
    "dae5494dffff7f2002000000"
)
_END_S: Final = 30


class ElectrumServer(Server):
    """Speaks TLS."""

    def __init__(self, host: str, tls: ssl.SSLContext) -> None:
        super().__init__(host, _Handler, tls=tls)


class _Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        for line in self.rfile:
            asked = json.loads(line)
            answer = {"jsonrpc": "2.0", "id": asked["id"], "result": _answer(asked["method"])}
            self.wfile.write(json.dumps(answer).encode() + b"\n")
            self.wfile.flush()


def _answer(method: str) -> Any:
    if method == "server.version":
        return ["Test", "1.4"]
    if method == "blockchain.headers.subscribe":
        return {"height": 0, "hex": _GENESIS}
    return _GENESIS if method == "blockchain.block.header" else None


class Electrum:
    """A running Electrum that knows `servers` ("host:port:s") of old; a context manager."""

    def __init__(self, directory: Path, proxy: str, servers: Sequence[str]) -> None:
        known = directory / "regtest" / "recent_servers"
        known.parent.mkdir(parents=True)
        known.write_text(json.dumps(list(servers)))
        self._command = ["electrum", "daemon", "--proxy", f"socks5:{proxy}", "--regtest"]
        self._command += ["--dir", str(directory)]
        self._log = directory / "log"
        self._home = directory

    def __enter__(self) -> Electrum:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command,
                env={**os.environ, "HOME": str(self._home)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        return self

    def __exit__(self, *raised: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
