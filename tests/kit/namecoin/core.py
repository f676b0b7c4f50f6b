"""A real Namecoin Core (`namecoind`) on regtest, and names on its chain without a wallet.

Build it from its public repository and name the program in NAMECOIND_PATH.

Its blocks pay to a script that anybody may spend, so transactions need no signature; they are
put into blocks directly, past the rules of its memory pool.  Coinbases may be spent when they
are a hundred blocks deep, so a chain begins with that many.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import json
import os
import struct
import subprocess
import time
from pathlib import Path
from typing import Any, Final

import pytest

from isoproxy.namecoin.chain.name_script import NAME_TX_VERSION
from tests.kit.namecoin.at_once import read_transaction
from tests.kit.namecoin.chain import name_script
from tests.kit.namecoin.mining import serialise
from tests.kit.ports import free_port

ANYBODY: Final = b"\x51"
"""OP_TRUE."""
_DESCRIPTOR: Final = "raw(51)"
MATURITY: Final = 100
REGISTRATION: Final = 12
"""Blocks from a name's announcement to its first value."""
_RAND: Final = b"\x01" * 20
_NAME_COINS: Final = 1_000_000
_START_S: Final = 60.0
PASSWORD: Final = "password"
OF_ANY_AGE: Final = "-maxtipage=3000000000"
"""Its chain is complete however old its newest block is."""


class RpcFault(Exception):
    """An error answer: code and message."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def namecoind() -> str:
    """The program; skips the test where there is none."""
    path = os.environ.get("NAMECOIND_PATH")
    if path is None:
        pytest.skip("namecoind is not installed: build Namecoin Core, set NAMECOIND_PATH")
    return path


class NamecoinCore:
    """`with NamecoinCore(directory) as core:` a node of its own, whose chain tests extend.

    Its user is `user`, with `PASSWORD`; or, with `cookie`, what its file says, anew at each start.
    `options` are further arguments.
    """

    def __init__(self, directory: Path, *options: str, cookie: bool = False) -> None:
        self.directory = directory
        self.rpc_port = free_port()
        self.cookie = directory / "regtest" / ".cookie"
        self._login = () if cookie else ("-rpcuser=user", f"-rpcpassword={PASSWORD}")
        self._options = options
        self._registered = 0
        self._process: subprocess.Popen[bytes] | None = None
        directory.mkdir(parents=True, exist_ok=True)

    @property
    def url(self) -> str:
        """Where ElectrumX finds it."""
        return f"http://user:{PASSWORD}@127.0.0.1:{self.rpc_port}/"

    def __enter__(self) -> NamecoinCore:
        self.begin()
        try:
            self.wait_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def begin(self) -> None:
        """Start the process; `wait_ready` says when it serves."""
        own = ("-regtest", "-server", "-txindex", "-listen=0", "-connect=0", "-dnsseed=0")
        with (self.directory / "output").open("ab") as output:
            self._process = subprocess.Popen(
                [
                    *(namecoind(), *own, *self._login, *self._options),
                    *(f"-datadir={self.directory}", f"-rpcport={self.rpc_port}"),
                ],
                stdout=output,
                stderr=output,
            )

    def wait_ready(self) -> None:
        """Wait until it answers; raises RuntimeError with the end of its output."""
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline:
            if self._process is None or self._process.poll() is not None:
                break
            with contextlib.suppress(OSError, RpcFault):
                self.call("getblockcount")
                return
            time.sleep(0.05)
        raise RuntimeError((self.directory / "output").read_text()[-2000:])

    def stop(self) -> None:
        """End it as a user does."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(_START_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def call(self, method: str, *params: object) -> Any:
        """One JSON-RPC call; raises RpcFault or OSError."""
        login = f"user:{PASSWORD}" if self._login else self.cookie.read_text()
        headers = {"Authorization": "Basic " + base64.b64encode(login.encode()).decode()}
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
        connection = http.client.HTTPConnection("127.0.0.1", self.rpc_port, timeout=60)
        try:
            connection.request("POST", "/", body, headers)
            answer = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        if error := answer.get("error"):
            raise RpcFault(error["code"], error["message"])
        return answer["result"]

    # -- its chain ----------------------------------------------------------------

    @property
    def tip(self) -> int:
        height: int = self.call("getblockcount")
        return height

    @property
    def tip_time(self) -> int:
        """The time of the newest block, s since 1970."""
        when: int = self.call("getblockheader", self.call("getbestblockhash"))["time"]
        return when

    def submit(self, blocks: list[bytes]) -> None:
        """Put blocks on top that were mined elsewhere."""
        for block in blocks:
            refusal = self.call("submitblock", block.hex())
            assert refusal is None, refusal

    def mine_empty(self, count: int = 1) -> None:
        """Put `count` blocks without names on top."""
        for _ in range(count):
            self._mine([])

    def _mine(self, transactions: list[bytes]) -> None:
        raws = [raw.hex() for raw in transactions]
        self.call("generateblock", _DESCRIPTOR, raws)

    def rewind(self, height: int) -> None:
        """Forget the blocks above `height`."""
        self.call("invalidateblock", self.call("getblockhash", height + 1))

    def register(self, name: str, value: bytes) -> None:
        """Give a new name its first value, `REGISTRATION` blocks from now."""
        digest = hashlib.sha256(_RAND + name.encode()).digest()
        commitment = hashlib.new("ripemd160", digest).digest()
        announcement = _name_transaction(self._coin(), name_script(1, commitment))
        self._mine([announcement])
        self.mine_empty(REGISTRATION - 1)
        outpoint = read_transaction(announcement).txid + bytes(4)
        script = name_script(2, name.encode(), _RAND, value)
        self._mine([_name_transaction(outpoint, script)])

    def update(self, name: str, value: bytes) -> None:
        """Mine a block that gives a registered name another value."""
        said = self.call("name_show", name)
        outpoint = bytes.fromhex(said["txid"])[::-1] + struct.pack("<I", said["vout"])
        self._mine([_name_transaction(outpoint, name_script(3, name.encode(), value))])

    def _coin(self) -> bytes:
        """The outpoint of a coinbase that is deep enough, each time of another block."""
        self._registered += 1
        if (missing := MATURITY + self._registered - self.tip) > 0:
            self.mine_empty(missing)
        block = self.call("getblock", self.call("getblockhash", self._registered))
        return bytes.fromhex(block["tx"][0])[::-1] + bytes(4)


def _name_transaction(spent: bytes, script: bytes) -> bytes:
    """A transaction that spends the outpoint `spent` and leaves a name's script behind."""
    return serialise(NAME_TX_VERSION, [(spent, b"")], [(_NAME_COINS, script + ANYBODY)])
