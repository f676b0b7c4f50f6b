"""`isoproxy resolve` prints one answer, one object, or one zone."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from isoproxy.cli.resolve_text import print_answer
from isoproxy.daemon.resolve import Question, resolve_for
from isoproxy.isolation import Isolator
from isoproxy.namecoin.resolve.resolver import Resolver
from tests.unit.namecoin.kit import ONION, CountingBackend

VALUES: dict[str, Any] = {
    "d/example": {
        "ip": ["192.0.2.1", "bad"],
        "i2p": "a" * 52 + ".b32.i2p",
        "map": {"www": {"tor": ONION, "txt": "a\x1b[2J"}, "in": {"ip": "10.0.0.1"}},
    }
}


async def run(name: str, *, zone: bool = False, as_json: bool = False) -> tuple[int, str, str]:
    isolator = Isolator()
    out, err = io.StringIO(), io.StringIO()
    resolver = Resolver(CountingBackend(VALUES), isolator)
    answer = await resolve_for(resolver, isolator, Question(name, zone=zone))
    told = json.loads(json.dumps(answer))  # as it comes over the admin socket
    code = print_answer(told, as_json=as_json, out=out, err=err)
    return code, out.getvalue(), err.getvalue()


async def test_the_answer_alone() -> None:
    assert await run("example.bit") == (0, "192.0.2.1\n", "")
    assert await run("www.example.bit") == (0, ONION + "\n", "")


@pytest.mark.parametrize(
    ("name", "wanted", "text"),
    [
        ("gone.bit", 1, "not registered"),
        ("in.example.bit", 1, "is private"),
        ("a--b.bit", 1, "not registered"),
        ("example.com", 2, "under bit"),
    ],
)
async def test_failures_say_why_on_stderr(name: str, wanted: int, text: str) -> None:
    code, out, err = await run(name)
    assert (code, out) == (wanted, "")
    assert err.startswith("isoproxy resolve: ")
    assert text in err


async def test_one_json_object_in_any_case() -> None:
    code, out, err = await run("www.example.bit", as_json=True)
    assert (code, err) == (0, "")
    assert json.loads(out) == {
        "name": "www.example.bit",
        "status": "ok",
        "target": ONION,
        "type": "onion",
        "height": 100,
        "expires_in": 35_000,
        "evidence": "spv-12conf",
        "servers": ["server"],
        "cached": False,
        "reason": None,
    }
    for name, wanted, status, reason in (
        ("gone.bit", 1, "absent", "name_absent"),
        ("in.example.bit", 1, "failed", "address_refused"),
        ("example.com", 2, "failed", "name_syntax"),
    ):
        code, out, _ = await run(name, as_json=True)
        answer = json.loads(out)
        assert (code, answer["status"], answer["reason"]) == (wanted, status, reason)


async def test_the_whole_zone() -> None:
    code, out, err = await run("example.bit", zone=True)
    assert code == 0
    assert out.splitlines() == [
        "; height 100, expires in 35000 blocks, spv-12conf",
        "example.bit. IN A 192.0.2.1",
        "; example.bit. i2p " + "a" * 52 + ".b32.i2p",
        'www.example.bit. IN TXT "a\\027[2J"',
        f"; www.example.bit. tor {ONION}",
        "in.example.bit. IN A 10.0.0.1",
    ]
    assert err == "; example.bit. ip: entry 2 is not an IPv4 address\n"


async def test_the_whole_zone_as_json() -> None:
    code, out, err = await run("example.bit", zone=True, as_json=True)
    zone = json.loads(out)
    assert (code, err) == (0, "")
    assert zone["height"] == 100
    assert [entry["name"] for entry in zone["names"]] == [
        "example.bit",
        "www.example.bit",
        "in.example.bit",
    ]
    assert zone["names"][0]["records"] == [{"type": "A", "data": "192.0.2.1"}]
    assert zone["names"][0]["problems"] == ["ip: entry 2 is not an IPv4 address"]
    assert zone["names"][1]["tor"] == [ONION]


async def test_a_zone_that_cannot_be_had() -> None:
    code, out, err = await run("gone.bit", zone=True, as_json=True)
    assert code == 1
    assert json.loads(out)["status"] == "absent"
    assert "not registered" in err


def test_an_output_that_is_closed_is_no_error() -> None:
    answer = {"resolution": {"target": None, "status": "absent", "reason": "name_absent"}}
    assert print_answer(answer | {"problem": "gone"}, as_json=True, out=None, err=None) == 1
