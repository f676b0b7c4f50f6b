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

    To know the ID is not to obey it.  Without a proxy, and with `--oneserver`, all IDs share
    the main connection; a proxy that is no SOCKS5, or whose sixth field is 0, gets the same
    credentials for all.  So both settings are asked for before each look-up: the user can
    change them in the wallet's window at any time.  Neither call leaves this machine.

    Not to be seen over RPC: a `setconfig` at a running program shows at once, but holds from
    its next start; and TOR_TRANSPROXY in its environment takes the proxy away.
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
_IGNORES: Final = (
    "This Electrum-NMC ignores stream isolation; use one of its releases 3.3.8 to 4.0.6, or "
    "the built-in client (names.backend = 'electrum')."
)
_NO_PROXY: Final = (
    "This Electrum-NMC puts all look-ups on one connection, because it has no SOCKS5 proxy with "
    "isolation; stop it, run 'electrum-nmc --offline setconfig proxy socks5:127.0.0.1:9251' with "
    "the address of a listener, and start it again."
)
_ONE_SERVER: Final = (
    "This Electrum-NMC puts all look-ups on one connection, because of oneserver; stop it, run "
    "'electrum-nmc --offline setconfig oneserver false', and start it again without --oneserver."
)


class ElectrumNmcBackend(RpcBackend):
    """Names from Electrum-NMC, each isolation key under a stream ID of its own."""

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

    async def _ready(self) -> None:
        self.isolates = None
        await super()._ready()

    async def _probe(self) -> str | None:
        """Ask whether stream IDs are understood and obeyed; nothing goes to the network."""
        if not await self._knows_stream_ids():
            return _IGNORES
        try:
            proxy = await self._client.call("getconfig", {"key": "proxy"})
            one_server = await self._client.call("getconfig", {"key": "oneserver"})
        except RpcError:
            return _IGNORES
        if not _isolates(proxy):
            return _NO_PROXY
        return None if one_server is None or one_server is False else _ONE_SERVER

    async def _knows_stream_ids(self) -> bool:
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


def _isolates(proxy: Json) -> bool:
    """Whether each connection through `proxy` gets credentials of its own.

    It is `socks5:HOST:PORT[:USER:PASSWORD[:ISOLATE]]`, or null; ISOLATE is 1 unless given.
    """
    if not isinstance(proxy, str):
        return False
    mode, *rest = proxy.split(":")
    return mode == "socks5" and len(rest) >= 2 and rest[4:] in ([], ["1"])


def _stream_id(key: IsolationKey) -> str:
    return upstream_credentials(key, _PURPOSE).password.decode()
