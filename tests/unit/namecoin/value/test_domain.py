"""How a `d/` value is put together: maps, suppression, imports, and hostile values."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isoproxy.errors import ErrorKind, NamingError
from isoproxy.namecoin.value.domain import MAX_NAMES, MAX_OBJECTS, Domain
from tests.kit.onion_address import onion_address
from tests.unit.namecoin.value.inquiry import NO_VALUES, at, drive, encode, texts

ONION = onion_address(bytes(range(32)))


def ips(value: Any, labels: str = "", values: dict[str, Any] | None = None) -> list[str]:
    return texts(at(value, labels, values or {})).get("A", [])


# --- structure (rules 1 and 2) ---------------------------------------------------------


def test_a_map_holds_the_labels_below() -> None:
    value = {"ip": "192.0.2.1", "map": {"www": {"ip": "192.0.2.2", "map": {"a": "192.0.2.3"}}}}
    assert ips(value) == ["192.0.2.1"]
    assert ips(value, "www") == ["192.0.2.2"]
    assert ips(value, "a.www") == ["192.0.2.3"]
    assert not at(value, "b").exists
    assert not at(value, "b.a.www").exists


def test_the_empty_label_is_merged_into_its_parent_which_wins() -> None:
    value = {"ip6": "::1", "map": {"": {"ip": "192.0.2.1", "ip6": "::2", "map": {"": "192.0.2.9"}}}}
    assert texts(at(value)) == {"A": ["192.0.2.1"], "AAAA": ["::1"]}
    assert ips({"map": {"": "192.0.2.43", "www": "192.0.2.44"}}) == ["192.0.2.43"]
    assert ips({"map": {"": {"map": {"www": "192.0.2.5"}}}}, "www") == ["192.0.2.5"]


@pytest.mark.parametrize(
    ("item", "value", "rdtype"),
    [
        ("alias", "a", "CNAME"),
        ("translate", "a", "DNAME"),
        ("tls", [[3, 1, 1, "AAAA" * 10 + "AAA="]], "TLSA"),
        ("ns", "a", "NS"),
    ],
)
def test_no_item_is_lost_in_the_empty_label(item: str, value: Any, rdtype: str) -> None:
    assert list(texts(at({"map": {"": {item: value}}}))) == [rdtype]


def test_a_wildcard_stands_for_one_label_that_is_not_there() -> None:
    value = {"map": {"*": {"ip": "192.0.2.1"}, "www": {"ip": "192.0.2.2"}}}
    assert ips(value, "any") == ["192.0.2.1"]
    assert ips(value, "www") == ["192.0.2.2"]
    assert not at(value, "b.any").exists
    nested = {"map": {"*": {"map": {"*": "192.0.2.3"}}}}
    assert ips(nested, "b.a") == ["192.0.2.3"]
    assert texts(at({"map": {"*": {"map": {"w": {"alias": "x"}}}}}, "w.foo")) == {
        "CNAME": ["x.foo.example.bit."]
    }


@pytest.mark.parametrize(
    "value",
    [
        {"map": []},
        {"map": "192.0.2.1"},
        {"map": {"www": 5}},
        {"map": {"www": ["192.0.2.1"]}},
        {"map": {"www": None}},
        {"map": {"a.b": "192.0.2.1"}},
        {"map": {"WWW": "192.0.2.1"}},
        {"map": {"www*": "192.0.2.1"}},
        {"map": None},
    ],
)
def test_what_is_no_map_or_no_label_gives_no_names(value: Any) -> None:
    node = at(value, "www")
    assert not node.exists
    assert node.records.is_empty
    assert len(drive(Domain("example", encode(value)).zone())[0]) == 1


# --- suppression (rule 3) --------------------------------------------------------------

EVERYTHING = {
    "ip": "192.0.2.1",
    "txt": "t",
    "tor": ONION,
    "ds": [[1, 8, 1, "AAECAwQFBgcICQoLDA0ODxAREhM="]],
    "map": {
        "www": {"ip": "192.0.2.2", "tor": ONION, "map": {"ns": {"ip": "192.0.2.7", "txt": "t"}}},
        "_tor": {"txt": ONION},
    },
}


def test_a_delegation_hides_all_but_itself_and_its_glue() -> None:
    value = EVERYTHING | {"ns": ["ns.www", "ns.example.com."], "translate": "a.", "alias": "b."}
    apex = at(value)
    assert set(texts(apex)) == {"NS", "DS"}
    assert apex.delegated
    assert apex.redirect is None
    for labels in ("www", "_tor", "none"):
        below = at(value, labels)
        assert below.delegated
        assert texts(below) == {}
    assert texts(at(value, "ns.www")) == {"A": ["192.0.2.7"]}
    assert apex.records.tor == at(value, "www").records.tor == [ONION]
    assert set(texts(at({"ns": "@", "ip": "192.0.2.1", "txt": "t"}))) == {"NS", "A"}


def test_a_translation_hides_all_and_carries_what_is_below_elsewhere() -> None:
    value = EVERYTHING | {"translate": "other.bit.", "alias": "b."}
    apex = at(value)
    assert texts(apex) == {"DNAME": ["other.bit."]}
    assert apex.redirect is None
    assert apex.records.tor == [ONION]
    assert at(value, "www").redirect == "www.other.bit"
    assert at(value, "_tor").redirect == "_tor.other.bit"
    assert at(value, "x.y.none").redirect == "x.y.none.other.bit"
    assert texts(at(value, "www")) == {}
    assert at(value, "www").records.tor == [ONION]
    long = {"translate": ".".join(["a" * 60] * 4) + "."}
    assert at(long, "b" * 9).redirect == "b" * 9 + "." + long["translate"][:-1]
    assert at(long, "b" * 10).redirect is None


def test_an_alias_hides_what_stands_beside_it_only() -> None:
    value = EVERYTHING | {"alias": "b"}
    apex = at(value)
    assert set(texts(apex)) == {"CNAME"}
    assert apex.redirect == "b.example.bit"
    assert apex.records.tor == [ONION]
    assert texts(at(value, "_tor")) == {"TXT": [f'"{ONION}"']}
    assert ips(value, "www") == ["192.0.2.2"]


@pytest.mark.parametrize("item", ["ns", "translate", "alias"])
@pytest.mark.parametrize("wrong", ["_bad.", 5, None, [], {}])
def test_an_unusable_item_hides_nothing(item: str, wrong: Any) -> None:
    assert ips({"ip": "192.0.2.1", item: wrong}) == ["192.0.2.1"]
    assert ips({item: wrong, "map": {"www": "192.0.2.2"}}, "www") == ["192.0.2.2"]


def test_the_old_name_of_ns_wins_over_the_new() -> None:
    assert texts(at({"ns": "a", "dns": "b"})) == {"NS": ["b.example.bit."]}
    assert texts(at({"dns": "b", "ns": "a"})) == {"NS": ["b.example.bit."]}
    assert texts(at({"dns": None, "ns": "a"})) == {"NS": ["a.example.bit."]}


def test_ds_stands_with_or_without_ns() -> None:
    assert list(texts(at({"ds": EVERYTHING["ds"]}))) == ["DS"]


# --- relative names (rule 4), from real places -----------------------------------------


@pytest.mark.parametrize(
    ("value", "labels", "target"),
    [
        ({"alias": "a"}, "", "a.example.bit"),
        ({"alias": "a.@"}, "", "a.example.bit"),
        ({"map": {"www": {"alias": ""}}}, "www", "example.bit"),
        ({"map": {"www": {"alias": "b"}}}, "www", "b.example.bit"),
        ({"map": {"www": {"map": {"a": {"alias": ""}}}}}, "a.www", "www.example.bit"),
        ({"map": {"b": {"map": {"a": {"alias": "x.y"}}}}}, "a.b", "x.y.b.example.bit"),
        ({"map": {"b": {"map": {"a": {"alias": "c.@"}}}}}, "a.b", "c.example.bit"),
        ({"map": {"b": {"alias": "example2.bit."}}}, "b", "example2.bit"),
        ({"map": {"": {"alias": "a"}}}, "", "a.example.bit"),
    ],
)
def test_relative_names(value: Any, labels: str, target: str) -> None:
    assert at(value, labels).redirect == target


# --- errors and values that are no objects (rules 5 and 6) -------------------------------


@pytest.mark.parametrize("value", [b"", b"{}", b'"192.0.2.45"', b'["192.0.2.46"]', b"42", b"null"])
def test_a_value_that_is_no_object_is_a_name_without_records(value: bytes) -> None:
    node = at(value)
    assert node.exists
    assert node.records.is_empty


@pytest.mark.parametrize("value", [b"{", b" ", b"\xff", b"ip=192.0.2.1", b"[" * 1000, b" " * 2000])
def test_a_value_that_is_no_json_kills_the_name(value: bytes) -> None:
    with pytest.raises(NamingError) as caught:
        Domain("example", value)
    assert caught.value.kind is ErrorKind.NAME_INVALID_VALUE


def test_of_duplicate_keys_the_last_counts() -> None:
    assert ips(b'{"ip":"192.0.2.1","ip":"192.0.2.2"}') == ["192.0.2.2"]


def test_a_map_may_be_as_deep_as_a_value_can_hold() -> None:
    value: Any = {"ip": "192.0.2.1"}
    for _ in range(16):
        value = {"map": {"a": value}}
    assert ips(value, ".".join("a" * 16)) == ["192.0.2.1"]


# --- import ----------------------------------------------------------------------------

SHARED = {
    "dd/x": {"ip": "192.0.2.1", "map": {"sub": {"ip": "192.0.2.2", "map": {"a": "192.0.2.3"}}}},
    "dd/y": {
        "ip": "192.0.2.10",
        "ip6": "::10",
        "map": {"sub": "192.0.2.12", "a": {"map": {"b": "192.0.2.13"}}},
    },
}


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("dd/x", ["192.0.2.1"]),
        (["dd/x"], ["192.0.2.1"]),
        ([["dd/x"]], ["192.0.2.1"]),
        ([["dd/x", ""]], ["192.0.2.1"]),
        (["dd/x", ""], ["192.0.2.1"]),
        (["dd/x", "dd/y"], ["192.0.2.1"]),
        (["dd/none", "dd/y"], ["192.0.2.10"]),
        (["dd/x", "sub"], ["192.0.2.2"]),
        (["dd/x", "", ""], []),
        (["dd/x", "sub", "sub"], []),
        (["dd/none", "dd/x", ""], ["192.0.2.1"]),
        ([["dd/x"], ["dd/y", "b.a"]], ["192.0.2.1"]),
        ([["dd/y", "b.a"], ["dd/x"]], ["192.0.2.13"]),
        ([["dd/x", "sub", "junk"]], ["192.0.2.2"]),
        ([["dd/x", "a.sub"]], ["192.0.2.3"]),
        ([["dd/x", "sub.a"], ["dd/y"]], ["192.0.2.10"]),
        ([["dd/x", "SUB"]], []),
        ([["dd/x", "sub."]], []),
        ([["dd/x", 5]], []),
        ([5, None, [], [5], ["dd/y"]], ["192.0.2.10"]),
        ([], []),
        ({}, []),
        (5, []),
        ("", []),
        ("x" * 256, []),
        ("\ud800", []),
    ],
)
def test_the_forms_of_import(statement: Any, expected: list[str]) -> None:
    assert ips({"import": statement}, "", SHARED) == expected


def test_own_items_come_before_the_first_import_before_the_second() -> None:
    value = {"import": [["dd/x"], ["dd/y"]]}
    assert texts(at(value, "", SHARED)) == {"A": ["192.0.2.1"], "AAAA": ["::10"]}
    assert ips(value | {"ip": "192.0.2.99"}, "", SHARED) == ["192.0.2.99"]
    own = value | {"map": {"sub": {"txt": "own"}}}
    assert texts(at(own, "sub", SHARED)) == {"TXT": ['"own"'], "A": ["192.0.2.2"]}
    assert ips(own, "a.sub", SHARED) == ["192.0.2.3"]
    assert ips(own, "b.a", SHARED) == ["192.0.2.13"]


EVERY_ITEM: dict[str, Any] = {
    "ip": "192.0.2.1",
    "ip6": "::1",
    "alias": "a",
    "translate": "a",
    "ns": "a",
    "ds": EVERYTHING["ds"],
    "srv": [[1, 2, 3, "a"]],
    "tls": [[3, 1, 1, "AAAA" * 10 + "AAA="]],
    "txt": "t",
    "mx": [[1, "a"]],
    "loc": "1 N 2 W 3m",
    "sshfp": [[2, 9, "AAAA"]],
    "o": [[65280, "AAAA"]],
}


@pytest.mark.parametrize("item", EVERY_ITEM)
@pytest.mark.parametrize("own", [None, []])
def test_null_and_the_empty_list_occlude_what_is_imported(item: str, own: Any) -> None:
    values = {"dd/x": {item: EVERY_ITEM[item]}}
    assert len(texts(at({"import": "dd/x"}, "", values))) == 1
    assert texts(at({"import": "dd/x", item: own}, "", values)) == {}


@pytest.mark.parametrize("item", ["txt", "mx"])
def test_own_lists_replace_imported_ones(item: str) -> None:
    values = {"dd/x": {"txt": "imported", "mx": [[1, "imported"]]}}
    own = {"txt": ["own"], "mx": [[2, "own"]]}[item]
    found = texts(at({"import": "dd/x", item: own}, "", values))[item.upper()]
    assert len(found) == 1
    assert "own" in found[0]


def test_null_occludes_maps_and_labels() -> None:
    assert not at({"import": "dd/x", "map": None}, "sub", SHARED).exists
    assert not at({"import": "dd/x", "map": {"sub": None}}, "sub", SHARED).exists
    wild = {"dd/w": {"map": {"www": "192.0.2.1", "*": "192.0.2.2"}}}
    assert ips({"import": "dd/w", "map": {"www": None}}, "www", wild) == ["192.0.2.2"]


def test_tor_items_are_imported_and_occluded_too() -> None:
    values = {"dd/x": {"tor": ONION}}
    assert at({"import": "dd/x"}, "", values).records.tor == [ONION]
    assert at({"import": "dd/x", "tor": None}, "", values).records.tor == []


def test_selectors_use_wildcards_and_imports_inside() -> None:
    values = {
        "dd/w": {"map": {"*": {"ip": "192.0.2.1", "map": {"b": "192.0.2.2"}}}},
        "dd/v": {"import": "dd/w"},
    }
    assert ips({"import": [["dd/w", "any"]]}, "", values) == ["192.0.2.1"]
    assert ips({"import": [["dd/w", "*"]]}, "", values) == ["192.0.2.1"]
    assert ips({"import": [["dd/w", "b.any"]]}, "", values) == ["192.0.2.2"]
    assert ips({"import": [["dd/v", "any"]]}, "", values) == ["192.0.2.1"]
    assert ips({"import": [["dd/v", "*"]]}, "b", values) == ["192.0.2.2"]


def test_relative_names_belong_to_the_importer() -> None:
    values = {"dd/x": {"map": {"www": {"alias": "a"}}}}
    assert at({"import": "dd/x"}, "www", values).redirect == "a.example.bit"


@pytest.mark.parametrize("depth", [1, 4, MAX_NAMES - 1])
def test_imports_nest(depth: int) -> None:
    values: dict[str, Any] = {f"dd/{n}": {"import": f"dd/{n + 1}"} for n in range(depth - 1)}
    values[f"dd/{depth - 1}"] = {"ip": "192.0.2.1"}
    assert ips({"import": "dd/0"}, "", values) == ["192.0.2.1"]


@pytest.mark.parametrize("broken", [None, b"{", b"5", b"\xff", b"[]", b'{"a":' * 400])
def test_an_import_that_fails_is_skipped(broken: bytes | None) -> None:
    values = SHARED | ({} if broken is None else {"dd/broken": broken})
    value = {"import": [["dd/broken"], ["dd/x"]], "ip6": "::1"}
    assert texts(at(value, "", values)) == {"AAAA": ["::1"], "A": ["192.0.2.1"]}


def test_delegate_replaces_everything_there() -> None:
    value = {"delegate": "dd/x", "ip": "192.0.2.99", "ip6": "::1", "import": "dd/y"}
    assert texts(at(value, "", SHARED)) == {"A": ["192.0.2.1"]}
    assert ips(value, "sub", SHARED) == ["192.0.2.2"]
    assert ips({"delegate": [["dd/x", "sub"]]}, "", SHARED) == ["192.0.2.2"]
    assert ips({"delegate": None, "ip": "192.0.2.99"}, "", SHARED) == ["192.0.2.99"]
    assert ips({"map": {"w": {"delegate": "dd/x"}}}, "sub.w", SHARED) == ["192.0.2.2"]


@pytest.mark.parametrize("delegate", ["dd/none", ["dd/x", "", ""], "d/example", ["dd/x", "no"]])
def test_a_delegate_that_brings_nothing_leaves_the_items(delegate: Any) -> None:
    value = {"delegate": delegate, "ip": "192.0.2.99", "import": [["dd/x", "sub"]]}
    assert ips(value, "", SHARED) == ["192.0.2.99"]
    values = SHARED | {"dd/back": {"delegate": "d/example", "ip": "192.0.2.7"}}
    assert ips({"delegate": "dd/back", "ip": "192.0.2.99"}, "", values) == ["192.0.2.7"]


def test_a_delegate_inside_an_import_with_a_selector_is_not_lost() -> None:
    values = SHARED | {"dd/d": {"map": {"s": {"delegate": "dd/x"}}}}
    assert ips({"import": [["dd/d", "s"]]}, "", values) == ["192.0.2.1"]


# --- hostile values ----------------------------------------------------------------------


def test_loops_end_and_each_value_is_asked_for_once() -> None:
    values = {
        "dd/a": {"import": "dd/b", "ip": "192.0.2.1"},
        "dd/b": {"import": ["dd/a", "d/example"]},
    }
    domain = Domain("example", encode({"import": [["dd/a"], ["dd/b"], ["dd/a", "x"]]}))
    node, asked = drive(domain.at(()), values)
    assert texts(node) == {"A": ["192.0.2.1"]}
    assert asked == ["dd/a", "dd/b"]
    assert drive(domain.at(("x", "y")), values)[1] == []
    assert ips({"import": "d/example", "ip": "192.0.2.4"}) == ["192.0.2.4"]


def test_a_selector_that_leads_to_itself_ends() -> None:
    values = {"dd/x": {"map": {"a": {"import": [["dd/x", "a"], ["dd/x", "b"]]}, "b": "192.0.2.1"}}}
    assert ips({"import": [["dd/x", "a"]]}, "", values) == ["192.0.2.1"]


def test_more_names_than_allowed_fail_closed() -> None:
    many = {"import": [[f"dd/{n}"] for n in range(MAX_NAMES)]}
    asked: list[str] = []

    class Empty(dict[str, Any]):
        def get(self, name: str, default: Any = None) -> Any:
            asked.append(name)
            return {}

    with pytest.raises(NamingError) as caught:
        drive(Domain("example", encode(many)).at(()), Empty())
    assert caught.value.kind is ErrorKind.NAME_BUDGET
    assert len(asked) == MAX_NAMES - 1


def _bomb() -> bytes:
    return encode({"map": {chr(97 + n): {"import": "d/example"} for n in range(24)}})


def test_the_import_bomb_costs_nothing_on_the_way_to_one_name() -> None:
    assert len(_bomb()) <= 1023
    node, asked = drive(Domain("example", _bomb()).at(tuple("abcdefghijklmnop")))
    assert node.exists
    assert asked == []


@pytest.mark.parametrize(
    "value",
    [
        _bomb(),
        encode({"import": [["dd/a", c] for c in "abcdefghij"], "map": {"*": {"import": "dd/a"}}}),
        encode({"map": {"*": {"import": [["dd/a", c] for c in "abcdef"]}}}),
    ],
)
def test_bombs_are_bounded_in_time_and_memory_when_all_is_listed(value: bytes) -> None:
    wide = encode({"map": {c: {"import": [["dd/a", d] for d in "abcdef"]} for c in "abcdef"}})
    assert len(wide) <= 1023
    tracemalloc.start()
    before = time.process_time()
    try:
        nodes, _ = drive(Domain("example", value).zone(), {"dd/a": wide})
        assert len(nodes) <= MAX_OBJECTS
    except NamingError as error:
        assert error.kind is ErrorKind.NAME_BUDGET
    assert time.process_time() - before < 1.0
    assert tracemalloc.get_traced_memory()[1] < 8_000_000
    tracemalloc.stop()


def test_the_zone_lists_every_name_once_parents_first() -> None:
    value = {
        "ip": "192.0.2.1",
        "map": {
            "": {"ip6": "::1"},
            "www": {"alias": ""},
            "*": "192.0.2.2",
            "a": {"map": {"_443": {"map": {}}}},
            "bad label": "192.0.2.9",
        },
    }
    nodes, asked = drive(Domain("example", encode(value)).zone())
    assert [node.owner for node in nodes] == [
        "example.bit",
        "www.example.bit",
        "*.example.bit",
        "a.example.bit",
        "_443.a.example.bit",
    ]
    assert asked == []
    assert texts(nodes[0]) == {"A": ["192.0.2.1"], "AAAA": ["::1"]}


def listed(value: Any, values: Mapping[str, Any] = NO_VALUES) -> dict[str, list[str]]:
    """The problems of the zone, by owner."""
    nodes, _ = drive(Domain("example", encode(value)).zone(), values)
    return {node.owner: node.records.problems for node in nodes if node.records.problems}


@pytest.mark.parametrize(
    ("value", "owner", "problem"),
    [
        ({"_tor": {"txt": "x"}}, "example.bit", '"_tor": no such item; a label belongs into map'),
        ({"IP": "192.0.2.1"}, "example.bit", '"IP": items are written in lower case'),
        ({"\x1b[2J": 1}, "example.bit", '"\\u001b[2J": no such item'),
        ({"map": {"WWW": {}}}, "example.bit", 'map: no name reaches "WWW"'),
        ({"map": {"a b": {}}}, "example.bit", 'map: no name reaches "a b"'),
        ({"map": {"a.b": {}}}, "example.bit", "levels are maps in maps"),
        ({"map": {"a": 5}}, "example.bit", 'map: what stands at "a" is no object'),
        ({"import": 5}, "example.bit", "import: entry 1 is not a name"),
        ({"import": [["dd/x"], ["dd/y", 5]]}, "example.bit", "import: entry 2 is not a name"),
        ({"import": "dd/gone"}, "example.bit", "import: entry 1 does not exist"),
        ({"delegate": "dd/gone"}, "example.bit", "delegate: entry 1 does not exist"),
        ({"delegate": "d/example"}, "example.bit", "delegate: entry 1 is being imported already"),
        ({"import": ["dd/x", "no"]}, "example.bit", "import: entry 1 has nothing at its selector"),
        (
            {"map": {"_tor": {"txt": ["expyuzz4wqqyqhjn.onion"]}}},
            "_tor.example.bit",
            "txt: entry 1 is not the address of a version-3 onion service",
        ),
        (
            {"ns": "ns.example.net.", "ip": "192.0.2.1", "txt": "x"},
            "example.bit",
            "A, TXT: hidden by",
        ),
        (
            {"ns": "ns.example.net.", "map": {"www": "192.0.2.1"}},
            "www.example.bit",
            "A: hidden by what stands at example.bit",
        ),
    ],
)
def test_what_has_no_effect_is_told_with_the_reason(value: Any, owner: str, problem: str) -> None:
    problems = listed(value, SHARED)
    assert list(problems) == [owner]
    assert any(problem in one for one in problems[owner]), problems


def test_what_is_well_written_has_no_problems() -> None:
    assert listed({"import": "dd/x", "email": "a@b", "map": {"": {}, "*": {}}}, SHARED) == {}
    value = {"dns": ["ns.example.net."], "ns": "ns.example.net.", "info": {"r": 1}, "tor": ONION}
    assert listed(value) == {}


def test_a_name_that_imports_itself_below_a_map_is_listed_once() -> None:
    value = {"ip": "8.8.8.8", "map": {"www": {"import": "d/example"}}}
    nodes, _ = drive(Domain("example", encode(value)).zone(), {"d/example": value})
    assert [node.owner for node in nodes] == ["example.bit", "www.example.bit"]
    assert all(texts(node) == {"A": ["8.8.8.8"]} for node in nodes)
    assert "names below are those" in nodes[1].records.problems[0]


def test_mail_servers_follow_from_services_in_the_zone() -> None:
    services = {
        "_tcp": {"map": {"_smtp": {"srv": [[10, 1, 25, "mail.@"], [20, 1, 587, "mail.@"]]}}}
    }
    zone = drive(Domain("example", encode({"ip": "192.0.2.1", "map": services})).zone())[0]
    assert texts(zone[0]) == {"A": ["192.0.2.1"], "MX": ["10 mail.example.bit."]}
    assert len(texts(zone[2])["SRV"]) == 2
    own = drive(Domain("example", encode({"mx": [[5, "other"]], "map": services})).zone())[0]
    assert texts(own[0]) == {"MX": ["5 other.example.bit."]}
    for hidden in ({"alias": "a"}, {"ns": "a"}, {"translate": "a"}):
        zone = drive(Domain("example", encode(hidden | {"map": services})).zone())[0]
        assert "MX" not in texts(zone[0])


KEYS = st.sampled_from(
    ["map", "import", "delegate", "ip", "alias", "ns", "translate", "txt", "a", "*", ""]
)
LEAVES = (
    st.none() | st.sampled_from(["d/example", "dd/a", "dd/b", "a", "192.0.2.1", ""]) | st.integers()
)
TREES = st.dictionaries(
    KEYS,
    st.recursive(
        LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4)
    ),
    max_size=5,
)


@settings(max_examples=50)
@given(TREES, TREES, TREES, st.lists(st.sampled_from(["a", "b"]), max_size=4))
def test_no_values_break_it_and_what_is_said_depends_on_no_order(
    own: Any, first: Any, second: Any, labels: list[str]
) -> None:
    values = {"dd/a": first, "dd/b": second, "d/example": own}

    def ask(domain: Domain, path: tuple[str, ...]) -> object:
        try:
            node = drive(domain.at(path), values)[0]
        except NamingError as error:
            return error.kind
        return texts(node), node.exists, node.redirect, node.delegated

    if len(encode(own)) > 1023:
        return
    fresh = ask(Domain("example", encode(own)), tuple(labels))
    used = Domain("example", encode(own))
    ask(used, ())
    ask(used, ("b", "a"))
    if ErrorKind.NAME_BUDGET not in (fresh, again := ask(used, tuple(labels))):
        assert again == fresh
