"""What a stream process asks of the main one, and how it is written: JSON.

Theory of operation
    A question has a number, which its reply names (`messages.NameReply`,
    `messages.PeerReply`).  A question that nobody waits for any more is withdrawn.  That a
    peer was proven to speak v2 is told, and has no reply.

Invariants
    What is read is checked (`checked`): a name is a destination that Tor's grammar allows,
    a client is a client field, and a key is opaque until `Isolator.import_key` has judged it.
"""

from __future__ import annotations

import json
from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from isoproxy.bitcoin.known_peers import Spoken
from isoproxy.isolation import describe_client
from isoproxy.namecoin.resolve.answer import Want
from isoproxy.net.target import Target
from isoproxy.workers.checked import count, optional, raw, target, text

MAX_QUESTION: Final = 2048
"""Bytes of a question; the longest name takes a quarter of that."""
MAX_UNDER_WAY: Final = 2048
"""Questions of one process that have neither been answered nor withdrawn."""
_MAX_KEY: Final = 128
_MAX_CLIENT: Final = 32


@dataclass(frozen=True, slots=True, repr=False)
class NameQuestion:
    """What does `name` stand for, under an exported key, for a client field?"""

    number: int
    name: Target
    want: Want
    key: bytes
    client: bytes | None


@dataclass(frozen=True, slots=True, repr=False)
class PeerQuestion:
    """What has `peer` spoken under an exported key?"""

    number: int
    peer: Target
    key: bytes


@dataclass(frozen=True, slots=True, repr=False)
class PeerNotice:
    """`peer` has spoken so under an exported key."""

    peer: Target
    key: bytes
    spoken: Spoken


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """Nobody waits for the answer to a question any more."""

    number: int


Question = NameQuestion | PeerQuestion | PeerNotice | Withdrawal


class UnderWay:
    """The questions under way, and whose they are: a client (as `IsolationKey.client` says) may
    have as many as it leaves to others.

    The main process counts a question for no longer than the one that asked it, so what is
    within this budget there is within it here.
    """

    def __init__(self, most: int) -> None:
        self._most: Final = most
        self._per_client: Counter[bytes] = Counter()
        self._total = 0

    def __len__(self) -> int:
        return self._total

    def has_room(self, client: bytes) -> bool:
        """Whether a client may ask one more."""
        return self._per_client.get(client, 0) < self._most - self._total

    def begin(self, client: bytes) -> None:
        """Count a question until `end`."""
        self._per_client[client] += 1
        self._total += 1

    def end(self, client: bytes) -> None:
        """It has its reply, or was withdrawn."""
        self._total -= 1
        self._per_client[client] -= 1
        if not self._per_client[client]:
            del self._per_client[client]


class UnsentQuestions:
    """Questions that wait for the channel, client by client in turn."""

    def __init__(self) -> None:
        self._of: OrderedDict[bytes, dict[int, Question]] = OrderedDict()

    def add(self, client: bytes, number: int, question: Question) -> None:
        """Have it wait behind the client's others."""
        self._of.setdefault(client, {})[number] = question

    def discard(self, client: bytes, number: int) -> bool:
        """Let go of one that nobody waits for; whether it was here."""
        its = self._of.get(client, {})
        if number not in its:
            return False
        del its[number]
        if not its:
            del self._of[client]
        return True

    def take(self) -> Question | None:
        """The oldest of the client whose turn it is."""
        if not self._of:
            return None
        client, its = next(iter(self._of.items()))
        number = next(iter(its))
        question = its[number]
        self._of.move_to_end(client)
        self.discard(client, number)
        return question


def encode(question: Question) -> bytes:
    """One message; at most MAX_QUESTION bytes."""
    match question:
        case NameQuestion(number, name, want, key, client):
            said: dict[str, object] = {
                "ask": "name",
                "number": number,
                "host": name.host,
                "port": name.port,
                "want": want.value,
                "key": key.hex(),
                "client": None if client is None else client.hex(),
            }
        case PeerQuestion(number, peer, key):
            said = {"ask": "peer", "number": number, **_peer(peer), "key": key.hex()}
        case PeerNotice(peer, key, spoken):
            said = {"ask": "note", **_peer(peer), "key": key.hex(), "spoken": spoken.value}
        case Withdrawal(number):
            said = {"ask": "withdraw", "number": number}
    return json.dumps(said).encode()


def decode(said: Mapping[str, Any]) -> Question:
    """The question in an object; ValueError or KeyError if it is none."""
    kind = said["ask"]
    if kind == "withdraw":
        return Withdrawal(count(said["number"]))
    where, key = target(said["host"], said["port"]), raw(said["key"], _MAX_KEY)
    if kind == "note":
        return PeerNotice(where, key, Spoken(text(said["spoken"], 8)))
    number = count(said["number"])
    if kind == "peer":
        return PeerQuestion(number, where, key)
    if kind != "name":
        raise ValueError("no such question")
    client = optional(_client, said["client"])
    return NameQuestion(number, where, Want(text(said["want"], 32)), key, client)


def _peer(peer: Target) -> dict[str, object]:
    return {"host": peer.host, "port": peer.port}


def _client(value: object) -> bytes:
    client = raw(value, _MAX_CLIENT)
    describe_client(client)  # raises ValueError for what is not a client field
    return client
