"""For Python programs: streams through a running isoproxy.

    reader, writer = await isoproxy.connect("example.onion:80", isolation="alice")
    sock = isoproxy.create_connection("/ip4/192.0.2.1/tcp/80", isolation="alice")

Theory of operation
    Both speak SOCKS5 to a listener of isoproxy, the one with the codec that isoproxy uses
    itself, the other through PySocks for programs that do not use asyncio.  The isolation
    ID goes as the user name: streams with the same ID may share a circuit, others never
    do.  Without an ID a stream gets one that nobody else has.

Invariants
    Names go to isoproxy as they are; nothing is resolved here.  There is no way around the
    proxy: where it does not answer, DialError is raised.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
import socket
from typing import Final

import socks

from isoproxy.errors import (
    ConfigError,
    DialError,
    ErrorKind,
    RemoteProtocolError,
    kind_of_socks_reply,
)
from isoproxy.multiaddr import parse_destination
from isoproxy.socks5.client import Client
from isoproxy.socks5.wire import Command
from isoproxy.target import Target
from isoproxy.tor.endpoint import Endpoint

DEFAULT_PROXY: Final = "127.0.0.1:9250"
TIMEOUT_S: Final = 120.0
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

    `isolation` is up to 127 printable ASCII characters; `proxy` a listener of isoproxy,
    `IP:port` or `unix:/path`; `timeout` is in seconds.

    Raises:
        ConfigError: an argument cannot be read.
        DialError: the stream was not opened; `kind` says why.
    """
    wanted, user = _destination(target), _user(isolation)
    endpoint = _endpoint(proxy)
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await _open(endpoint)
            try:
                await _handshake(reader, writer, wanted, user)
            except BaseException:
                writer.close()
                raise
    except TimeoutError:
        raise DialError(kind=ErrorKind.DIAL_TIMEOUT) from None
    except RemoteProtocolError as error:
        raise DialError(kind=error.kind) from None
    except (OSError, asyncio.IncompleteReadError):
        raise _unreachable(endpoint) from None
    return reader, writer


def create_connection(
    target: str | Target,
    *,
    isolation: str | None = None,
    proxy: str | Endpoint = DEFAULT_PROXY,
    timeout: float = TIMEOUT_S,
) -> socket.socket:
    """The blocking twin of `connect`: a connected socket with `timeout` set.

    Arguments and errors are the same; `proxy` must be a TCP listener.
    """
    wanted, user = _destination(target), _user(isolation)
    endpoint = _endpoint(proxy)
    if endpoint.host is None:
        raise ConfigError("PySocks knows no unix sockets; give the address of a TCP listener")
    family = socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET
    sock = socks.socksocket(family, socket.SOCK_STREAM)
    try:
        sock.set_proxy(
            socks.SOCKS5,
            endpoint.host,
            endpoint.port,
            rdns=True,
            username=user,
            password=PASSWORD,
        )
        sock.settimeout(timeout)
        sock.connect((wanted.host, wanted.port))
    except OSError as error:
        sock.close()
        raise _failure(error, endpoint) from None
    # Some libraries take nothing but a socket of the standard library's own class.
    connected = socket.socket(fileno=sock.detach())
    connected.settimeout(timeout)
    return connected


async def _open(endpoint: Endpoint) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if endpoint.path is not None:
        return await asyncio.open_unix_connection(endpoint.path)
    return await asyncio.open_connection(endpoint.host, endpoint.port)


async def _handshake(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: Target, user: str
) -> None:
    client = Client(
        Command.CONNECT,
        target.host if target.is_ip else target.host.encode(),
        target.port,
        username=user.encode(),
        password=PASSWORD.encode(),
    )
    writer.write(client.data_to_send())
    while client.wanted:
        data = await reader.read(client.wanted)
        if not data:
            raise ConnectionResetError
        client.receive(data)
        with contextlib.suppress(ConnectionError):  # its reply may still be on the way
            writer.write(client.data_to_send())
            await writer.drain()


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


def _failure(error: OSError, endpoint: Endpoint) -> DialError:
    """What PySocks' error means; it wraps the errors that it raises itself, too."""
    cause: object = error
    while isinstance(cause, socks.ProxyError) and cause.socket_err is not None:
        cause = cause.socket_err
    if isinstance(cause, socks.SOCKS5Error):  # the text begins with the reply's code
        return DialError(kind=kind_of_socks_reply(int(str(cause).partition(":")[0], 16)))
    if isinstance(cause, TimeoutError):
        return DialError(kind=ErrorKind.DIAL_TIMEOUT)
    return _unreachable(endpoint)


def _unreachable(endpoint: Endpoint) -> DialError:
    return DialError(
        f"no isoproxy answers at {endpoint}, or it refused the isolation ID; start it with: "
        "isoproxy run",
        kind=ErrorKind.TOR_UNREACHABLE,
    )
