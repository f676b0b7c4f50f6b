"""For Python programs: streams through a running isoproxy.

    reader, writer = await isoproxy.connect("example.onion:80", isolation="alice")
    sock = isoproxy.create_connection("/ip4/192.0.2.1/tcp/80", isolation="alice")

Theory of operation
    Both speak SOCKS5 to a listener of isoproxy with the codec that isoproxy uses itself,
    the one for asyncio, the other for programs that do without.  The isolation ID goes as
    the user name: streams with the same ID may share a circuit, others never do.  Without
    an ID a stream gets one that nobody else has.

Invariants
    Names go to isoproxy as they are; nothing is resolved here.  There is no way around the
    proxy: where it does not answer, DialError is raised, and so it is where the program at
    its address takes no user name: that would keep nothing apart, and need not be Tor's.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
import socket
import time
from collections.abc import Iterator
from typing import Final

from isoproxy.errors import ConfigError, DialError, ErrorKind, RemoteProtocolError
from isoproxy.multiaddr import parse_destination
from isoproxy.net.endpoint import Endpoint
from isoproxy.net.target import Target
from isoproxy.socks.client import Client
from isoproxy.socks.wire import Command

DEFAULT_PROXY: Final = "127.0.0.1:9250"
TIMEOUT_S: Final = 120.0
_MAX_TIMEOUT_S: Final = 31_536_000.0
PASSWORD: Final = "isoproxy"  # noqa: S105 -- a constant: the user name alone tells streams apart
_ISOLATION: Final = re.compile(r"[!-~][ -~]{0,126}", re.ASCII)


async def connect(
    target: str | Target,
    *,
    isolation: str | None = None,
    proxy: str | Endpoint = DEFAULT_PROXY,
    timeout: float = TIMEOUT_S,
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A stream to `target` (`HOST:PORT`, a multiaddr or a Target) through `proxy`.

    `isolation` is up to 127 printable ASCII characters; `proxy` a listener of isoproxy
    that isolates by SOCKSAuth, `IP:port` or `unix:/path`; `timeout` is in seconds.

    Raises:
        ConfigError: an argument cannot be read.
        DialError: the stream was not opened; `kind` says why.
    """
    client, endpoint = _client(target, isolation), _endpoint(proxy)
    _check(timeout)
    with _told_as_dial_errors(endpoint):
        async with asyncio.timeout(timeout):
            reader, writer = await _open(endpoint)
            try:
                await _handshake(reader, writer, client)
            except BaseException:
                writer.close()
                raise
    return reader, writer


def create_connection(
    target: str | Target,
    *,
    isolation: str | None = None,
    proxy: str | Endpoint = DEFAULT_PROXY,
    timeout: float = TIMEOUT_S,
) -> socket.socket:
    """The blocking twin of `connect`: a connected socket with `timeout` set.

    Arguments and errors are the same.
    """
    client, endpoint = _client(target, isolation), _endpoint(proxy)
    _check(timeout)
    deadline = time.monotonic() + timeout
    with _told_as_dial_errors(endpoint):
        sock = socket.socket(endpoint.family, socket.SOCK_STREAM)
        try:
            sock.settimeout(_left(deadline))
            sock.connect(endpoint.address)
            _handshake_blocking(sock, client, deadline)
            sock.settimeout(timeout)
        except BaseException:
            sock.close()
            raise
    return sock


async def _open(endpoint: Endpoint) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if endpoint.path is not None:
        return await asyncio.open_unix_connection(endpoint.path)
    return await asyncio.open_connection(endpoint.host, endpoint.port)


async def _handshake(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, client: Client
) -> None:
    writer.write(client.data_to_send())
    while client.wanted:
        data = await reader.read(client.wanted)
        if not data:
            raise ConnectionResetError
        client.receive(data)
        with contextlib.suppress(ConnectionError):  # its reply may still be on the way
            writer.write(client.data_to_send())
            await writer.drain()


def _handshake_blocking(sock: socket.socket, client: Client, deadline: float) -> None:
    sock.sendall(client.data_to_send())
    while client.wanted:
        sock.settimeout(_left(deadline))
        data = sock.recv(client.wanted)
        if not data:
            raise ConnectionResetError
        client.receive(data)
        with contextlib.suppress(ConnectionError):  # its reply may still be on the way
            sock.sendall(client.data_to_send())


def _left(deadline: float) -> float:
    """Seconds until `deadline`; TimeoutError where it has passed."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _client(target: str | Target, isolation: str | None) -> Client:
    """The handshake for a stream to `target`; raises ConfigError."""
    wanted = _destination(target)
    return Client(
        Command.CONNECT,
        wanted.host if wanted.is_ip else wanted.host.encode(),
        wanted.port,
        username=_user(isolation).encode(),
        password=PASSWORD.encode(),
    )


def _destination(target: str | Target) -> Target:
    return target if isinstance(target, Target) else parse_destination(target)


def _user(isolation: str | None) -> str:
    if isolation is None:
        return secrets.token_hex(16)
    if _ISOLATION.fullmatch(isolation) is None:
        raise ConfigError("an isolation ID has 1 to 127 printable ASCII characters")
    return isolation


def _endpoint(proxy: str | Endpoint) -> Endpoint:
    endpoint = proxy if isinstance(proxy, Endpoint) else Endpoint.parse(proxy)
    if endpoint.is_none:
        raise ConfigError("there is no way but through isoproxy; give a listener's address")
    return endpoint


def _check(timeout: float) -> None:
    if not timeout <= _MAX_TIMEOUT_S:  # so is what is no number
        raise ConfigError("a timeout is a number of seconds, at most a year of them")


@contextlib.contextmanager
def _told_as_dial_errors(endpoint: Endpoint) -> Iterator[None]:
    """Whatever keeps a stream from being opened through `endpoint`, as DialError."""
    try:
        yield
    except TimeoutError:
        raise DialError(kind=ErrorKind.DIAL_TIMEOUT) from None
    except RemoteProtocolError as error:
        raise DialError(kind=error.kind) from None
    except OSError:
        raise _unreachable(endpoint) from None


def _unreachable(endpoint: Endpoint) -> DialError:
    return DialError(
        f"no isoproxy answers at {endpoint}, or it refused the isolation ID; start it with: "
        "isoproxy run",
        kind=ErrorKind.TOR_UNREACHABLE,
    )
