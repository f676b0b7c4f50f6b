"""An RPC port that says what Arti 2.7 was seen to say, or whatever a test wants of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from isoproxy.net.endpoint import Endpoint

ANSWERS = {
    "auth:authenticate": {"session": "s"},
    "arti:get_client": {"id": "c"},
    "arti:get_client_status": {"ready": True, "fraction": 1.0, "blocked": None},
    "arti:get_proxy_info": {
        "proxies": [{"listener": {"socks5": {"tcp_address": "127.0.0.1:40123"}}}]
    },
}


def honest(line: bytes) -> bytes:
    call = json.loads(line)
    return json.dumps({"id": call["id"], "result": ANSWERS[call["method"]]}).encode() + b"\n"


class Server:
    """Answers each line by `answer`; `drop` ends all connections."""

    def __init__(self, endpoint: Endpoint, answer: Callable[[bytes], bytes]) -> None:
        self.endpoint = endpoint
        self.banner = b'{"arti_rpc":{}}\n'
        self.answer = answer
        self._writers: set[asyncio.StreamWriter] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        writer.write(self.banner)
        with contextlib.suppress(OSError):
            while line := await reader.readline():
                writer.write(self.answer(line))
        writer.close()

    def drop(self) -> None:
        for writer in self._writers:
            writer.close()


@contextlib.asynccontextmanager
async def serving(path: Path, answer: Callable[[bytes], bytes]) -> AsyncIterator[Server]:
    server = Server(Endpoint.unix(str(path / "rpc")), answer)
    listening = await asyncio.start_unix_server(server.serve, server.endpoint.path)
    async with listening:
        yield server
        server.drop()
