"""A dialer without Tor: straight to sockets of this machine, and a record of the keys.

It stands where the Tor dialer stands, takes the same arguments, and remembers under which
credentials each stream would have gone.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping

from isoproxy.errors import DialError, ErrorKind
from isoproxy.isolation import Credentials, IsolationKey, Purpose, upstream_credentials
from isoproxy.net.target import Target


class DirectDialer:
    """Connects to 127.0.0.1; `ports` maps "host:port" of pretended servers to real ports."""

    def __init__(self, ports: Mapping[str, int] | None = None) -> None:
        self.ports = dict(ports or {})
        self.credentials: list[Credentials] = []
        self.clients: list[bytes] = []
        self.dead: set[str] = set()
        self.failure: ErrorKind | None = None

    async def connect(
        self,
        key: IsolationKey,
        purpose: Purpose,
        target: Target,
        *,
        client: bytes = b"",
        timeout: float | None = None,
    ) -> socket.socket:
        """A connected socket, as `isoproxy.tor.dialer.Dialer.connect` gives one."""
        label = f"{target.host}:{target.port}"
        self.clients.append(client)
        self.credentials.append(upstream_credentials(key, purpose))
        if self.failure is not None:
            raise DialError(kind=self.failure)
        if label in self.dead:
            raise DialError(kind=ErrorKind.CONNECTION_REFUSED)
        sock = socket.socket()
        sock.setblocking(False)
        try:
            async with asyncio.timeout(timeout):
                await asyncio.get_running_loop().sock_connect(
                    sock, ("127.0.0.1", self.ports.get(label, target.port))
                )
        except (OSError, TimeoutError):
            sock.close()
            raise DialError(kind=ErrorKind.CONNECTION_REFUSED) from None
        except BaseException:
            sock.close()
            raise
        return sock
