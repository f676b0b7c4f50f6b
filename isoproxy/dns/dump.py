"""Everything under `bit`, from a Namecoin Core of one's own.

Theory of operation
    Only a full node knows which names there are: `name_scan` lists them a page at a time,
    each page from the last name of the one before.  The names are in no useful order, so
    those of other namespaces are left out one by one.  What a name says is then asked of
    the resolver, as for everybody else: imports, expiry and limits are the same.

Invariants
    A name that cannot be resolved costs its own records and no more.  The scan ends, also
    if the node repeats itself.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

from isoproxy.errors import NamingError, OperationError
from isoproxy.isolation import IsolationKey
from isoproxy.namecoin.resolve.resolver import Resolver, Zone
from isoproxy.namecoin.value.json import Json
from isoproxy.namecoin.value.name import BitName, is_registrable

PAGE: Final = 200
"""Names a call; the longest values fit a response of the client's bounded size."""
_DOMAINS: Final = b"d/"

RpcCall = Callable[[str, list[Json]], Awaitable[Json]]
"""`await call(method, params)` gives the result of a JSON-RPC call to Namecoin Core."""


async def dump(
    call: RpcCall, resolver: Resolver, key: IsolationKey
) -> AsyncIterator[tuple[BitName, Zone | NamingError]]:
    """Each name in `d/` and its zone or why it has none.

    Raises OperationError where the node does not list names.
    """
    async for name in domains(call):
        try:
            yield name, await resolver.zone(name, key)
        except NamingError as error:
            yield name, error


async def domains(call: RpcCall) -> AsyncIterator[BitName]:
    """The domains among all names in `d/` that are not expired."""
    start = _DOMAINS
    while True:
        page = await _page(call, start)
        for name, expired in page:
            label = name.removeprefix(_DOMAINS).decode("latin-1")
            is_domain = name.startswith(_DOMAINS) and is_registrable(label)
            if is_domain and not expired and name != start:
                yield BitName(label)
        if len(page) < PAGE or page[-1][0] == start:
            return
        start = page[-1][0]


async def _page(call: RpcCall, start: bytes) -> list[tuple[bytes, bool]]:
    """Some names from `start` on, which is the first if it exists, and whether expired."""
    options: Json = {"nameEncoding": "hex", "valueEncoding": "hex"}
    listed = await call("name_scan", [start.hex(), PAGE, options])
    try:
        return [_entry(item) for item in listed] if isinstance(listed, list) else [_entry(None)]
    except (KeyError, ValueError):
        raise OperationError("the program at names.rpc.address is no Namecoin Core") from None


def _entry(item: Json) -> tuple[bytes, bool]:
    """Raises ValueError, KeyError."""
    if not isinstance(item, dict):
        raise ValueError
    return bytes.fromhex(str(item["name"])), item["expired"] is True
