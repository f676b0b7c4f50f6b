"""Namecoin Core (`namecoind`), a full node, as a source of names over its JSON-RPC.

Theory of operation
    Namecoin Core has the whole chain and asks no other program, so there is nothing to
    isolate.  Programs that imitate it (ConsensusJ) do ask others; they are recognised by
    what they leave out of `getblockchaininfo`.
"""

from __future__ import annotations

from typing import Final

from isoproxy.errors import ErrorKind
from isoproxy.isolation import IsolationKey
from isoproxy.namecoin.backend import Absent, Evidence, Found, TemporaryFailure
from isoproxy.namecoin.rpc.backend import DOWNLOADING, SYNCHRONISING, RpcBackend, written_name
from isoproxy.namecoin.rpc.client import CallRefused, RpcError
from isoproxy.namecoin.value.json import Json

_NOT_WHITELISTED: Final = (
    "Namecoin Core does not allow our user the calls getblockchaininfo and name_show; add both to "
    "its -rpcwhitelist."
)


_NO_CORE: Final = (
    "The program at names.rpc.address is no Namecoin Core and may ask others without "
    "isolation; use the built-in client (names.backend = 'electrum')."
)


class NamecoinCoreBackend(RpcBackend):
    """Names from a Namecoin Core of the user's own."""

    async def lookup(self, name: bytes, key: IsolationKey) -> Found | Absent:
        await self._ready()
        written, encoding = written_name(name)
        params: list[Json] = [written, {"nameEncoding": encoding, "valueEncoding": "hex"}]
        evidence = Evidence.FULL_NODE if self.isolates else Evidence.RPC_CLAIM
        return await self._name_show(name, params, evidence)

    def _explained(self, failure: TemporaryFailure) -> TemporaryFailure:
        """Core says 401 to wrong credentials, and 403 to calls that are not whitelisted."""
        if isinstance(failure, CallRefused) and failure.status == 403:
            return TemporaryFailure(_NOT_WHITELISTED, kind=failure.kind)
        return failure

    async def _probe(self) -> str | None:
        """Ask whether this is a full node, with its chain complete."""
        try:
            info = await self._client.call("getblockchaininfo", [])
        except RpcError as error:
            if error.code in SYNCHRONISING:
                raise TemporaryFailure(DOWNLOADING, kind=ErrorKind.NAME_SYNCHRONISING) from None
            return _NO_CORE
        if not isinstance(info, dict) or not isinstance(info.get("initialblockdownload"), bool):
            return _NO_CORE
        if info["initialblockdownload"]:
            raise TemporaryFailure(DOWNLOADING, kind=ErrorKind.NAME_SYNCHRONISING)
        return None
