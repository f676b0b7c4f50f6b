"""Real ElectrumX servers, in a virtual environment of their own, over a test chain.

The environment is made once under `.cache/electrumx` from `requirements/electrumx.txt`
(versions and hashes pinned) and made anew when that file changes.  A server is ready
when it accepts connections, which is when it has indexed the chain.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import venv
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.kit.ports import free_port
from tests.kit.repository import ROOT

REQUIREMENTS = ROOT / "requirements" / "electrumx.txt"
ENVIRONMENT = ROOT / ".cache" / "electrumx"
START_TIMEOUT_S = 60.0


def electrumx_program() -> Path:
    """The server's program; makes its environment if there is none of this version."""
    stamp = ENVIRONMENT / "requirements.sha256"
    digest = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
    program = ENVIRONMENT / "bin" / "electrumx_server"
    if program.exists() and stamp.exists() and stamp.read_text() == digest:
        return program
    shutil.rmtree(ENVIRONMENT, ignore_errors=True)
    venv.create(ENVIRONMENT, with_pip=True)
    pip = [str(ENVIRONMENT / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, "--require-hashes", "-r", str(REQUIREMENTS)], check=True)
    stamp.write_text(digest)
    return program


Validity = tuple[datetime.timedelta, datetime.timedelta]
VALID: Validity = (datetime.timedelta(days=-1), datetime.timedelta(days=10))
"""From now on."""


def self_signed(
    directory: Path,
    host: str = "localhost",
    names: Sequence[str] = (),
    *,
    valid: Validity = VALID,
) -> tuple[Path, Path, bytes]:
    """Certificate file, key file, and the SHA-256 of the certificate's DER form.

    It is good for `names`, if there are any.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + valid[0])
        .not_valid_after(now + valid[1])
    )
    if names:
        listed = x509.SubjectAlternativeName(map(x509.DNSName, names))
        builder = builder.add_extension(listed, critical=False)
    certificate = builder.sign(key, hashes.SHA256())
    certificate_file, key_file = directory / "cert.pem", directory / "key.pem"
    certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    der = certificate.public_bytes(serialization.Encoding.DER)
    return certificate_file, key_file, hashlib.sha256(der).digest()


class ElectrumX:
    """One server process; TCP at `tcp_port`, TLS at `tls_port` of `host`.

    `settings` are further environment variables, such as COST_HARD_LIMIT.  `command` starts
    the server where it is another one than tests install.
    """

    command: Sequence[str] = ()

    def __init__(
        self, directory: Path, daemon_url: str, host: str = "127.0.0.1", **settings: str
    ) -> None:
        self.directory = directory
        self.host = host
        directory.mkdir(parents=True, exist_ok=True)
        self.tcp_port, self.tls_port = free_port(host), free_port(host)
        certificate, key, self.fingerprint = self_signed(directory)
        self._environment = {
            "PATH": os.environ.get("PATH", ""),
            "HOME": str(directory),
            "COIN": "Namecoin",
            "NET": "regtest",
            "DB_DIRECTORY": str(directory),
            "DB_ENGINE": "leveldb",
            "DAEMON_URL": daemon_url,
            "SERVICES": f"tcp://{host}:{self.tcp_port},ssl://{host}:{self.tls_port}",
            "SSL_CERTFILE": str(certificate),
            "SSL_KEYFILE": str(key),
            "PEER_DISCOVERY": "off",
            "PEER_ANNOUNCE": "",
            "COST_SOFT_LIMIT": "0",
            "COST_HARD_LIMIT": "0",
            "ALLOW_ROOT": "1",
            "CACHE_MB": "16",
            "DAEMON_POLL_INTERVAL_BLOCKS": "200",
            "DAEMON_POLL_INTERVAL_MEMPOOL": "200",
        } | settings
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process; `wait_ready` says when it serves."""
        with (self.directory / "log").open("wb") as log:
            self._process = subprocess.Popen(
                self.command or [str(electrumx_program())],
                env=self._environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_ready(self) -> None:
        """Wait until the server accepts connections; raises RuntimeError with its log."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            if self._process is None or self._process.poll() is not None:
                break
            with contextlib.suppress(OSError):
                socket.create_connection((self.host, self.tls_port), 1.0).close()
                return
            time.sleep(0.05)
        raise RuntimeError((self.directory / "log").read_text()[-4000:])

    def kill(self) -> None:
        """End the server without ceremony."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


class ElectrumXServers:
    """`with ElectrumXServers(directory, url, 3) as servers:` several servers at once."""

    def __init__(
        self,
        directory: Path,
        daemon_url: str,
        count: int,
        host: str = "127.0.0.1",
        **settings: str,
    ) -> None:
        self.servers = [
            ElectrumX(directory / f"electrumx{number}", daemon_url, host, **settings)
            for number in range(count)
        ]

    def __enter__(self) -> list[ElectrumX]:
        try:
            for server in self.servers:
                server.start()
            for server in self.servers:
                server.wait_ready()
        except BaseException:
            self.__exit__()
            raise
        return self.servers

    def __exit__(self, *exc: object) -> None:
        for server in self.servers:
            server.kill()


async def wait_until_height(
    port: int, height: int, timeout: float = 20.0, host: str = "127.0.0.1"
) -> None:
    """Return once the server at `port` of `host` has indexed `height`."""
    from isoproxy.namecoin.chain.params import REGTEST
    from isoproxy.namecoin.electrum.session import ElectrumSession

    async with asyncio.timeout(timeout):
        reader, writer = await asyncio.open_connection(host, port)
        session = await ElectrumSession.start(reader, writer, REGTEST)
        changed = asyncio.Event()
        session.on_tip = changed.set
        while session.claimed_height < height:
            changed.clear()
            await changed.wait()
        session.close()
        await session.wait_closed()


if __name__ == "__main__":
    sys.stdout.write(f"{electrumx_program()}\n")
