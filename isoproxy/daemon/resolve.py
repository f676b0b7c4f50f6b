"""`isoproxy resolve`, answered by a running isoproxy or without one: data, no text.

Each isolation ID has a key of its own, which no listener's clients have.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from isoproxy.admin.server import Answer
from isoproxy.errors import IsoproxyError, OperationError
from isoproxy.isolation import (
    ClientProtocol,
    Isolate,
    IsolationKey,
    IsolationTuple,
    Isolator,
    ListenerRule,
    own_group,
)
from isoproxy.namecoin.resolve.answer import NameAnswer
from isoproxy.namecoin.resolve.resolver import Resolver
from isoproxy.namecoin.value.name import BitName

_RULE: Final = ListenerRule(own_group("isoproxy resolve"), Isolate.SOCKS_AUTH)


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked; `isolation` None is an identity, too, and `zone` asks for all records."""

    name: str
    isolation: str | None = None
    zone: bool = False


def question_of(request: Mapping[str, Any]) -> Question:
    """The question in a request to the admin socket.  Raises OperationError."""
    name, isolation = request.get("name"), request.get("isolation")
    if not isinstance(name, str) or not (isolation is None or isinstance(isolation, str)):
        raise OperationError("name and isolation must be text")
    return Question(name, isolation, bool(request.get("zone")))


def command_key(isolator: Isolator, isolation: str | None) -> IsolationKey:
    """The key of a command's look-ups: one for each isolation ID, shared with no listener."""
    user = None if isolation is None else isolation.encode("utf-8", "surrogateescape")
    return isolator.key_for(_RULE, IsolationTuple(None, ClientProtocol.COMMAND, username=user))


async def resolve_for(resolver: Resolver, isolator: Isolator, question: Question) -> Answer:
    """Ready for JSON: the `zone` or the `resolution`, and the `problem` where there is none.

    `resolution` is the object of `resolve --json`, `zone` that of `resolve --records --json`;
    `problem` is a sentence for a person, or None.
    """
    key = command_key(isolator, question.isolation)
    try:
        name = BitName.parse(question.name)
        if question.zone:
            zone = await resolver.zone(name, key)
            return {"zone": zone.as_json(), "problem": None}
        resolution = await resolver.resolve(name, key)
    except IsoproxyError as error:
        return refusal(question.name, error)
    return {"resolution": resolution.as_json(), "problem": resolution.problem}


def refusal(name: str, error: IsoproxyError) -> Answer:
    """The answer where there is none, because of `error`."""
    return {"resolution": NameAnswer.failure(name, error).as_json(), "problem": str(error)}
