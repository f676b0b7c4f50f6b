"""What the admin socket answers to `resolve`: data."""

from __future__ import annotations

import json
from typing import Any

import pytest

from isoproxy.daemon.resolve import Question, command_key, question_of, resolve_for
from isoproxy.errors import OperationError
from isoproxy.isolation import Isolator
from isoproxy.namecoin.resolve.resolver import Resolver
from tests.unit.namecoin.kit import CountingBackend

VALUES: dict[str, Any] = {"d/example": {"ip": ["192.0.2.1", "bad"]}}


async def answer(question: Question) -> dict[str, Any]:
    isolator = Isolator()
    resolver = Resolver(CountingBackend(VALUES), isolator)
    told = await resolve_for(resolver, isolator, question)
    await resolver.close()
    return json.loads(json.dumps(told))  # type: ignore[no-any-return]


async def test_a_name_and_its_answer() -> None:
    told = await answer(Question("example.bit"))
    assert (told["resolution"]["target"], told["problem"]) == ("192.0.2.1", None)


async def test_a_zone() -> None:
    told = await answer(Question("example.bit", zone=True))
    (node,) = told["zone"]["names"]
    assert node["records"] == [{"type": "A", "data": "192.0.2.1"}]
    assert node["problems"] == ["ip: entry 2 is not an IPv4 address"]


@pytest.mark.parametrize("zone", [False, True])
@pytest.mark.parametrize(
    ("name", "reason"), [("gone.bit", "name_absent"), ("example.com", "name_syntax")]
)
async def test_why_there_is_none(name: str, reason: str, zone: bool) -> None:
    told = await answer(Question(name, zone=zone))
    assert told["resolution"]["reason"] == reason
    assert told["problem"]
    assert "zone" not in told


def test_each_isolation_id_has_a_key_and_so_has_none() -> None:
    isolator = Isolator()
    keys = {command_key(isolator, isolation).label for isolation in (None, "", "a", "A")}
    assert len(keys) == 4
    assert command_key(isolator, "a") == command_key(isolator, "a")


def test_a_question_is_text() -> None:
    asked = {"request": "resolve", "name": "a.bit", "isolation": None, "zone": True}
    assert question_of(asked) == Question("a.bit", None, zone=True)
    for wrong in ({"name": 1}, {"name": "a.bit", "isolation": 1}, {}):
        with pytest.raises(OperationError):
            question_of(wrong)
