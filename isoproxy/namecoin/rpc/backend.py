"""What Electrum-NMC and Namecoin Core have in common as sources of names.

Theory of operation
    Both answer `name_show`, and both are asked whether they keep look-ups apart before
    they are asked for a name.  Values are asked for in hexadecimal: in any other form a
    value that is not text makes the call fail.

Invariants
    A program that cannot isolate is asked nothing at all unless `allow_unisolated` says
    so, and then its answers are called RPC_CLAIM.  The isolation key itself never leaves.
    An answer about another name than the one asked for is not used.
"""

from __future__ import annotations

import contextlib
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from types import MappingProxyType
from typing import Final, Protocol

from isoproxy.errors import ErrorKind
from isoproxy.isolation import IsolationKey
from isoproxy.namecoin.backend import Absent, Evidence, Found, TemporaryFailure
from isoproxy.namecoin.rpc.client import RpcError
from isoproxy.namecoin.value.json import Json
from isoproxy.observe.log import logger

_log = logger("names")

_NAME_NOT_FOUND: Final = -4
SYNCHRONISING: Final = frozenset({-10, -28})
"""Namecoin Core: downloading blocks, warming up."""

_REASONS: Final = MappingProxyType(
    {
        "never existed": ErrorKind.NAME_ABSENT,
        "expired": ErrorKind.NAME_EXPIRED,
        "semi-expired": ErrorKind.NAME_EXPIRED,
        "unconfirmed": ErrorKind.NAME_UNCONFIRMED,
    }
)
_NOT_FOUND_TEXT: Final = re.compile(
    r"name (?:is )?(?:purportedly )?(never existed|expired|semi-expired|unconfirmed)\b",
    re.IGNORECASE,
)


DOWNLOADING: Final = (
    "The program at names.rpc.address does not have the whole chain yet; wait until it has."
)
_OF_THE_PROGRAM: Final = frozenset(
    {
        ErrorKind.NAME_BACKEND_DOWN,
        ErrorKind.NAME_BACKEND_REFUSED,
        ErrorKind.NAME_SYNCHRONISING,
    }
)
"""Failures that are no single name's."""


class Caller(Protocol):
    """What the backends need of `JsonRpcClient`."""

    async def call(self, method: str, params: dict[str, Json] | list[Json]) -> Json: ...

    def close(self) -> None: ...


class RpcBackend(ABC):
    """What both have in common: the probe before a look-up, and its result."""

    def __init__(self, client: Caller, *, allow_unisolated: bool = False) -> None:
        self._client: Final = client
        self._allow_unisolated: Final = allow_unisolated
        self.isolates: bool | None = None
        """Whether look-ups of different keys are kept apart; None until asked."""
        self.problem: str | None = None
        """Why the program cannot be used, as it was asked last; None if it can."""

    async def check(self) -> None:
        """Find out whether it may be used, without a look-up; raises TemporaryFailure."""
        await self._ready()

    @abstractmethod
    async def lookup(self, name: bytes, key: IsolationKey) -> Found | Absent:
        """As `backend.Backend` has it."""

    async def close(self) -> None:
        """Release every connection; look-ups under way fail."""
        self._client.close()

    @abstractmethod
    async def _probe(self) -> str | None:
        """Why look-ups of different keys are not kept apart, and what to do; None if they are."""

    async def _ready(self) -> None:
        """Refuse a program that does not isolate, before it is asked anything."""
        with self._noting():
            if self.isolates is None or not (self.isolates or self._allow_unisolated):
                refusal = await self._probe()
                self.isolates = refusal is None
                if refusal is not None and not self._allow_unisolated:
                    raise TemporaryFailure(refusal, kind=ErrorKind.NAME_BACKEND_REFUSED)

    @contextlib.contextmanager
    def _noting(self) -> Iterator[None]:
        """Keep what is wrong with the program, and log it when that is another thing."""
        try:
            yield
        except TemporaryFailure as said:
            failure = self._explained(said)
            if failure.kind in _OF_THE_PROGRAM and self.problem != str(failure):
                self.problem = str(failure)
                _log.warn("name_backend_fails", problem=self.problem)
            raise failure from None
        self.problem = None

    def _explained(self, failure: TemporaryFailure) -> TemporaryFailure:
        """`failure` in the words of this program."""
        return failure

    async def _name_show(
        self, name: bytes, params: dict[str, Json] | list[Json], evidence: Evidence
    ) -> Found | Absent:
        with self._noting():
            try:
                result = await self._client.call("name_show", params)
            except RpcError as error:
                return Absent(_reason(error))
            except TemporaryFailure:
                self.isolates = None  # another program may come up at this address
                raise
        return _found(name, result, evidence)


def written_name(name: bytes) -> tuple[str, str]:
    """A name and its encoding, as every release of either program takes them."""
    if all(0x20 <= byte < 0x7F for byte in name):
        return name.decode("ascii"), "ascii"
    return name.hex(), "hex"


def _reason(error: RpcError) -> ErrorKind:
    """Why a name is absent; raises TemporaryFailure where the error does not say that."""
    match = _NOT_FOUND_TEXT.match(error.message) if error.code == _NAME_NOT_FOUND else None
    if match is None:
        if error.code in SYNCHRONISING or "still syncing" in error.message:
            raise TemporaryFailure(DOWNLOADING, kind=ErrorKind.NAME_SYNCHRONISING) from None
        raise TemporaryFailure(kind=ErrorKind.NAME_UNVERIFIABLE) from None
    return _REASONS[match[1].lower()]


def _found(name: bytes, result: Json, evidence: Evidence) -> Found | Absent:
    """What a `name_show` result says; it must be about `name` and complete."""
    if not isinstance(result, dict) or _text(result, "name") != name:
        raise TemporaryFailure(kind=ErrorKind.NAME_UNVERIFIABLE)
    value = _text(result, "value")
    height, expires_in, txid = (result.get(field) for field in ("height", "expires_in", "txid"))
    if value is None or not _is_integer(height) or not _is_integer(expires_in):
        raise TemporaryFailure(kind=ErrorKind.NAME_UNVERIFIABLE)
    assert isinstance(height, int)
    assert isinstance(expires_in, int)
    if result.get("expired") is True or expires_in <= 0:
        return Absent(ErrorKind.NAME_EXPIRED)
    return Found(value, height, txid if isinstance(txid, str) else "", expires_in, evidence)


def _is_integer(value: Json) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _text(result: dict[str, Json], field: str) -> bytes | None:
    """The bytes of `field`, whose encoding stands beside it; None if it is not there."""
    text = result.get(field)
    if not isinstance(text, str):
        return None
    try:
        if result.get(field + "_encoding") == "hex":
            return bytes.fromhex(text)
        return text.encode()
    except ValueError:
        return None
