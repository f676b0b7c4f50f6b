"""JSON-RPC over HTTP to a program of the user's own: Electrum-NMC, Namecoin Core.

Theory of operation
    One request, one connection: `POST /` with Basic authentication (JSON-RPC 1.0 and 2.0
    over HTTP/1.1, RFC 9112; h11 does the framing).  The programs at the other end are
    local, so a connection costs nothing, and none is ever found stale.

    This is the one module that dials without Tor.  It dials the configured endpoint and
    nothing else, and that endpoint is a unix socket or an IP literal that is loopback or
    private, e.g. a workstation behind a gateway.

Invariants
    At most MAX_CONNECTIONS requests are under way (Namecoin Core has 16 workers and a
    queue of 64); each ends within its deadline; a response has at most MAX_BODY bytes.
    Whatever goes wrong on the way is a TemporaryFailure; an answer that says "error" is
    an RpcError.  Neither quotes the request, the response or the credentials.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import h11

from isoproxy.errors import ConfigError, ErrorKind, NamingError
from isoproxy.namecoin.backend import TemporaryFailure
from isoproxy.namecoin.value.json import Json, parse_json
from isoproxy.net.endpoint import Endpoint

MAX_CONNECTIONS: Final = 8
MAX_BODY: Final = 65_536
"""A name and its value take a few kB; more, in one turn of the loop, is felt by others."""
MAX_HEADER: Final = 16_384
TIMEOUT_S: Final = 45.0
_MAX_COOKIE: Final = 4096
_BUSY_PAUSES_S: Final = (0.25, 0.5, 1.0)
"""Waits before asking again a server whose queue is full (HTTP 503)."""


class RpcError(Exception):
    """The server carried the call out and reports an error; `message` is not for logs."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"JSON-RPC error {code}")
        self.code: Final = code
        self.message: Final = message


class CallRefused(TemporaryFailure):
    """The server does not let us: by HTTP `status` 401 who we are, or by 403 what we ask.

    Electrum-NMC says 403 to wrong credentials, too.
    """

    def __init__(self, status: int) -> None:
        super().__init__(
            "The program at names.rpc.address refuses our credentials; check "
            "names.rpc.username, password or cookie_file.",
            kind=ErrorKind.NAME_BACKEND_REFUSED,
        )
        self.status: Final = status


Login = Callable[[], bytes]
"""Reads `user:password` afresh; raises TemporaryFailure if there is none now."""


def fixed_login(username: str, password: str) -> Login:
    """The pair from the configuration."""
    pair = f"{username}:{password}".encode()
    return lambda: pair


def cookie_login(path: Path) -> Login:
    """The pair in Namecoin Core's cookie file, which is rewritten at each of its starts."""

    def read() -> bytes:
        try:
            with path.open("rb") as file:
                line = file.read(_MAX_COOKIE).strip()
        except OSError:
            raise TemporaryFailure(
                "The cookie file of names.rpc cannot be read: the daemon is not running, or it "
                "uses a password; start it, or set names.rpc.username and password."
            ) from None
        if b":" not in line or b"\n" in line:
            raise TemporaryFailure(
                "The cookie file of names.rpc holds no credentials; check its path."
            )
        return line

    return read


def check_local(endpoint: Endpoint) -> Endpoint:
    """`endpoint` if it can only be on this machine or its own network; else ConfigError."""
    if endpoint.is_none:
        raise ConfigError("names.rpc.address must be set, e.g. '127.0.0.1:8336'")
    if not endpoint.is_local:
        raise ConfigError(
            "names.rpc.address must be a loopback or private address or a unix socket, because "
            "the connection to it does not go through Tor"
        )
    return endpoint


class JsonRpcClient:
    """Calls methods at `endpoint`, logged in with what `login` reads."""

    def __init__(self, endpoint: Endpoint, login: Login, *, timeout_s: float = TIMEOUT_S) -> None:
        self._endpoint: Final = check_local(endpoint)
        self._login: Final = login
        self._timeout_s: Final = timeout_s
        self._slots: Final = asyncio.Semaphore(MAX_CONNECTIONS)
        self._writers: Final[set[asyncio.StreamWriter]] = set()
        self._numbers: Final = itertools.count(1)
        self._credentials: bytes | None = None
        self._closed = False

    async def call(self, method: str, params: dict[str, Json] | list[Json]) -> Json:
        """The result of `method`.

        Raises:
            RpcError: the server reports an error.
            TemporaryFailure: no answer, or none that can be understood.
        """
        number = next(self._numbers)
        request = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
        try:
            async with asyncio.timeout(self._timeout_s), self._slots:
                status, body = await self._post(json.dumps(request).encode())
        except TimeoutError:
            raise TemporaryFailure(kind=ErrorKind.NAME_TIMEOUT) from None
        except OSError:
            raise TemporaryFailure(
                "The program at names.rpc.address does not answer; start it or check the address."
            ) from None
        return _result(status, body, number)

    def close(self) -> None:
        """Cut every connection; the calls on them fail."""
        self._closed = True
        for writer in self._writers:
            writer.transport.abort()

    async def _post(self, body: bytes) -> tuple[int, bytes]:
        """Post until the server neither is busy nor refuses credentials that are old."""
        fresh = self._credentials is None
        pauses = iter(_BUSY_PAUSES_S)
        while True:
            if self._credentials is None:
                self._credentials = self._login()
            status, answer = await self._exchange(body, self._credentials)
            if status == 401 and not fresh:
                self._credentials, fresh = None, True
                continue
            pause = next(pauses, None) if status == 503 else None
            if pause is None:
                break
            await asyncio.sleep(pause)
        if status in (401, 403):
            self._credentials = None
            raise CallRefused(status)
        return status, answer

    async def _exchange(self, body: bytes, credentials: bytes) -> tuple[int, bytes]:
        """One connection with one request; the status and the body of the answer."""
        if self._closed:
            raise TemporaryFailure
        if self._endpoint.path is not None:
            reader, writer = await asyncio.open_unix_connection(self._endpoint.path)
        else:
            reader, writer = await asyncio.open_connection(self._endpoint.host, self._endpoint.port)
        self._writers.add(writer)
        try:
            http = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEADER)
            for event in _request(body, credentials):
                writer.write(http.send(event) or b"")
            await writer.drain()
            return await _response(http, reader)
        except h11.RemoteProtocolError:
            raise TemporaryFailure(
                "The program at names.rpc.address does not speak HTTP as a JSON-RPC server does; "
                "check the address."
            ) from None
        finally:
            self._writers.discard(writer)
            writer.transport.abort()


def _request(body: bytes, credentials: bytes) -> Sequence[h11.Event]:
    headers = [
        (b"Host", b"localhost"),
        (b"Authorization", b"Basic " + base64.b64encode(credentials)),
        (b"Content-Type", b"application/json"),
        (b"Content-Length", b"%d" % len(body)),
        (b"Connection", b"close"),
    ]
    return (
        h11.Request(method="POST", target="/", headers=headers),
        h11.Data(data=body),
        h11.EndOfMessage(),
    )


async def _response(http: h11.Connection, reader: asyncio.StreamReader) -> tuple[int, bytes]:
    status = 0
    body = bytearray()
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            http.receive_data(await reader.read(65_536))
        elif isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > MAX_BODY:
                raise TemporaryFailure(kind=ErrorKind.NAME_UNVERIFIABLE)
        elif isinstance(event, h11.EndOfMessage):
            return status, bytes(body)
        elif isinstance(event, h11.ConnectionClosed) or event is h11.PAUSED:
            raise h11.RemoteProtocolError("the connection ended before its answer")


def _result(status: int, body: bytes, number: int) -> Json:
    """The result in a JSON-RPC response; raises what `JsonRpcClient.call` does."""
    if status == 503:
        raise TemporaryFailure(
            "The program at names.rpc.address is too busy; raise its -rpcworkqueue or try again."
        )
    try:
        answer = parse_json(body, limit=MAX_BODY)
    except NamingError:
        answer = None
    if not isinstance(answer, dict) or answer.get("id") not in (number, None):
        raise TemporaryFailure(
            "The program at names.rpc.address does not answer as a JSON-RPC server does; check "
            "the address."
        )
    error = answer.get("error")
    if error is None and status == 200 and answer.get("id") == number:
        return answer.get("result")
    match error:
        case {"code": int(code), "message": str(message)}:
            raise RpcError(code, message)
    raise TemporaryFailure(kind=ErrorKind.NAME_UNVERIFIABLE)
