"""Namecoin Core, a full v2 peer that shows transports, session IDs and bytes.

Build it from its public repository, without its wallet or with it, and name the program in
NAMECOIND_PATH; the tests that need it are skipped without.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from tests.interop.nodes import Program, wait_for
from tests.kit.ports import free_port

NOBODY: Final = "raw(51)"
"""Whom blocks pay: a script that anybody can satisfy."""
_AUTHORIZATION: Final = "Basic " + base64.b64encode(b"u:p").decode()


def program() -> str:
    """The path of namecoind; skips the test without one."""
    if "NAMECOIND_PATH" not in os.environ:
        pytest.skip("NAMECOIND_PATH is not set: Namecoin Core's namecoind is needed")
    return os.environ["NAMECOIND_PATH"]


def functional_tests() -> Path:
    """The folder of the functional tests, in the tree in which namecoind was built."""
    folder = Path(program()).resolve().parents[2] / "test" / "functional"
    if not (folder / "p2p_v2_misbehaving.py").exists():
        pytest.skip(f"Namecoin Core's functional tests are not beside its build: {folder}")
    return folder


class NamecoinCore(Program):
    """A node that looks for no peers of its own; `host` is where it listens, if it does.

    `wrapper` is what it is run under, in which case it may be out of RPC's reach (`wait`).
    """

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        v2: bool = True,
        chain: str = "regtest",
        host: str | None = None,
        wrapper: Sequence[str] = (),
        wait: bool = True,
    ) -> None:
        folder.mkdir(parents=True)
        folder.chmod(0o777)  # a wrapper may run it as somebody else
        self.port, self.rpc_port = free_port(host or "127.0.0.1"), free_port()
        bound = [f"-bind={host}:{self.port}", "-listen=1"] if host else ["-listen=0"]
        super().__init__(
            [
                *wrapper,
                program(),
                f"-chain={chain}",
                f"-datadir={folder}",
                "-printtoconsole",
                "-debug=net",
                "-rpcuser=u",
                "-rpcpassword=p",
                f"-rpcport={self.rpc_port}",
                f"-v2transport={int(v2)}",
                *["-dnsseed=0", "-fixedseeds=0", "-discover=0", "-natpmp=0", "-listenonion=0"],
                *bound,
                *arguments,
            ],
            folder,
        )
        if wait:
            wait_for(self._answers, 60)

    def _answers(self) -> bool:
        if self.process.poll() is not None:
            pytest.fail("namecoind ended at once: " + self.log[-500:])
        try:
            return self._post("getblockcount")["error"] is None
        except (OSError, http.client.HTTPException):
            return False

    def _post(self, method: str, *parameters: object) -> dict[str, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.rpc_port, timeout=60)
        body = {"jsonrpc": "1.0", "id": 1, "method": method, "params": parameters}
        try:
            connection.request("POST", "/", json.dumps(body), {"Authorization": _AUTHORIZATION})
            answer: dict[str, Any] = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        return answer

    def call(self, method: str, *parameters: object) -> Any:
        """One JSON-RPC call."""
        answer = self._post(method, *parameters)
        if answer["error"]:
            pytest.fail(f"namecoind refused {method}: {answer['error']}")
        return answer["result"]

    def generate(self, count: int) -> None:
        """Mine blocks."""
        self.call("generatetodescriptor", count, NOBODY)

    @property
    def peers(self) -> list[dict[str, Any]]:
        """Its peers whose handshake is over."""
        return [peer for peer in self.call("getpeerinfo") if peer["version"]]

    @property
    def height(self) -> int:
        """Of the last block that its log tells of; 0 before there is any."""
        found = re.findall(r"UpdateTip: new best=\w+ height=(\d+)", self.log)
        return int(found[-1]) if found else 0

    @property
    def tip(self) -> str:
        """The last block's hash, by its log; "" before there is any."""
        found = re.findall(r"UpdateTip: new best=(\w+) ", self.log)
        return found[-1] if found else ""
