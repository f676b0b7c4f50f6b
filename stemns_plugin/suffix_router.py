"""Which plugin finds names under which suffix, and how long one name may keep them busy.

Theory of operation
    `SuffixRouter` maps suffixes to name plugins; the longest suffix of a name wins.  What a
    plugin answers may again be a name with such a suffix: an alias, which is resolved
    under the same isolation ID, a few times at most.

    Failures that may pass are tried again with back-off, within the time one name has.

Invariants
    `bit` and `bit.onion` are always among the suffixes, served or not: what no plugin can
    resolve fails, it is never passed on.  The answer of `find` has no such suffix.

Specification: Tor proposal 279 §2.3 (stream isolation IDs), §2.4 (result codes).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final, Protocol

from isoproxy.errors import ErrorKind, IsoproxyError, NamingError
from isoproxy.net.backoff import Backoff
from isoproxy.net.target import Target
from stemns_plugin.streams import LookUp

ALWAYS_OURS: Final = ("bit", "bit.onion")
MAX_ALIASES: Final = 8
RESOLVE_S: Final = 60.0
_PASSING: Final = frozenset(
    {
        ErrorKind.NAME_BACKEND_DOWN,
        ErrorKind.NAME_SYNCHRONISING,
        ErrorKind.NAME_UNVERIFIABLE,
        ErrorKind.NAME_NO_QUORUM,
        ErrorKind.NAME_TIMEOUT,
        ErrorKind.BUSY,
    }
)


class NamePlugin(Protocol):
    """Finds what a name stands for, apart from what is asked under other isolation IDs."""

    async def resolve(self, name: str, isolation: bytes) -> Target:
        """The host (port 0) that `name` stands for; raises IsoproxyError."""
        ...


class SuffixRouter:
    """All name plugins, by suffix (lower case, no dots at either end)."""

    def __init__(self, by_suffix: Mapping[str, NamePlugin], *, timeout: float = RESOLVE_S) -> None:
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
                return await self._follow(asked.name, asked.isolation)
        except TimeoutError:
            raise NamingError(kind=ErrorKind.NAME_TIMEOUT) from None

    async def _follow(self, name: str, isolation: bytes) -> Target:
        for _ in range(MAX_ALIASES + 1):
            plugin = self._by_suffix.get(self.suffix_of(name) or "")
            if plugin is None:
                raise NamingError(kind=ErrorKind.NAME_NEVER_SENT_TO_TOR)
            target = await _persistently(plugin, name, isolation)
            name = target.host
            if target.is_ip or not self.is_ours(name):
                return target
        raise NamingError(kind=ErrorKind.NAME_BUDGET)


async def _persistently(plugin: NamePlugin, name: str, isolation: bytes) -> Target:
    """The answer of `plugin`, asked again until it is final."""
    backoff = Backoff(1.0, RESOLVE_S)
    while True:
        try:
            return await plugin.resolve(name, isolation)
        except NamingError as error:
            if error.kind not in _PASSING:
                raise
        await asyncio.sleep(backoff.next())


def kind_of(error: BaseException) -> ErrorKind:
    """The kind of whatever a name plugin raised; a defect of it is a kind too."""
    return error.kind if isinstance(error, IsoproxyError) else ErrorKind.INTERNAL
