"""The dashboard: a page that shows isoproxy at work, its status as JSON, and the metrics.

Theory of operation
    A small web server over a unix socket or a loopback address.  It is given callables for
    the status, the last hour and the metrics, and knows nothing of what is in them; the page,
    its style and its script are files beside this module, read once.
    `http_get` reads requests and decides which are answered.  The page asks for
    `/status.json` every few seconds, for `/history.json` when there is a sample more.

    Each of these is made at most once per `RECENT_S`, however many ask.

Invariants
    Requests can change nothing, are bounded in size, time and number, and are answered
    only if they are meant for this address and come from this page.  What a callable
    raises is logged by type and answered without detail.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Awaitable, Callable, Mapping
from importlib.resources import files
from typing import Final

from isoproxy.net.accept_loop import Connections, streams
from isoproxy.net.listening import ListeningSocket
from isoproxy.observe.http_get import TEXT, Ended, Hosts, HttpGet, Response
from isoproxy.observe.log import logger
from isoproxy.observe.metrics import CONTENT_TYPE

RECENT_S: Final = 1.0
"""Seconds for which a status, once made, is recent enough for everybody."""
REQUEST_S: Final = 30.0
"""Seconds a client may take from the last answer to the end of its next request."""
ANSWER_S: Final = 10.0
"""Seconds that making an answer may take, and as many for a client to read it."""
MAX_CLIENTS: Final = 32

_CHUNK: Final = 4096
_FILES: Final = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
    "/script.js": ("script.js", "text/javascript; charset=utf-8"),
    "/charts.js": ("charts.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}

_log = logger("dashboard")

Make = Callable[[], Awaitable[bytes]]
MakeTable = Callable[[], Awaitable[Mapping[str, object]]]


def _json(table: Mapping[str, object]) -> bytes:
    return json.dumps(table, separators=(",", ":")).encode()


class _Recent:
    """A text that is made at most once per `RECENT_S`, for whoever asks."""

    def __init__(self, make: Make) -> None:
        self._make: Final = make
        self._making: Final = asyncio.Lock()
        self._text = b""
        self._stale_from = float("-inf")

    async def get(self) -> bytes:
        loop = asyncio.get_running_loop()
        async with self._making:
            if loop.time() >= self._stale_from:
                self._text = await self._make()
                self._stale_from = loop.time() + RECENT_S
            return self._text


class Dashboard:
    """Shows what `status`, `history` (both JSON) and `metrics` (Prometheus' text form) say."""

    def __init__(
        self, status: MakeTable, history: MakeTable, metrics: Callable[[], Awaitable[str]]
    ) -> None:
        async def status_json() -> bytes:
            return _json(await status())

        async def history_json() -> bytes:
            return _json(await history())

        async def exposition() -> bytes:
            return (await metrics()).encode()

        page = files("isoproxy.observe") / "page"
        self._files: Final = {
            path: Response(kind, (page / name).read_bytes())
            for path, (name, kind) in _FILES.items()
        }
        self._made: Final = {
            "/status.json": (_Recent(status_json), "application/json"),
            "/history.json": (_Recent(history_json), "application/json"),
            "/metrics": (_Recent(exposition), CONTENT_TYPE),
        }
        self._paths: Final = frozenset((*self._files, *self._made))
        self._hosts = Hosts(None)
        self._listening: ListeningSocket | None = None
        self._connections: Final = Connections(self._client, self._is_full)

    def start(self, listening: ListeningSocket) -> None:
        """Serve at a unix socket or a loopback address; `close` closes it."""
        self._listening = listening
        if not listening.is_unix:
            self._hosts = Hosts(listening.socket.getsockname()[1])
        self._connections.start(listening.socket)

    async def close(self) -> None:
        """Stop listening, end the clients, remove the unix socket."""
        await self._connections.close()
        if self._listening is not None:
            self._listening.close()
            self._listening = None

    def _is_full(self, clients: int) -> bool:
        if clients >= MAX_CLIENTS:
            _log.warn("dashboard_busy", clients=clients)
            return True
        return False

    async def _client(self, sock: socket.socket) -> None:
        try:
            async with streams(sock, _CHUNK) as (reader, writer):
                await self._serve(reader, writer)
        except (OSError, TimeoutError):
            _log.debug("dashboard_client_gone")
        except asyncio.CancelledError:
            _log.debug("dashboard_client_ended")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        http = HttpGet(self._hosts, self._paths)
        while True:
            async with asyncio.timeout(REQUEST_S):
                while (asked := http.next_request()) is None:
                    http.receive(await reader.read(_CHUNK))
            if isinstance(asked, Ended):
                return
            response = asked if isinstance(asked, Response) else await self._response(asked)
            data, goes_on = http.answer(response)
            async with asyncio.timeout(ANSWER_S):
                writer.write(data)
                await writer.drain()
            if not goes_on:
                with contextlib.suppress(OSError):
                    writer.write_eof()
                return

    async def _response(self, path: str) -> Response:
        if path in self._files:
            return self._files[path]
        recent, content_type = self._made[path]
        try:
            async with asyncio.timeout(ANSWER_S):
                return Response(content_type, await recent.get())
        except TimeoutError:
            return Response(TEXT, b"isoproxy is busy; try again\n", 503)
        except Exception as error:
            _log.err("internal_error", error=error)
            return Response(TEXT, b"isoproxy has a defect; see its log and report it\n", 500)
