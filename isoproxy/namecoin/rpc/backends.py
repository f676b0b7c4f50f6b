"""Electrum-NMC and Namecoin Core as sources of names, over their JSON-RPC.

Theory of operation
    Electrum-NMC (3.3.8 to 4.0.6) looks names up over the network and keeps look-ups with
    different `streamID` on different circuits; it gets a digest derived from the
    isolation key.  Its 4.1.0 ignores the ID without a word.  So before anything is asked
    of it a call is made that needs no network: with the ID given twice, a program that
    knows isolation complains about just that, and one that does not complains about an
    argument it does not know.  Arguments go by name: by position they mean different
    things in different releases.

    Namecoin Core has the whole chain and asks nobody, so there is nothing to isolate.
    Programs that imitate it (ConsensusJ) do ask others; they are recognised by what they
    leave out of `getblockchaininfo`.

    Values are asked for in hexadecimal: in any other form a value that is not text makes
    the call fail.

Invariants
    A program that cannot isolate is asked nothing at all unless `allow_unisolated` says
    so, and then its answers are called RPC_CLAIM.  The isolation key itself never leaves.
    An answer about another name than the one asked for is no answer.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from types import MappingProxyType
from typing import Final, Protocol

from isoproxy.errors import ErrorKind
from isoproxy.isolation import IsolationKey, name_purpose, upstream_credentials
from isoproxy.namecoin.backend import Absent, Evidence, Found, TemporaryFailure
from isoproxy.namecoin.rpc.client import RpcError
from isoproxy.namecoin.value.json import Json

_NAME_NOT_FOUND: Final = -4
_SYNCHRONISING: Final = frozenset({-10, -28})
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
_DOWNLOADING: Final = "This Namecoin Core does not have the whole chain yet; wait until it has."
_KNOWS_STREAM_ID: Final = "stream_id specified in both"
_PURPOSE: Final = name_purpose("electrum-nmc")


class Caller(Protocol):
    """What the backends need of `JsonRpcClient`."""

    async def call(self, method: str, params: dict[str, Json] | list[Json]) -> Json: ...

    def close(self) -> None: ...


class RpcBackend(ABC):
    """What both have in common: the probe before the first look-up, and its result."""

    _refusal: str

    def __init__(self, client: Caller, *, allow_unisolated: bool = False) -> None:
        self._client: Final = client
        self._allow_unisolated: Final = allow_unisolated
        self.isolates: bool | None = None
        """Whether look-ups of different keys are kept apart; None until asked."""

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
    async def _probe(self) -> bool:
        """Whether the program keeps look-ups of different keys apart."""

    async def _ready(self) -> None:
        """Refuse a program that cannot isolate, before it is asked anything."""
        if self.isolates is None or not (self.isolates or self._allow_unisolated):
            self.isolates = await self._probe()
        if not (self.isolates or self._allow_unisolated):
            raise TemporaryFailure(self._refusal)

    async def _lookup(
        self, name: bytes, params: dict[str, Json] | list[Json], evidence: Evidence
    ) -> Found | Absent:
        try:
            result = await self._client.call("name_show", params)
        except RpcError as error:
            return Absent(_reason(error))
        except TemporaryFailure:
            self.isolates = None  # another program may come up at this address
            raise
        return _found(name, result, evidence)


class ElectrumNmcBackend(RpcBackend):
    """Names from Electrum-NMC, each isolation key under a stream ID of its own."""

    _refusal = (
        "This Electrum-NMC ignores stream isolation; use one of its releases 3.3.8 to 4.0.6, or "
        "the built-in client (names.backend = 'electrum')."
    )

    async def lookup(self, name: bytes, key: IsolationKey) -> Found | Absent:
        await self._ready()
        written, encoding = _written(name)
        params: dict[str, Json] = {
            "identifier": written,
            "options": {
                "streamID": _stream_id(key),
                "nameEncoding": encoding,
                "valueEncoding": "hex",
            },
        }
        return await self._lookup(name, params, Evidence.RPC_CLAIM)

    async def _probe(self) -> bool:
        """Whether stream IDs are understood; nothing goes to the network."""
        params: dict[str, Json] = {
            "identifier": "d/",
            "stream_id": "probe",
            "options": {"streamID": "probe"},
        }
        try:
            await self._client.call("name_show", params)
        except RpcError as error:
            return error.message.startswith(_KNOWS_STREAM_ID)
        return False


class NamecoinCoreBackend(RpcBackend):
    """Names from a Namecoin Core of the user's own."""

    _refusal = (
        "The program at names.rpc.address is no Namecoin Core and may ask others without "
        "isolation; use the built-in client (names.backend = 'electrum')."
    )

    async def lookup(self, name: bytes, key: IsolationKey) -> Found | Absent:
        await self._ready()
        written, encoding = _written(name)
        params: list[Json] = [written, {"nameEncoding": encoding, "valueEncoding": "hex"}]
        evidence = Evidence.FULL_NODE if self.isolates else Evidence.RPC_CLAIM
        return await self._lookup(name, params, evidence)

    async def _probe(self) -> bool:
        """Whether this is a full node, with its chain complete."""
        try:
            info = await self._client.call("getblockchaininfo", [])
        except RpcError as error:
            if error.code in _SYNCHRONISING:
                raise TemporaryFailure(_DOWNLOADING) from None
            return False
        if not isinstance(info, dict) or not isinstance(info.get("initialblockdownload"), bool):
            return False
        if info["initialblockdownload"]:
            raise TemporaryFailure(_DOWNLOADING)
        return True


def _stream_id(key: IsolationKey) -> str:
    return upstream_credentials(key, _PURPOSE).password.decode()


def _written(name: bytes) -> tuple[str, str]:
    """A name and its encoding, as every release of either program takes them."""
    if all(0x20 <= byte < 0x7F for byte in name):
        return name.decode("ascii"), "ascii"
    return name.hex(), "hex"


def _reason(error: RpcError) -> ErrorKind:
    """Why a name is absent; raises TemporaryFailure where the error does not say that."""
    match = _NOT_FOUND_TEXT.match(error.message) if error.code == _NAME_NOT_FOUND else None
    if match is None:
        if error.code in _SYNCHRONISING or "still syncing" in error.message:
            raise TemporaryFailure from None
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
