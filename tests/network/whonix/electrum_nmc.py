"""An Electrum-NMC's JSON-RPC, as a program: `python -m tests.network.whonix.electrum_nmc`.

Its arguments are the address, the port, "user:password" and a JSON table of names and
values.  Each call for a name that reaches it is written to standard output, after "ready".
"""

from __future__ import annotations

import asyncio
import json
import sys

from tests.unit.namecoin.rpc.server import RpcServer, electrum_methods


async def _serve(host: str, port: int, login: str, values: dict[str, str]) -> None:
    methods = electrum_methods({name.encode(): text.encode() for name, text in values.items()})
    answer = methods["name_show"]

    def name_show(params: dict[str, object]) -> object:
        print(params["identifier"], flush=True)
        return answer(params)

    server = RpcServer(methods | {"name_show": name_show}, login=login.encode())
    async with server.running(host=host, port=port):
        print("ready", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    _host, _port, _login, _values = sys.argv[1:]
    asyncio.run(_serve(_host, int(_port), _login, json.loads(_values)))
