"""What the plugin says for each state a name can be in, through the real resolver.

The states are those of ncprop279's case table; where its answer was a leak or a dead end,
ours differs, and the row says so.
"""

from __future__ import annotations

import json

import pytest

from isoproxy.errors import ErrorKind
from isoproxy.isolation import IsolationKey, Isolator
from isoproxy.namecoin.backend import Absent, Evidence, Found, TemporaryFailure
from isoproxy.namecoin.resolve.answer import Policy
from isoproxy.namecoin.resolve.resolver import Resolver
from prop279.plugin import Plugin, parse_bit_name
from prop279.protocol import Resolved, parse_answer
from tests.kit.waiting import until

ONION = "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid.onion"
TOR = {"_tor": {"txt": ONION}}

CHAIN: dict[bytes, object] = {
    b"d/both": {"ip": "192.0.2.1", "map": TOR},
    b"d/malformed": {"ip": "192.0.2.1", "map": {"_tor": {"txt": "not-an-onion"}}},
    b"d/ip": {"ip": "192.0.2.1"},
    b"d/ip6": {"ip6": "2001:db8::1"},
    b"d/alias": {"alias": "example.com."},
    b"d/chained": {"alias": "both.bit."},
    b"d/translate": {"translate": "example.com."},
    b"d/translateandtor": {"translate": "example.com.", "map": TOR},
    b"d/translatetoboth": {"translate": "both.bit."},
    b"d/dotted": {"ip": "192.0.2.1", "map": {"_tor": {"txt": ONION + "."}}},
    b"d/aliasandtor": {"alias": "example.com.", "map": TOR},
    b"d/upper": {"ip": "192.0.2.1", "map": {"_tor": {"txt": ONION.upper()}}},
    b"d/delegated": {"ns": ["ns.example.com"]},
    b"d/delegatedtor": {"ns": ["ns.example.com"], "map": TOR},
    b"d/internal": {"ip": "10.0.0.1"},
    b"d/empty": {},
    b"d/notjson": b"not json",
    b"d/down": TemporaryFailure(),
    b"d/slow": TemporaryFailure(kind=ErrorKind.NAME_TIMEOUT),
    b"d/old": Absent(ErrorKind.NAME_EXPIRED),
    b"d/young": Absent(ErrorKind.NAME_UNCONFIRMED),
}


class _Chain:
    """A backend with a fixed chain."""

    async def lookup(self, name: bytes, key: IsolationKey) -> Found | Absent:
        value = CHAIN.get(name, Absent(ErrorKind.NAME_ABSENT))
        if isinstance(value, Exception):
            raise value
        if isinstance(value, Absent):
            return value
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        return Found(data, 100, "00" * 32, 1000, Evidence.FULL_NODE)

    async def close(self) -> None:
        return None


async def say(name: str) -> Resolved:
    isolator, output = Isolator(), bytearray()
    resolver = Resolver(_Chain(), isolator, policy=Policy(allow_clearnet_alias=True))
    plugin = Plugin(resolver, parse_bit_name, isolator, output.extend)
    plugin.feed(f"RESOLVE 1 {name} 6f-1\n".encode())
    await until(lambda: output)
    answer = parse_answer(bytes(output)[:-1])
    assert isinstance(answer, Resolved)
    return answer


@pytest.mark.parametrize(
    ("name", "result"),
    [
        ("both.bit", ONION),
        ("BOTH.Bit.", ONION),
        ("both.bit.onion", ONION),
        ("malformed.bit", "192.0.2.1"),
        ("ip.bit", "192.0.2.1"),
        ("ip6.bit", "2001:db8::1"),
        ("alias.bit", "example.com"),
        ("chained.bit", ONION),  # ncprop279 hands the other .bit name out
        ("www.translate.bit", "www.example.com"),
        ("aliasandtor.bit", ONION),
        ("upper.bit", ONION),  # ncprop279 does not recognise it
        ("dotted.bit", "192.0.2.1"),
        ("translatetoboth.bit", ONION),  # as `_tor` below it, which ncprop279 finds as well
    ],
)
async def test_answers(name: str, result: str) -> None:
    assert await say(name) == Resolved(1, 0, result.encode())


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("ip.bit.onion", 3),
        ("absent.bit", 3),
        ("old.bit", 3),
        ("young.bit", 3),
        ("empty.bit", 3),
        ("translate.bit", 3),  # DNAME does not apply to its owner
        ("translateandtor.bit", 3),
        ("delegated.bit", 3),
        ("delegatedtor.bit", 3),
        ("example.com", 2),
        ("notjson.bit", 3),
        ("down.bit", 1),
        ("internal.bit", 3),  # ncprop279 answers with the address: DNS rebinding
        ("slow.bit", 4),  # never said by ncprop279
    ],
)
async def test_failures(name: str, status: int) -> None:
    answer = await say(name)
    assert answer.status == status
    assert name.encode() not in answer.result
