"""Questions survive their way to the main process; what is none does not arrive."""

from __future__ import annotations

from typing import Any

import pytest

from isoproxy.bitcoin.known_peers import Spoken
from isoproxy.isolation import client_of_address, client_of_uid
from isoproxy.namecoin.resolve.answer import Want
from isoproxy.net.target import MAX_NAME_LENGTH, Target
from isoproxy.workers.checked import parse
from isoproxy.workers.questions import (
    MAX_QUESTION,
    NameQuestion,
    PeerNotice,
    PeerQuestion,
    Question,
    Withdrawal,
    decode,
    encode,
)

KEY = bytes(range(48))
LONGEST = Target.parse(".".join(["a" * 49] * 5)[:MAX_NAME_LENGTH], 65535)
NAME: dict[str, Any] = {
    "ask": "name",
    "number": 1,
    "host": "d.bit",
    "port": 80,
    "want": Want.STREAM.value,
    "key": KEY.hex(),
    "client": None,
}


@pytest.mark.parametrize(
    "question",
    [
        NameQuestion(1, LONGEST, Want.ADDRESS, KEY, client_of_address("fe80::1", 7)[:17]),
        NameQuestion(2, Target.parse("d.bit", 80), Want.STREAM, KEY, client_of_uid(1000)),
        NameQuestion(3, Target.parse("d.bit", 80), Want.STREAM, KEY, None),
        PeerQuestion(4, Target.parse("::1", 8333), KEY),
        PeerNotice(Target.parse("192.0.2.1", 8333), KEY, Spoken.V1),
        Withdrawal(5),
    ],
)
def test_a_question_arrives_as_it_was(question: Question) -> None:
    message = encode(question)
    assert decode(parse(message)) == question
    assert len(message) <= MAX_QUESTION


@pytest.mark.parametrize(
    "change",
    [
        {"ask": "something else"},
        {"ask": []},
        {"number": -1},
        {"number": 1e999},
        {"number": None},
        {"host": "line\nbreak"},
        {"host": "x" * 300},
        {"host": 7},
        {"port": 65536},
        {"port": True},
        {"want": "everything"},
        {"want": None},
        {"key": "zz"},
        {"key": "00" * 129},
        {"key": []},
        {"client": "34"},
        {"client": "75ff"},
        {"client": "36" * 60},
    ],
)
def test_what_is_no_question_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  its text is for nobody
        decode(NAME | change)


@pytest.mark.parametrize("missing", sorted(NAME))
def test_a_question_lacks_nothing(missing: str) -> None:
    with pytest.raises(KeyError):
        decode({key: value for key, value in NAME.items() if key != missing})
