"""Isolation keys and a backend that counts, for the tests of the resolver."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from isoproxy.errors import ErrorKind
from isoproxy.isolation import (
    ClientProtocol,
    IsolationKey,
    IsolationTuple,
    Isolator,
    ListenerRule,
    shared_group,
)
from isoproxy.namecoin.backend import Absent, Evidence, Found
from tests.kit.onion_address import onion_address
from tests.unit.namecoin.value.inquiry import encode

ONION = onion_address(bytes(range(32)))
ONION_2 = onion_address(bytes(range(1, 33)))


def key_of(isolator: Isolator, who: str) -> IsolationKey:
    stream = IsolationTuple(None, ClientProtocol.SOCKS5, username=who.encode())
    return isolator.key_for(ListenerRule(shared_group(1)), stream)


def found(value: Any, height: int = 100) -> Found:
    return Found(encode(value), height, "ab" * 32, 35_000, Evidence.SPV_CONFIRMED, ("server",))


class CountingBackend:
    """Answers from a table after `delay` s; what is not in it is absent, errors are raised."""

    def __init__(self, values: Mapping[str, Any], delay: float = 0.0) -> None:
        self.values = dict(values)
        self.delay = delay
        self.asked: list[tuple[str, IsolationKey]] = []
        self.under_way = 0
        self.closed = False
        self.after: Callable[[], None] | None = None
        """Called once an answer is on its way to those who wait for it."""

    def names(self) -> list[str]:
        return [name for name, _ in self.asked]

    async def lookup(self, name: bytes, key: IsolationKey) -> Found | Absent:
        self.asked.append((name.decode(), key))
        self.under_way += 1
        try:
            await asyncio.sleep(self.delay)
        finally:
            self.under_way -= 1
        if self.after is not None:
            asyncio.get_running_loop().call_soon(self.after)
        value = self.values.get(name.decode(), ErrorKind.NAME_ABSENT)
        if isinstance(value, BaseException):
            raise value
        if isinstance(value, ErrorKind):
            return Absent(value)
        return found(value)

    async def close(self) -> None:
        self.closed = True
