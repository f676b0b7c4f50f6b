"""The plugin: each query answered once, none in the way of another, isolation kept."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from typing import BinaryIO

import pytest

from isoproxy.errors import OUTCOMES, DialError, ErrorKind, NamingError
from isoproxy.isolation import IsolationKey, Isolator
from isoproxy.namecoin.resolve.answer import NameAnswer, Status, TargetType, Want
from isoproxy.namecoin.resolve.cached_backend import MAX_IN_FLIGHT
from isoproxy.namecoin.value.name import BitName
from prop279.plugin import Plugin, parse_bit_name, serve
from prop279.protocol import Canceled, Init, PluginAnswer, Resolved, parse_answer
from tests.kit.waiting import until

ONION = "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid.onion"


class _Resolver:
    """Answers by a function of the name; remembers who asked under which key."""

    def __init__(self, find: Callable[[str], Awaitable[str]]) -> None:
        self._find = find
        self.asked: list[tuple[str, IsolationKey]] = []
        self.cancelled = 0
        self.known: dict[tuple[str, IsolationKey], NameAnswer] = {}

    def lookup_cached(self, name: BitName, key: IsolationKey) -> NameAnswer | None:
        return self.known.get((str(name), key))

    async def resolve(
        self, name: BitName, key: IsolationKey, want: Want = Want.STREAM
    ) -> NameAnswer:
        self.asked.append((str(name), key))
        try:
            found = await self._find(str(name))
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return NameAnswer(str(name), Status.OK, found, TargetType.ALIAS)


def fixed(target: str | BaseException) -> _Resolver:
    async def find(name: str) -> str:
        if isinstance(target, BaseException):
            raise target
        return target

    return _Resolver(find)


async def never(name: str) -> str:
    await asyncio.Event().wait()
    return ONION


class _Talk:
    """A plugin whose answers are collected."""

    def __init__(self, resolver: _Resolver, timeout: float = 60.0) -> None:
        self.resolver = resolver
        self.output = bytearray()
        self.plugin = Plugin(
            resolver, parse_bit_name, Isolator(), self.output.extend, timeout=timeout
        )

    async def say(self, *lines: bytes) -> None:
        self.plugin.feed(b"".join(line + b"\n" for line in lines))
        for _ in range(5):
            await asyncio.sleep(0)

    @property
    def answers(self) -> list[PluginAnswer | None]:
        return [parse_answer(line) for line in bytes(self.output).split(b"\n")[:-1]]

    @property
    def statuses(self) -> dict[int, int]:
        return {a.query: a.status for a in self.answers if isinstance(a, Resolved)}


async def test_greets_and_answers() -> None:
    talk = _Talk(fixed(ONION))
    talk.plugin.greet()
    await talk.say(b"RESOLVE 1 example.bit 6f-1")
    assert talk.answers == [Init(b"1", 0), Resolved(1, 0, ONION.encode())]


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ("EXAMPLE.com", b"example.com"),
        ("[2001:DB8::1]", b"2001:db8::1"),
        ("192.0.2.1", b"192.0.2.1"),
    ],
)
async def test_results_are_written_in_canonical_form(given: str, written: bytes) -> None:
    talk = _Talk(fixed(given))
    await talk.say(b"RESOLVE 1 example.bit i")
    assert talk.answers == [Resolved(1, 0, written)]


@pytest.mark.parametrize("target", ["a b", "a\nRESOLVED 2 0 x.onion", "", "a" * 300, "caf\xe9.com"])
async def test_a_result_that_is_no_host_is_a_failure(target: str) -> None:
    talk = _Talk(fixed(target))
    await talk.say(b"RESOLVE 1 example.bit i")
    (answer,) = talk.answers
    assert isinstance(answer, Resolved)
    assert answer.status != 0


@pytest.mark.parametrize("kind", list(ErrorKind))
async def test_every_failure_has_its_status(kind: ErrorKind) -> None:
    talk = _Talk(fixed(NamingError(kind=kind)))
    await talk.say(b"RESOLVE 1 example.bit i")
    assert talk.statuses == {1: OUTCOMES[kind].prop279}


@pytest.mark.parametrize("kind", [ErrorKind.NAME_ABSENT, ErrorKind.NAME_BACKEND_DOWN])
async def test_a_resolution_without_an_answer_has_its_status(kind: ErrorKind) -> None:
    class Failing(_Resolver):
        async def resolve(
            self, name: BitName, key: IsolationKey, want: Want = Want.STREAM
        ) -> NameAnswer:
            return NameAnswer.failure(str(name), NamingError(kind=kind))

    talk = _Talk(Failing(never))
    await talk.say(b"RESOLVE 1 example.bit i")
    assert talk.statuses == {1: OUTCOMES[kind].prop279}


async def test_a_burst_under_one_id_waits_for_its_turn() -> None:
    """A resolver takes so many look-ups of one key at once, and refuses more."""
    under_way, most, go = 0, 0, asyncio.Event()

    async def find(name: str) -> str:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await go.wait()
        under_way -= 1
        return ONION

    talk = _Talk(_Resolver(find))
    await talk.say(*(b"RESOLVE %d n%d.bit i" % (number, number) for number in range(200)))
    assert most == MAX_IN_FLIGHT
    await talk.say(b"RESOLVE 1000 example.bit other")
    assert under_way == MAX_IN_FLIGHT + 1
    go.set()
    for _ in range(10):
        await talk.say()
    assert talk.statuses == dict.fromkeys([*range(200), 1000], 0)
    assert len(talk.plugin._turns) == 0


def test_the_statuses_people_rely_on() -> None:
    expected = {
        ErrorKind.NAME_ABSENT: 3,
        ErrorKind.NAME_EXPIRED: 3,
        ErrorKind.NAME_UNCONFIRMED: 3,
        ErrorKind.NAME_NO_ADDRESS: 3,
        ErrorKind.NAME_INVALID_VALUE: 3,
        ErrorKind.NAME_BACKEND_DOWN: 1,
        ErrorKind.NAME_TIMEOUT: 4,
        ErrorKind.DIAL_TIMEOUT: 4,
    }
    assert {kind: OUTCOMES[kind].prop279 for kind in expected} == expected


@pytest.mark.parametrize("error", [DialError(), RuntimeError("x"), KeyError("y")])
async def test_a_failing_resolver_harms_its_query_alone(error: Exception) -> None:
    talk = _Talk(fixed(error))
    await talk.say(b"RESOLVE 1 example.bit i", b"RESOLVE 2 example.com i")
    assert talk.statuses == {1: 1, 2: 2}


@pytest.mark.parametrize(
    "name",
    [b"example.com", b"bit", b"example.bit.com", b"x.onion", b"examplebit", b"127.0.0.1", b"."],
)
async def test_names_of_others_are_not_looked_up(name: bytes) -> None:
    talk = _Talk(fixed(ONION))
    await talk.say(b"RESOLVE 1 " + name + b" i")
    assert talk.statuses == {1: 2}
    assert talk.resolver.asked == []


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (b"a/b.bit", ErrorKind.NAME_SYNTAX),
        (b'"x".bit', ErrorKind.NAME_SYNTAX),
        (b"caf\xc3\xa9.bit", ErrorKind.NAME_SYNTAX),
        (b"..bit", ErrorKind.NAME_ABSENT),
        (b"a--b.bit", ErrorKind.NAME_ABSENT),
    ],
)
async def test_names_that_cannot_be_are_refused(name: bytes, kind: ErrorKind) -> None:
    talk = _Talk(fixed(ONION))
    await talk.say(b"RESOLVE 1 " + name + b" i")
    assert talk.statuses == {1: OUTCOMES[kind].prop279}
    assert talk.resolver.asked == []


@pytest.mark.parametrize("spelt", ["w.a.bit", "W.A.BIT", "w.a.bit."])
def test_case_and_dots_do_not_matter(spelt: str) -> None:
    assert parse_bit_name(spelt) == BitName("a", ("w",))


@pytest.mark.parametrize("name", ["a.com", "bit", ".", "a.bits", "a.onion"])
def test_names_of_others_are_left_to_tor(name: str) -> None:
    with pytest.raises(NamingError) as caught:
        parse_bit_name(name)
    assert caught.value.kind is ErrorKind.NAME_NEVER_SENT_TO_TOR


@pytest.mark.virtual_clock
async def test_a_slow_name_is_a_timeout_and_delays_nobody() -> None:
    async def find(name: str) -> str:
        return await never(name) if name == "slow.bit" else ONION

    talk = _Talk(_Resolver(find), timeout=30)
    await talk.say(
        b"RESOLVE 0 slow.bit i", *(b"RESOLVE %d a.bit i" % number for number in range(1, 101))
    )
    assert talk.statuses == dict.fromkeys(range(1, 101), 0)
    await asyncio.sleep(31)
    assert talk.statuses[0] == 4
    assert talk.plugin.running == 0


async def test_cancel_is_honoured_and_answered_once() -> None:
    talk = _Talk(_Resolver(never))
    await talk.say(b"RESOLVE 1 a.bit i")
    await talk.say(b"CANCEL 1")
    await talk.say(b"CANCEL 1", b"CANCEL 2")
    assert talk.answers == [Canceled(1)]
    assert talk.resolver.cancelled == 1
    assert talk.plugin.running == 0


async def test_a_query_number_in_use_is_refused_and_free_again_afterwards() -> None:
    talk = _Talk(_Resolver(never))
    await talk.say(b"RESOLVE 1 a.bit i")
    await talk.say(b"RESOLVE 1 b.bit i")
    assert talk.statuses == {1: 1}
    await talk.say(b"CANCEL 1", b"RESOLVE 1 c.bit i")
    assert [name for name, _ in talk.resolver.asked] == ["a.bit", "c.bit"]
    talk.plugin.close()


async def test_lines_without_meaning_are_ignored_and_unusable_queries_refused() -> None:
    talk = _Talk(fixed(ONION))
    await talk.say(b"", b"HELLO", b"RESOLVE", b"RESOLVE x a.bit", b"CANCEL x", b"RESOLVE 3")
    assert list(talk.statuses) == [3]
    assert talk.statuses[3] == OUTCOMES[ErrorKind.NAME_SYNTAX].prop279


async def test_many_queries_with_cancels_are_each_answered_once() -> None:
    rng = random.Random(5)

    async def find(name: str) -> str:
        for _ in range(rng.randrange(4)):
            await asyncio.sleep(0)
        if rng.random() < 0.2:
            raise NamingError(kind=rng.choice([ErrorKind.NAME_ABSENT, ErrorKind.NAME_TIMEOUT]))
        return ONION

    talk = _Talk(_Resolver(find))
    lines: list[bytes] = []
    for number in range(2_000):
        lines.append(b"RESOLVE %d n%d.bit id-%d" % (number, number % 50, number % 7))
        if number % 2:
            lines.append(b"CANCEL %d" % rng.randrange(max(0, number - 20), number + 1))
    for start in range(0, len(lines), 40):
        await talk.say(*lines[start : start + 40])
    await until(lambda: not talk.plugin.running)
    answered = Counter(
        answer.query for answer in talk.answers if isinstance(answer, Resolved | Canceled)
    )
    assert answered == Counter(range(2_000))
    kinds = Counter(type(answer).__name__ for answer in talk.answers)
    assert kinds["Canceled"] > 20
    assert kinds["Resolved"] > 1_000


async def test_the_isolation_id_makes_the_key() -> None:
    talk = _Talk(fixed(ONION))
    await talk.say(b"RESOLVE 1 a.bit x", b"RESOLVE 2 b.bit x", b"RESOLVE 3 a.bit y")
    one, two, three = (key for _, key in talk.resolver.asked)
    assert one == two != three


async def test_what_is_known_under_the_key_is_answered_at_once_and_under_no_other() -> None:
    talk = _Talk(_Resolver(never))
    await talk.say(b"RESOLVE 1 a.bit x")
    ((name, key),) = talk.resolver.asked
    talk.resolver.known[name, key] = NameAnswer(name, Status.OK, ONION, TargetType.ONION)
    await talk.say(b"RESOLVE 2 a.bit x", b"RESOLVE 3 a.bit y")
    assert talk.statuses == {2: 0}
    assert talk.plugin.running == 2
    talk.plugin.close()


async def test_a_new_epoch_makes_new_keys() -> None:
    isolator, resolver = Isolator(), fixed(ONION)
    plugin = Plugin(resolver, parse_bit_name, isolator, lambda data: None)
    for _ in range(2):
        plugin.feed(b"RESOLVE 1 a.bit x\n")
        await asyncio.sleep(0.01)
        isolator.new_epoch()
    one, two = (key for _, key in resolver.asked)
    assert one != two


async def test_queries_without_an_id_share_with_nobody_and_warn_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    talk = _Talk(fixed(ONION))
    with caplog.at_level(logging.WARNING, logger="isoproxy"):
        await talk.say(*(b"RESOLVE %d a.bit" % number for number in range(5)))
    await talk.say(b"RESOLVE 9 a.bit 1")
    assert len({key for _, key in talk.resolver.asked}) == 6
    assert len(caplog.records) == 1
    assert "a.bit" not in str([vars(record) for record in caplog.records])


async def test_closing_abandons_what_is_under_way() -> None:
    talk = _Talk(_Resolver(never))
    await talk.say(b"RESOLVE 1 a.bit i")
    talk.plugin.close()
    await asyncio.sleep(0)
    assert talk.answers == []
    assert talk.resolver.cancelled == 1


# -- through real pipes


class _Pipes:
    """Two pipes, ours and the plugin's ends."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        def files() -> tuple[BinaryIO, BinaryIO]:
            reading, writing = os.pipe()
            return (
                stack.enter_context(os.fdopen(reading, "rb", buffering=0)),
                stack.enter_context(os.fdopen(writing, "wb", buffering=0)),
            )

        self.stdin, self.commands = files()
        self.answers, self.stdout = files()


@pytest.fixture
def pipes() -> Iterator[_Pipes]:
    with contextlib.ExitStack() as stack:
        yield _Pipes(stack)


async def test_serves_pipes_until_their_end(pipes: _Pipes) -> None:
    serving = asyncio.create_task(
        serve(fixed(ONION), parse_bit_name, Isolator(), pipes.stdin, pipes.stdout)
    )
    pipes.commands.write(b"RESOLVE 1 a.bit i\n")
    wanted = b"INIT 1 0\nRESOLVED 1 0 " + ONION.encode() + b"\n"
    read = b""
    while len(read) < len(wanted):
        read += await asyncio.to_thread(pipes.answers.read, 4096)
    assert read == wanted
    pipes.commands.close()
    await asyncio.wait_for(serving, 5)


async def test_ends_when_nobody_reads_the_answers(pipes: _Pipes) -> None:
    serving = asyncio.create_task(
        serve(fixed(ONION), parse_bit_name, Isolator(), pipes.stdin, pipes.stdout)
    )
    await asyncio.sleep(0.05)
    pipes.answers.close()
    pipes.commands.write(b"RESOLVE 1 a.bit i\nRESOLVE 2 a.bit i\n")
    await asyncio.wait_for(serving, 5)


async def test_a_program_that_does_not_read_is_not_read_from(pipes: _Pipes) -> None:
    resolver = _Resolver(never)
    serving = asyncio.create_task(
        serve(resolver, parse_bit_name, Isolator(), pipes.stdin, pipes.stdout, max_queries=10)
    )
    os.set_blocking(pipes.commands.fileno(), False)
    sent = 0
    for _ in range(50):
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(pipes.commands.fileno(), b"RESOLVE %018d a.bit i\n" % sent)
                sent += 1
        await asyncio.sleep(0.001)
    # at most what one read of 256 kB holds, though several times as much could be written
    assert 10 <= len(resolver.asked) <= 256 * 1024 // 34 + 10
    before = len(resolver.asked)
    await asyncio.sleep(0.05)
    assert len(resolver.asked) == before
    serving.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await serving
