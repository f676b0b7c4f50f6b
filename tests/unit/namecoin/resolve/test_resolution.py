"""One resolution: the order of answers, redirections, policy, budgets."""

from __future__ import annotations

from typing import Any

import pytest

from isoproxy.errors import ErrorKind, NamingError
from isoproxy.isolation import IsolationKey, Isolator
from isoproxy.namecoin.backend import Absent
from isoproxy.namecoin.resolve.answer import NameAnswer, Policy, Status, TargetType, Want
from isoproxy.namecoin.resolve.cached_backend import CachedBackend, Fetched
from isoproxy.namecoin.resolve.resolution import MAX_ALIASES, MAX_FETCHES, Resolution
from isoproxy.namecoin.value.name import BitName
from tests.unit.namecoin.kit import ONION, ONION_2, found, key_of

KEY = key_of(Isolator(), "a")
SELF = "d/example"


class Table(CachedBackend):
    """Values from a table, nothing cached; what is asked of it is noted."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values
        self.asked: list[str] = []

    async def lookup(self, name: bytes, key: IsolationKey) -> Fetched:
        self.asked.append(name.decode())
        value = self.values.get(name.decode(), ErrorKind.NAME_ABSENT)
        if isinstance(value, Exception):
            raise value
        outcome = Absent(value) if isinstance(value, ErrorKind) else found(value)
        return Fetched(outcome, 10.0, False)


async def resolved(
    values: dict[str, Any],
    name: str = "example.bit",
    policy: Policy | None = None,
    want: Want = Want.STREAM,
) -> tuple[NameAnswer, list[str]]:
    table = Table(values)
    one = Resolution(table, KEY, policy or Policy())
    return await one.resolve(BitName.parse(name), want), table.asked


ALL: dict[str, Any] = {
    "ip": "192.0.2.1",
    "ip6": "2001:db8::1",
    "tor": ONION_2,
    "map": {"_tor": {"txt": ONION}},
}


def without(*items: str) -> dict[str, Any]:
    return {item: value for item, value in ALL.items() if item not in items}


@pytest.mark.parametrize(
    ("value", "target", "kind"),
    [
        (ALL, ONION, "onion"),
        (without("map"), ONION_2, "onion"),
        (without("map", "tor"), "192.0.2.1", "ip4"),
        (without("map", "tor", "ip"), "2001:db8::1", "ip6"),
        ({"alias": "a", "map": {"a": "192.0.2.7"}}, "192.0.2.7", "ip4"),
        ({"alias": "a", "map": {"_tor": {"txt": ONION}}}, ONION, "onion"),
        ({"alias": ONION + "."}, ONION, "onion"),
        (ALL | {"map": {"_tor": {"txt": "expyuzz4wqqyqhjn.onion"}}}, ONION_2, "onion"),
        ({"ip": "192.0.2.1", "map": {"_tor": {"txt": "nonsense"}}}, "192.0.2.1", "ip4"),
        ({"ns": "ns.example.com.", "tor": ONION}, ONION, "onion"),
        ({"translate": "other.bit.", "tor": ONION}, ONION, "onion"),
    ],
)
async def test_the_order_of_answers(value: Any, target: str, kind: str) -> None:
    resolution, asked = await resolved({SELF: value})
    assert (resolution.target, resolution.type) == (target, TargetType(kind))
    assert resolution.status is Status.OK
    assert resolution.reason is None
    assert resolution.height == 100
    assert resolution.expires_in == 35_000
    assert resolution.servers == ("server",)
    assert asked[0] == SELF
    assert len(asked) == len(set(asked))


async def test_a_subdomain_has_an_onion_of_its_own() -> None:
    value = {"map": {"www": {"ip": "192.0.2.1", "map": {"_tor": {"txt": ONION}}}}}
    assert (await resolved({SELF: value}, "www.example.bit"))[0].target == ONION
    assert (await resolved({SELF: value}))[0].reason is ErrorKind.NAME_NO_ADDRESS
    missing = await resolved({SELF: value}, "ftp.example.bit")
    assert missing[0].reason is ErrorKind.NAME_ABSENT
    assert missing[0].height == 100


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", ErrorKind.NAME_NO_ADDRESS),
        (b"5", ErrorKind.NAME_NO_ADDRESS),
        (b"{", ErrorKind.NAME_INVALID_VALUE),
        ({"map": {"a": "192.0.2.1"}}, ErrorKind.NAME_NO_ADDRESS),
        ({"ip": "300.1.2.3"}, ErrorKind.NAME_NO_ADDRESS),
        ({"ip": "192.168.1.1"}, ErrorKind.ADDRESS_REFUSED),
        ({"ns": "ns.example.com.", "ip": "192.0.2.1"}, ErrorKind.NAME_NO_ADDRESS),
        ({"ns": "@", "ip": "192.0.2.1"}, ErrorKind.NAME_NO_ADDRESS),
        ({"ns": "a.", "map": {"_tor": {"txt": ONION}}}, ErrorKind.NAME_NO_ADDRESS),
        ({"translate": "other.bit.", "ip": "192.0.2.1"}, ErrorKind.NAME_NO_ADDRESS),
        ({"alias": "example.com."}, ErrorKind.NOT_ALLOWED),
        ({"alias": "192.0.2.1."}, ErrorKind.NAME_NO_ADDRESS),
        ({"alias": "127.1."}, ErrorKind.NAME_NO_ADDRESS),
        ({"alias": "router.local."}, ErrorKind.NAME_NO_ADDRESS),
        ({"alias": "x.onion."}, ErrorKind.NAME_NO_ADDRESS),
        ({"alias": "123.bit."}, ErrorKind.NAME_ABSENT),
        ({"alias": "bit."}, ErrorKind.NAME_NO_ADDRESS),
        ({"alias": "gone.bit."}, ErrorKind.NAME_ABSENT),
        ({"alias": "old.bit."}, ErrorKind.NAME_EXPIRED),
        (ErrorKind.NAME_UNCONFIRMED, ErrorKind.NAME_UNCONFIRMED),
        (NamingError(kind=ErrorKind.NAME_BACKEND_DOWN), ErrorKind.NAME_BACKEND_DOWN),
    ],
)
async def test_every_way_to_have_no_answer(value: Any, reason: ErrorKind) -> None:
    resolution, _ = await resolved({SELF: value, "d/old": ErrorKind.NAME_EXPIRED})
    assert resolution.reason is reason
    assert resolution.target is None
    assert resolution.type is None


async def test_onion_only_by_name_and_by_policy() -> None:
    values = {
        SELF: without("map", "tor"),
        "d/alias": {"alias": "example.bit."},
        "d/only": {"alias": "onion.bit."},
        "d/onion": {"tor": ONION},
        "d/out": {"alias": "example.com."},
    }
    only = Policy(only_onion=True, allow_clearnet_alias=True)
    for name in ("example.bit", "alias.bit", "out.bit"):
        for resolution, _ in (
            await resolved(values, name + ".onion"),
            await resolved(values, name, only),
        ):
            assert resolution.reason is ErrorKind.NAME_NO_ADDRESS
    assert (await resolved(values, "only.bit.onion"))[0].target == ONION
    assert (await resolved(values, "only.bit", only))[0].target == ONION


async def test_an_alias_out_of_namecoin_where_policy_allows() -> None:
    allowed = Policy(allow_clearnet_alias=True)
    resolution, _ = await resolved({SELF: {"alias": "www.example.com."}}, policy=allowed)
    assert (resolution.target, resolution.type) == ("www.example.com", TargetType.ALIAS)
    translated = {SELF: {"translate": "example.com."}}
    assert (await resolved(translated, "a.b.example.bit", allowed))[0].target == "a.b.example.com"


async def test_aliases_and_translations_are_chased() -> None:
    values = {
        SELF: {"alias": "www.two.bit."},
        "d/two": {"translate": "three.bit."},
        "d/three": {"map": {"www": {"import": "dd/data"}}},
        "dd/data": {"map": {"_tor": {"txt": ONION}}},
        "d/owner": {"translate": "three.bit.", "map": {"_tor": {"txt": ONION_2}}},
    }
    resolution, asked = await resolved(values)
    assert resolution.target == ONION
    assert asked == [SELF, "d/two", "d/three", "dd/data"]
    assert (await resolved(values, "www.owner.bit"))[0].target == ONION
    values["d/three"] = {"map": {"_tor": {"txt": ONION}}}
    assert (await resolved(values, "owner.bit"))[0].target == ONION


async def test_a_translation_that_leads_nowhere_leaves_the_tor_item() -> None:
    values = {SELF: {"translate": "gone.bit.", "tor": ONION}}
    assert (await resolved(values))[0].target == ONION
    values["d/gone"] = NamingError(kind=ErrorKind.NAME_BACKEND_DOWN)  # type: ignore[assignment] # raised by fetch
    assert (await resolved(values))[0].reason is ErrorKind.NAME_BACKEND_DOWN


async def test_a_wildcard_that_catches_tor_does_not_hide_the_address() -> None:
    value: Any = {"ip": "192.0.2.1", "map": {"*": {"alias": "www"}}}
    assert (await resolved({SELF: value}))[0].target == "192.0.2.1"
    value = {"ip": "192.0.2.1", "map": {"*": {"alias": ""}}}
    assert (await resolved({SELF: value}))[0].target == "192.0.2.1"
    assert (await resolved({SELF: value}, "any.example.bit"))[0].target == "192.0.2.1"


@pytest.mark.parametrize("length", [1, 2, 3])
async def test_loops_of_aliases_end(length: int) -> None:
    values = {f"d/n{n}": {"alias": f"n{(n + 1) % length}.bit."} for n in range(length)}
    resolution, asked = await resolved(values, "n0.bit")
    assert resolution.reason is ErrorKind.NAME_BUDGET
    assert len(asked) == length


async def test_at_most_so_many_aliases() -> None:
    chain: dict[str, Any] = {f"d/n{n}": {"alias": f"n{n + 1}.bit."} for n in range(MAX_ALIASES)}
    chain[f"d/n{MAX_ALIASES}"] = {"ip": "192.0.2.1"}
    assert (await resolved(chain, "n0.bit"))[0].target == "192.0.2.1"
    chain["d/first"] = {"alias": "n0.bit."}
    assert (await resolved(chain, "first.bit"))[0].reason is ErrorKind.NAME_BUDGET


async def test_at_most_so_many_fetches() -> None:
    values: dict[str, Any] = {}
    for n in range(4):
        imports = [[f"dd/{n}-{m}"] for m in range(7)]
        values[f"d/n{n}"] = {"alias": f"n{n + 1}.bit.", "import": imports}
    resolution, asked = await resolved(values, "n0.bit")
    assert resolution.reason is ErrorKind.NAME_BUDGET
    assert len(asked) == MAX_FETCHES


async def test_an_import_that_cannot_be_had_now_fails_the_whole() -> None:
    values = {
        SELF: {"ip": "192.0.2.1", "import": "dd/x"},
        "dd/x": NamingError(kind=ErrorKind.NAME_BACKEND_DOWN),
    }
    assert (await resolved(values))[0].reason is ErrorKind.NAME_BACKEND_DOWN
    values["dd/x"] = ErrorKind.NAME_EXPIRED
    assert (await resolved(values))[0].target == "192.0.2.1"


async def test_addresses_for_resolve() -> None:
    resolution, _ = await resolved({SELF: ALL}, want=Want.ADDRESS)
    assert resolution.target == "192.0.2.1"
    for value in ({"tor": ONION}, {"alias": ONION + "."}):
        resolution, _ = await resolved({SELF: value}, want=Want.ADDRESS)
        assert resolution.reason is ErrorKind.NAME_NO_ADDRESS


RECORD = [3, 1, 1, "AAECAwQF"]
DATA = b"\x03\x01\x01\x00\x01\x02\x03\x04\x05"


def https(*records: object, **items: object) -> dict[str, Any]:
    """A value with `items` that says `records` of the certificate of its HTTPS server."""
    return {**items, "map": {"_tcp": {"map": {"_443": {"tls": list(records)}}}}}


@pytest.mark.parametrize(
    ("values", "tlsa"),
    [
        ({SELF: https(RECORD, ip="192.0.2.1")}, (DATA,)),
        ({SELF: https(RECORD, [2, 0, 1, "AA=="], tor=ONION)}, (DATA, b"\x02\x00\x01\x00")),
        ({SELF: {"ip": "192.0.2.1", "tls": [RECORD]}}, ()),
        ({SELF: {"ip": "192.0.2.1"}}, ()),
        ({SELF: https(RECORD, alias="other.bit."), "d/other": {"ip": "192.0.2.1"}}, (DATA,)),
        (
            {
                SELF: https([3, 1, 1, "Bw=="], alias="other.bit."),
                "d/other": https(RECORD, ip="192.0.2.1"),
            },
            (DATA,),
        ),
        ({SELF: {**https(RECORD, ip="192.0.2.1"), "ns": "ns.test."}}, ()),
    ],
)
async def test_a_site_is_where_it_is_and_what_its_name_says_of_it(
    values: dict[str, Any], tlsa: tuple[bytes, ...]
) -> None:
    """Of a name that is an alias, what it leads to comes first (RFC 7671 §7)."""
    answer, _ = await resolved(values, want=Want.SITE)
    if "ns" in values[SELF]:
        assert (answer.status, answer.tlsa) == (Status.ABSENT, ())
        return
    assert answer.status is Status.OK
    assert answer.tlsa == tlsa
    plain, _ = await resolved(values)
    assert (plain.target, plain.tlsa) == (answer.target, ())


async def test_what_a_name_says_of_its_certificate_has_to_be_known() -> None:
    """A record that cannot be had for now is no record that is not there."""
    below = {"_tcp": {"map": {"_443": {"alias": "other.bit."}}}}
    redirected = {SELF: {"ip": "192.0.2.1", "map": below}}
    gone, _ = await resolved(redirected, want=Want.SITE)
    assert (gone.status, gone.tlsa) == (Status.OK, ())
    failing = {**redirected, "d/other": NamingError(kind=ErrorKind.NAME_BACKEND_DOWN)}
    answer, _ = await resolved(failing, want=Want.SITE)
    assert answer.status is Status.FAILED
