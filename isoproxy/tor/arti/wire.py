"""Arti's RPC protocol: JSON objects, one a line, requests answered by their number.

Theory of operation
    Arti begins with a banner.  A connection has one object at first, `connection`.
    `auth:authenticate` makes a session of it, which tells of ports and has a client,
    which tells of its start.  The socket's permissions are the authentication
    (`auth:inherent`).

Invariants
    No I/O.  What cannot be read, or is of another type than it should be, is an
    OperationError; a line is at most `MAX_LINE` bytes.

Specification: Arti's RPC book and doc/dev/notes/rpc-meta-draft.md (Arti 2.7).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from isoproxy.errors import ConfigError, OperationError
from isoproxy.net.endpoint import Endpoint
from isoproxy.tor.control.events import Bootstrap

MAX_LINE: Final = 65536
CONNECTION: Final = "connection"
"""The object that a new connection has."""

_UNREADABLE: Final = "Arti's RPC port says what no Arti says"


def request(number: int, target: str, method: str, **parameters: str) -> bytes:
    """A call of `method` of the object `target`, as a line."""
    call = {"id": number, "obj": target, "method": method, "params": parameters}
    return json.dumps(call).encode() + b"\n"


def check_banner(line: bytes) -> None:
    """Raises OperationError where `line` is not what an Arti begins with."""
    if "arti_rpc" not in _object(line):
        raise OperationError(_UNREADABLE)


def result(number: int, line: bytes) -> dict[str, Any]:
    """What the answer to request `number` says; OperationError if it is an error or none."""
    answer = _object(line)
    if answer.get("id") not in (number, None):
        raise OperationError(_UNREADABLE)
    found = answer.get("result")
    if not isinstance(found, dict):
        raise OperationError("Arti refuses what isoproxy asks of it; use Arti 2.7 or later")
    return found


def _object(line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise OperationError(_UNREADABLE)
    return found


def session(answer: dict[str, Any]) -> str:
    """The session that `auth:authenticate` gives."""
    return _name(answer.get("session"))


def client(answer: dict[str, Any]) -> str:
    """The client that `arti:get_client` gives."""
    return _name(answer.get("id"))


def _name(found: object) -> str:
    if not isinstance(found, str):
        raise OperationError(_UNREADABLE)
    return found


def bootstrap(answer: dict[str, Any]) -> Bootstrap:
    """What `arti:get_client_status` tells of the start."""
    ready, fraction, blocked = (answer.get(key) for key in ("ready", "fraction", "blocked"))
    if not isinstance(ready, bool) or not isinstance(fraction, int | float):
        raise OperationError(_UNREADABLE)
    if ready:
        return Bootstrap(100, "done", "Done")
    percent = int(100 * min(max(fraction, 0.0), 0.99)) if fraction == fraction else 0
    return Bootstrap(percent, "arti", "Bootstrapping", _printable(blocked))


def socks_port(answer: dict[str, Any]) -> Endpoint:
    """The first SOCKS port of `arti:get_proxy_info` that is on this machine."""
    for text in _socks_addresses(answer.get("proxies")):
        try:
            endpoint = Endpoint.parse(text)
        except ConfigError:
            continue
        if endpoint.is_loopback and not endpoint.is_none:
            return endpoint
    raise OperationError("Arti has no SOCKS port on this machine; set its proxy.socks_listen")


def _socks_addresses(proxies: object) -> Iterator[str]:
    for proxy in proxies if isinstance(proxies, list) else ():
        listener = proxy.get("listener") if isinstance(proxy, dict) else None
        socks = listener.get("socks5") if isinstance(listener, dict) else None
        address = socks.get("tcp_address") if isinstance(socks, dict) else None
        if isinstance(address, str):
            yield address


def _printable(text: object) -> str | None:
    return text if isinstance(text, str) and text.isprintable() and len(text) <= 400 else None
