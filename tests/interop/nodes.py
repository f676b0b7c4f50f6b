"""Real Bitcoin programs on a private regtest, built by their own toolchains.

They are built once into .cache/interop; where the toolchain or the registry is not to be
had the tests that need them are skipped and say so.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.kit.ports import free_port
from tests.kit.repository import ROOT

CACHE = ROOT / ".cache" / "interop"
RUST = Path(__file__).parent / "rust"
BITCOINJ = Path(__file__).parent / "bitcoinj"
BTCD_VERSION = "v0.26.0"
BCOIN_VERSION = "1.0.2"
MINING_ADDRESS = "mfWxJ45yp2SFn7UciZyNpvDKrzbhyfKrY8"  # the hash of nobody's key: 20 zeros
BCOIN_MINING_ADDRESS = (
    "R9HC5WtHbpoa51NCUAz86XLCmGTbkf45NT"  # the same, with the prefix that bcoin has for regtest
)
_AUTHORIZATION = "Basic " + base64.b64encode(b"u:p").decode()


def wait_for(condition: Callable[[], object], seconds: float = 30.0) -> None:
    """Poll until `condition()` holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail("a real peer did not get there in time")
        time.sleep(0.05)


def go_program(name: str, package: str, folder: Path | None = None) -> str:
    """The path of a program, built from the Go module proxy if need be."""
    program = CACHE / "bin" / name
    if not program.exists():
        if shutil.which("go") is None:
            pytest.skip(f"go is not installed, so {name} cannot be built")
        program.parent.mkdir(parents=True, exist_ok=True)
        built = subprocess.run(
            ["go", "install", package],
            cwd=folder,
            env={**os.environ, "GOBIN": str(program.parent)},
            capture_output=True,
            text=True,
            check=False,
        )
        if built.returncode:
            pytest.skip(f"{name} could not be built: " + built.stderr.strip()[-200:])
    return str(program)


def btcd_program() -> str:
    return go_program("btcd", f"github.com/btcsuite/btcd@{BTCD_VERSION}")


def neutrino_program() -> str:
    """A program around neutrino; go.mod pins its version."""
    return go_program("light", ".", Path(__file__).parent / "neutrino")


def rust_program(name: str, folder: Path = RUST) -> str:
    """The path of the program `name` in `folder`, built from crates.io if need be.

    Cargo.toml there pins what it is built of; cargo knows when there is nothing to do.
    """
    if shutil.which("cargo") is None:
        pytest.skip(f"cargo is not installed, so {name} cannot be built")
    target = CACHE / "cargo"
    built = subprocess.run(
        ["cargo", "build", "--quiet"],
        cwd=folder,
        env={**os.environ, "CARGO_TARGET_DIR": str(target)},
        capture_output=True,
        text=True,
        check=False,
    )
    if built.returncode:
        pytest.skip(f"{name} could not be built: " + built.stderr.strip()[-200:])
    return str(target / "debug" / name)


def bitcoinj_classes() -> str:
    """The class path of bitcoinj, from Maven if need be; pom.xml there pins its version."""
    found = CACHE / "bitcoinj" / "classpath"
    if not found.exists():
        if shutil.which("mvn") is None or shutil.which("java") is None:
            pytest.skip("mvn and java are not both installed, so bitcoinj cannot be fetched")
        found.parent.mkdir(parents=True, exist_ok=True)
        fetched = subprocess.run(
            [
                *("mvn", "--quiet", "--batch-mode", f"-Dmaven.repo.local={CACHE}/maven"),
                *("dependency:build-classpath", f"-Dmdep.outputFile={found}"),
            ],
            cwd=BITCOINJ,
            capture_output=True,
            text=True,
            check=False,
        )
        if fetched.returncode:
            pytest.skip("bitcoinj could not be fetched: " + fetched.stdout.strip()[-200:])
    return found.read_text()


def bcoin_folder() -> Path:
    """Where bcoin is installed, from npm if need be; its database is kept in memory."""
    folder = CACHE / "bcoin"
    if not (folder / "node_modules" / "bcoin" / "bin" / "spvnode").exists():
        if shutil.which("npm") is None:
            pytest.skip("npm is not installed, so bcoin cannot be fetched")
        folder.mkdir(parents=True, exist_ok=True)
        fetched = subprocess.run(
            ["npm", "install", "--ignore-scripts", "--no-audit", f"bcoin@{BCOIN_VERSION}"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        if fetched.returncode:
            pytest.skip("bcoin could not be fetched: " + fetched.stderr.strip()[-200:])
    # its native database does not build on current versions of Node, and is not used
    stub = folder / "node_modules" / "leveldown" / "leveldown.js"
    stub.write_text("module.exports = function LevelDOWN() {};\n")
    return folder


class Program:
    """A program under way; `log` is what it printed."""

    def __init__(self, arguments: list[str], folder: Path, **variables: str) -> None:
        self.log_path = folder / "log"
        self._log = self.log_path.open("wb")
        self.process = subprocess.Popen(
            arguments,
            cwd=folder,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "HOME": str(folder), **variables},
        )

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._log.close()


class Btcd(Program):
    """A btcd node on regtest, whose peers come to `host` if it listens."""

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        v2: bool,
        listen: bool = True,
        host: str = "127.0.0.1",
    ) -> None:
        folder.mkdir(parents=True)
        (folder / "btcd.conf").touch()
        self.port, self.rpc_port = free_port(), free_port()
        super().__init__(
            [
                btcd_program(),
                "--regtest",
                "--nodnsseed",
                "--notls",
                f"--datadir={folder}/data",
                f"--logdir={folder}/logs",
                f"--configfile={folder}/btcd.conf",
                f"--rpclisten=127.0.0.1:{self.rpc_port}",
                "--rpcuser=u",
                "--rpcpass=p",
                "--debuglevel=debug",
                f"--miningaddr={MINING_ADDRESS}",
                *([f"--listen={host}:{self.port}"] if listen else ["--nolisten"]),
                *(["--v2transport"] if v2 else []),
                *arguments,
            ],
            folder,
        )
        wait_for(self._answers)

    def _answers(self) -> bool:
        if self.process.poll() is not None:
            pytest.fail("btcd ended at once: " + self.log[-500:])
        try:
            self.call("getblockcount")
        except OSError:
            return False
        return True

    def call(self, method: str, *parameters: object) -> Any:
        """One JSON-RPC call."""
        connection = http.client.HTTPConnection("127.0.0.1", self.rpc_port, timeout=30)
        body = {"jsonrpc": "1.0", "id": 1, "method": method, "params": parameters}
        try:
            connection.request("POST", "/", json.dumps(body), {"Authorization": _AUTHORIZATION})
            answer = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        if answer["error"]:
            pytest.fail(f"btcd refused {method}: {answer['error']}")
        return answer["result"]

    @property
    def height(self) -> int:
        height: int = self.call("getblockcount")
        return height


class Bcoin(Program):
    """A program of bcoin's on regtest, its chain in memory."""

    def __init__(self, folder: Path, name: str, *arguments: str) -> None:
        folder.mkdir(parents=True)
        self.http_port = free_port()
        program = bcoin_folder() / "node_modules" / "bcoin" / "bin" / name
        super().__init__(
            [
                "node",
                str(program),
                "--network=regtest",
                "--memory=true",
                f"--prefix={folder}/bcoin",
                f"--http-port={self.http_port}",
                "--no-auth=true",
                "--no-wallet=true",
                "--log-level=spam",
                *arguments,
            ],
            folder,
            NODE_BACKEND="js",
        )

    @property
    def height(self) -> int:
        """Blocks whose headers it knows; -1 while it does not answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=10)
        try:
            connection.request("GET", "/")
            height: int = json.loads(connection.getresponse().read())["chain"]["height"]
        except (OSError, http.client.HTTPException):
            return -1
        finally:
            connection.close()
        return height


class BcoinSpv(Bcoin):
    """bcoin's light client, all of its P2P through a SOCKS proxy."""

    def __init__(self, folder: Path, proxy_port: int, peer: str) -> None:
        words = (f"--proxy=127.0.0.1:{proxy_port}", f"--only={peer}")
        super().__init__(folder, "spvnode", *words)


class BcoinNode(Bcoin):
    """A node, which speaks v1 alone, and first."""

    def __init__(self, folder: Path, host: str) -> None:
        self.port = free_port()
        words = ("--listen=true", f"--host={host}", f"--port={self.port}", "--discover=false")
        super().__init__(folder, "node", *words)
        wait_for(lambda: "Pool server listening" in self.log, 60)

    def generate(self, count: int) -> None:
        """Mine blocks."""
        connection = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=60)
        call = {"method": "generatetoaddress", "params": [count, BCOIN_MINING_ADDRESS]}
        try:
            connection.request("POST", "/", json.dumps(call))
            answer = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        if answer["error"]:
            pytest.fail(f"bcoin mined nothing: {answer['error']}")


class Neutrino(Program):
    """The light client of lnd on regtest, all of its P2P through a SOCKS proxy."""

    def __init__(self, folder: Path, proxy_port: int, peer: str) -> None:
        folder.mkdir(parents=True)
        proxy = f"127.0.0.1:{proxy_port}"
        super().__init__([neutrino_program(), str(folder), proxy, peer], folder)

    @property
    def height(self) -> int:
        """Blocks whose headers and filter headers it knows; -1 before it knows any."""
        return int(last_word(self.log, "height") or -1)


class Kyoto(Program):
    """A light client in Rust on regtest; all of its P2P through a SOCKS proxy, if there is one.

    It speaks v2 of its own if it is told to, but never through a proxy.
    """

    def __init__(
        self, folder: Path, peer: str, *, proxy_port: int | None = None, v2: bool = False
    ) -> None:
        folder.mkdir(parents=True)
        proxy = [] if proxy_port is None else [f"127.0.0.1:{proxy_port}"]
        super().__init__([rust_program("kyoto"), peer, "v2" if v2 else "v1", *proxy], folder)

    @property
    def height(self) -> int:
        """Blocks whose filters it has checked; -1 before it has checked any."""
        return int(last_word(self.log, "height") or -1)

    @property
    def block(self) -> str:
        """The hash of the last block that it has fetched."""
        return last_word(self.log, "block")


class Nakamoto(Program):
    """A light client in Rust on regtest, which knows no proxy and speaks v1."""

    def __init__(self, folder: Path, peer: str) -> None:
        folder.mkdir(parents=True)
        made = rust_program("nakamoto", Path(__file__).parent / "nakamoto")
        super().__init__([made, str(folder), peer], folder)

    @property
    def height(self) -> int:
        """Blocks whose headers it knows; -1 before it has said so."""
        return int(last_word(self.log, "height") or -1)


class Bitcoinj(Program):
    """A light client in Java on regtest, all of its P2P through a SOCKS proxy; it speaks v1."""

    def __init__(self, folder: Path, proxy_port: int, peer: str) -> None:
        folder.mkdir(parents=True)
        source = BITCOINJ / "Light.java"
        words = ["java", "-cp", bitcoinj_classes(), str(source), peer, f"127.0.0.1:{proxy_port}"]
        super().__init__(words, folder)

    @property
    def height(self) -> int:
        """Blocks that it has; -1 before it has said so."""
        return int(last_word(self.log, "height") or -1)


class V2Front(Program):
    """A v2 peer of another make, the Rust crate bip324, in front of a v1 node."""

    def __init__(self, folder: Path, node: Btcd, host: str) -> None:
        folder.mkdir(parents=True)
        self.port = free_port()
        super().__init__(
            [rust_program("v2_front"), f"{host}:{self.port}", f"127.0.0.1:{node.port}"], folder
        )
        wait_for(lambda: "listening" in self.log)

    @property
    def session_id(self) -> str:
        """Of the last handshake it completed."""
        return last_word(self.log, "session")


def last_word(log: str, label: str) -> str:
    """What the last line `label WORD` says; empty if there is none."""
    words = [line.split()[1] for line in log.splitlines() if line.startswith(label + " ")]
    return words[-1] if words else ""
