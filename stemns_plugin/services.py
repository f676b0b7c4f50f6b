"""Who finds names under which suffix, and how long one name may keep them busy.

Theory of operation
    `Services` maps suffixes to name services; the longest suffix of a name wins.  A name
    service is the resolver of this process (`Embedded`) or a name plugin (`External`).
    What it answers may again be a name with such a suffix: an alias, which is resolved
    under the same isolation ID, a few times at most.

    A plugin's failures that may pass are tried again after a wait that doubles, within the
    time one name has in all.

Invariants
    `bit` and `bit.onion` are always among the suffixes, served or not: what nobody can
    resolve fails, it is never passed on.  The answer of `find` has no such suffix.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final, Protocol

from isoproxy.errors import ErrorKind, IsoproxyError, NamingError
from isoproxy.isolation import (
    ClientProtocol,
    Isolate,
    IsolationTuple,
    Isolator,
    ListenerRule,
    own_group,
)
from isoproxy.namecoin.resolve.answer import Want
from isoproxy.namecoin.value.name import BitName
from isoproxy.net.target import Target
from prop279.host import PluginHost
from prop279.plugin import Resolver
from stemns_plugin.streams import LookUp

ALWAYS_OURS: Final = ("bit", "bit.onion")
MAX_ALIASES: Final = 8
RESOLVE_S: Final = 60.0
_FIRST_WAIT_S: Final = 1.0
_PASSING: Final = frozenset(
    {
        ErrorKind.NAME_BACKEND_DOWN,
        ErrorKind.NAME_UNVERIFIABLE,
        ErrorKind.NAME_TIMEOUT,
        ErrorKind.BUSY,
    }
)
_RULE: Final = ListenerRule(own_group("stemns"), Isolate.SOCKS_AUTH)


class NameService(Protocol):
    """Finds what a name stands for, apart from what other isolation IDs ask."""

    async def resolve(self, name: str, isolation: bytes, *, wants_address: bool) -> Target:
        """The host (port 0) that `name` stands for; raises IsoproxyError.

        `wants_address` says that an onion service would be of no use.
        """
        ...


class Embedded:
    """The resolver of this process, under keys made from isolation IDs."""

    def __init__(self, resolver: Resolver[BitName], isolator: Isolator) -> None:
        self._resolver = resolver
        self._isolator = isolator

    async def resolve(self, name: str, isolation: bytes, *, wants_address: bool) -> Target:
        stream = IsolationTuple(None, ClientProtocol.PLUGIN, username=isolation)
        key = self._isolator.key_for(_RULE, stream)
        want = Want.ADDRESS if wants_address else Want.STREAM
        answer = await self._resolver.resolve(BitName.parse(name), key, want)
        if answer.target is None:
            raise NamingError(kind=answer.reason or ErrorKind.NAME_UNVERIFIABLE)
        return Target.parse(answer.target, 0)


class External:
    """A name plugin.  It cannot be told that only an address is of use."""

    def __init__(self, host: PluginHost) -> None:
        self._host = host

    async def resolve(self, name: str, isolation: bytes, *, wants_address: bool) -> Target:
        wait = _FIRST_WAIT_S
        while True:
            try:
                return await self._host.resolve(name, isolation)
            except NamingError as error:
                if error.kind not in _PASSING:
                    raise
            await asyncio.sleep(wait)
            wait *= 2


class Services:
    """All name services, by suffix (lower case, no dots at either end)."""

    def __init__(self, by_suffix: Mapping[str, NameService], *, timeout: float = RESOLVE_S) -> None:
        self._by_suffix = dict(by_suffix)
        self._suffixes = tuple(
            "." + suffix
            for suffix in sorted(
                {*by_suffix, *ALWAYS_OURS}, key=lambda s: s.count("."), reverse=True
            )
        )
        self._timeout = timeout

    def suffix_of(self, host: str) -> str | None:
        """The longest suffix of ours that `host` (lower case, no last dot) is under."""
        for suffix in self._suffixes:
            if host.endswith(suffix):
                return suffix[1:]
        return None

    def is_ours(self, host: str) -> bool:
        """Whether `host` (lower case, no last dot) must never reach an exit as it is."""
        return self.suffix_of(host) is not None

    async def find(self, asked: LookUp) -> Target:
        """Where a name that is ours leads in the end; raises IsoproxyError."""
        try:
            async with asyncio.timeout(self._timeout):
                return await self._follow(asked.name, asked.isolation, asked.wants_address)
        except TimeoutError:
            raise NamingError(kind=ErrorKind.NAME_TIMEOUT) from None

    async def _follow(self, name: str, isolation: bytes, wants_address: bool) -> Target:
        for _ in range(MAX_ALIASES + 1):
            service = self._by_suffix.get(self.suffix_of(name) or "")
            if service is None:
                raise NamingError(kind=ErrorKind.NAME_NEVER_SENT_TO_TOR)
            target = await service.resolve(name, isolation, wants_address=wants_address)
            name = target.host.rstrip(".")
            if target.is_ip or not self.is_ours(name):
                return target
        raise NamingError(kind=ErrorKind.NAME_BUDGET)


def kind_of(error: BaseException) -> ErrorKind:
    """The kind of whatever a name service raised; a defect of its is a kind too."""
    return error.kind if isinstance(error, IsoproxyError) else ErrorKind.INTERNAL
