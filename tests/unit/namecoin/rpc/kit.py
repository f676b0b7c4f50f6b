"""Backends over a server of the tests, two keys and a table of values."""

from __future__ import annotations

from typing import Any

from isoproxy.isolation import Isolator
from isoproxy.namecoin.rpc.client import JsonRpcClient, fixed_login
from isoproxy.namecoin.rpc.electrum_nmc import ElectrumNmcBackend
from isoproxy.namecoin.rpc.namecoin_core import NamecoinCoreBackend
from tests.unit.namecoin.kit import key_of
from tests.unit.namecoin.rpc.server import RpcServer

ISOLATOR = Isolator()
A, B = key_of(ISOLATOR, "user a"), key_of(ISOLATOR, "user b")
VALUE = b'{"ip":"192.0.2.2"}'
VALUES: dict[bytes, Any] = {b"d/example": VALUE, b"dd/\xff\x00": b"\xff\xfe"}


def client(peer: RpcServer) -> JsonRpcClient:
    return JsonRpcClient(peer.endpoint, fixed_login("user", "pass"))


def electrum(peer: RpcServer, **options: Any) -> ElectrumNmcBackend:
    return ElectrumNmcBackend(client(peer), **options)


def core(peer: RpcServer, **options: Any) -> NamecoinCoreBackend:
    return NamecoinCoreBackend(client(peer), **options)
