"""A JSON-RPC server on this machine that behaves on the wire as the real ones do.

Electrum-NMC 4.0.6 and 4.1.0, Namecoin Core and ConsensusJ differ in what they answer to
malformed calls, in their error codes and texts, and in which arguments they know; the
`*_methods` below reproduce what was observed of each.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from isoproxy.net.endpoint import Endpoint

Method = Callable[[Any], Any]


class Failure(Exception):
    """A method's error: code and message."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass
class RpcServer:
    """Answers `methods`; `raw` holds complete answers to give first, in place of them."""

    methods: dict[str, Method]
    login: bytes = b"user:pass"
    calls: list[tuple[str, Any]] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    delay: float = 0.0
    endpoint: Endpoint = field(default_factory=Endpoint)

    def asked(self, method: str = "name_show") -> list[Any]:
        """The parameters of each call of `method`."""
        return [params for called, params in self.calls if called == method]

    @asynccontextmanager
    async def running(
        self, path: str | None = None, *, host: str = "127.0.0.1", port: int = 0
    ) -> AsyncIterator[RpcServer]:
        if path is None:
            server = await asyncio.start_server(self._serve, host, port)
            self.endpoint = Endpoint.tcp(host, server.sockets[0].getsockname()[1])
        else:
            server = await asyncio.start_unix_server(self._serve, path)
            self.endpoint = Endpoint.unix(path)
        async with server:
            yield self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            headers = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
            body = await reader.readexactly(int(headers["Content-Length"]))
            await asyncio.sleep(self.delay)
            writer.write(self.raw.pop(0) if self.raw else self._answer(head, headers, body))
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.at_once -= 1
            writer.close()

    def _answer(self, head: str, headers: dict[str, str], body: bytes) -> bytes:
        if not head.startswith("POST / HTTP/1.1\r\n"):
            return http(405, b"")
        if headers["Authorization"] != "Basic " + base64.b64encode(self.login).decode():
            return http(401, b"")
        call = json.loads(body)
        self.calls.append((call["method"], call["params"]))
        answer = {"id": call["id"], "jsonrpc": "2.0"}
        method = self.methods.get(call["method"])
        try:
            if method is None:
                raise Failure(-32601, "Method not found")
            answer["result"] = method(call["params"])
        except Failure as failure:
            answer["error"] = {"code": failure.code, "message": failure.message}
        return http(200, json.dumps(answer).encode())


def http(status: int, body: bytes, extra: bytes = b"") -> bytes:
    """An HTTP response, the last on its connection."""
    head = b"HTTP/1.1 %d X\r\nConnection: close\r\nContent-Length: %d\r\n" % (status, len(body))
    return head + extra + b"\r\n" + body


def chunked(body: bytes) -> bytes:
    """The same with chunks of 7 bytes."""
    chunks = [body[at : at + 7] for at in range(0, len(body), 7)]
    coded = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + coded


def record(name: bytes, value: bytes, encoding: str, /, **changes: Any) -> dict[str, Any]:
    """A `name_show` result as all of them write it."""
    written = name.hex() if encoding == "hex" else name.decode()
    return {
        "name": written,
        "name_encoding": encoding,
        "value": value.hex(),
        "value_encoding": "hex",
        "txid": "ab" * 32,
        "vout": 1,
        "address": "m",
        "height": 135,
        "expires_in": 19,
        "expired": False,
    } | changes


def named(name: str, encoding: str) -> bytes:
    """The name that an argument spells."""
    return bytes.fromhex(name) if encoding == "hex" else name.encode()


PROXIED: dict[str, Any] = {"proxy": "socks5:127.0.0.1:9251"}
"""The settings of an Electrum-NMC that keeps look-ups apart."""


def electrum_methods(
    values: dict[bytes, Any], *, isolates: bool = True, config: dict[str, Any] = PROXIED
) -> dict[str, Method]:
    """Electrum-NMC: 4.0.6 if it isolates, else 4.1.0; `config` are its settings."""
    known = {"identifier", "name_encoding", "value_encoding", "options", "wallet"}
    if isolates:
        known |= {"stream_id", "verify_sig"}

    def name_show(params: Any) -> Any:
        if isinstance(params, list):
            raise Failure(1, f"{params[1]} is not a valid Encoding")
        for argument in params:
            if argument not in known:
                text = f"name_show() got an unexpected keyword argument '{argument}'"
                raise Failure(1, text)
        options = params.get("options", {})
        if "stream_id" in params and "streamID" in options:
            raise Failure(
                1, "stream_id specified in both Electrum-NMC and Namecoin Core style options"
            )
        encoding = options.get("nameEncoding", "ascii")
        name = named(params["identifier"], encoding)
        value = values.get(name, Failure(-4, "Name purportedly never existed"))
        if isinstance(value, Failure):
            raise value
        return value if isinstance(value, dict) else record(name, value, encoding)

    return {"name_show": name_show, "getconfig": lambda params: config.get(params["key"])}


def core_methods(values: dict[bytes, Any], *, downloading: bool = False) -> dict[str, Method]:
    """Namecoin Core: the options may be missing, in whole or in part, and unknown ones pass."""

    def name_show(params: Any) -> Any:
        if downloading:
            raise Failure(-10, "Namecoin is downloading blocks...")
        name, options = params if len(params) == 2 else (*params, {})
        encoding = options.get("nameEncoding", "ascii")
        raw = named(name, encoding)
        value = values.get(raw, Failure(-4, f"name never existed: '{name}'"))
        if isinstance(value, Failure):
            raise value
        if isinstance(value, dict):
            return value
        if options.get("valueEncoding", "ascii") == "hex":
            return record(raw, value, encoding)
        return record(raw, value, encoding, value=value.decode("ascii"), value_encoding="ascii")

    info = {"chain": "main", "blocks": 800_000, "initialblockdownload": downloading}
    return {"name_show": name_show, "getblockchaininfo": lambda params: info}


def consensusj_methods(values: dict[bytes, bytes]) -> dict[str, Method]:
    """ConsensusJ's name daemon, which asks third parties."""

    def name_show(params: Any) -> Any:
        name = params[0].encode()
        nulls: dict[str, Any] = {"vout": None, "expired": None, "valueParsed": {}}
        return record(name, b"", "ascii", **nulls) | {
            "value": values[name].decode(),
            "value_encoding": "ascii",
        }

    info = {"chain": "main", "blocks": None, "initialblockdownload": None}
    return {"name_show": name_show, "getblockchaininfo": lambda params: info}
