"""Electrum-NMC, the wallet program, as a source of names over its JSON-RPC.

(Our own light client, which asks the same servers without it, is `namecoin.electrum`.)

Theory of operation
    Electrum-NMC (3.3.8 to 4.0.6) looks names up over the network and keeps look-ups with
    different `streamID` on different circuits; it gets a digest derived from the
    isolation key.  Its 4.1.0 ignores the ID without a word.  So before anything is asked
    of it a call is made that needs no network: with the ID given twice, a program that
    knows isolation complains about just that, and one that does not complains about an
    argument it does not know.  Arguments go by name: by position they mean different
    things in different releases.
"""

from __future__ import annotations

from typing import Final

from isoproxy.isolation import IsolationKey, name_purpose, upstream_credentials
from isoproxy.namecoin.backend import Absent, Evidence, Found
from isoproxy.namecoin.rpc.backend import RpcBackend, written_name
from isoproxy.namecoin.rpc.client import RpcError
from isoproxy.namecoin.value.json import Json

_KNOWS_STREAM_ID: Final = "stream_id specified in both"
_PURPOSE: Final = name_purpose("electrum-nmc")


class ElectrumNmcBackend(RpcBackend):
    """Names from Electrum-NMC, each isolation key under a stream ID of its own."""

    _refusal = (
        "This Electrum-NMC ignores stream isolation; use one of its releases 3.3.8 to 4.0.6, or "
        "the built-in client (names.backend = 'electrum')."
    )

    async def lookup(self, name: bytes, key: IsolationKey) -> Found | Absent:
        await self._ready()
        written, encoding = written_name(name)
        params: dict[str, Json] = {
            "identifier": written,
            "options": {
                "streamID": _stream_id(key),
                "nameEncoding": encoding,
                "valueEncoding": "hex",
            },
        }
        return await self._name_show(name, params, Evidence.RPC_CLAIM)

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


def _stream_id(key: IsolationKey) -> str:
    return upstream_credentials(key, _PURPOSE).password.decode()
