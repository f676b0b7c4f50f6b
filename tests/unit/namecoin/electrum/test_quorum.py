"""The quorum's rules over a scripted panel: whom it asks, when it ends, why it fails."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from isoproxy.errors import DialError, ErrorKind
from isoproxy.namecoin.backend import TemporaryFailure
from isoproxy.namecoin.chain.name_script import NameOp, NameUpdate
from isoproxy.namecoin.chain.spv import Operation, ProofVerdict
from isoproxy.namecoin.electrum.lookup import StillSyncing
from isoproxy.namecoin.electrum.quorum import BESIDE_S, SILENCE_S, Quorum, ServerVerdict
from isoproxy.namecoin.electrum.servers import NameServer
from isoproxy.net.target import Target

pytestmark = pytest.mark.virtual_clock

HEDGE_S = 2.0
FOUND = ProofVerdict(Operation(100, 1, NameUpdate(b"\0" * 32, 0, NameOp.UPDATE, b"{}", ())))
ABSENT = ProofVerdict(None)
DOWN = DialError()
NEVER = 1e9

Script = tuple[float, ProofVerdict | Exception]


class Panel:
    """Servers that answer after some s; `operators` has one letter for each, `connects` the s
    that it takes to connect to the first of them."""

    def __init__(
        self,
        *script: Script,
        operators: str = "abcdefghijkl",
        connects: Sequence[float] = (),
    ) -> None:
        self._servers = [
            NameServer(Target("host", port), tls=True, declared_operator=operator)
            for port, operator in zip(range(1, len(script) + 1), operators, strict=False)
        ]
        self._script = script
        self._connects = dict(enumerate(connects, 1))
        self.connected: list[tuple[int, float]] = []
        self.asked: list[tuple[int, float]] = []
        self.under_way = 0
        self.unanswered: dict[int, float] = {}

    def candidates(self) -> Sequence[NameServer]:
        return self._servers

    async def connect(self, server: NameServer) -> None:
        number = server.target.port
        self.connected.append((number, round(asyncio.get_running_loop().time(), 1)))
        self.under_way += 1
        try:
            await asyncio.sleep(self._connects.get(number, 0.0))
        finally:
            self.under_way -= 1

    async def ask(self, server: NameServer) -> ServerVerdict:
        number = server.target.port
        self.asked.append((number, round(asyncio.get_running_loop().time(), 1)))
        delay, outcome = self._script[number - 1]
        self.under_way += 1
        try:
            await asyncio.sleep(delay)
        finally:
            self.under_way -= 1
        if isinstance(outcome, Exception):
            raise outcome
        return ServerVerdict(server, outcome)

    def hedge_delay(self) -> float:
        return HEDGE_S

    def note_unanswered(self, server: NameServer, waited: float) -> None:
        self.unanswered[server.target.port] = round(waited, 1)


async def run(panel: Panel, size: int = 2) -> list[ServerVerdict]:
    quorum = Quorum(panel, size)
    try:
        return await quorum.run()
    finally:
        await quorum.end()


async def answered(panel: Panel, size: int = 2) -> list[int]:
    """The numbers of the servers whose answers made the quorum."""
    answers = await run(panel, size)
    assert panel.under_way == 0
    return sorted(answer.server.target.port for answer in answers)


async def failure(panel: Panel, size: int = 2) -> ErrorKind:
    with pytest.raises(TemporaryFailure) as caught:
        await run(panel, size)
    assert panel.under_way == 0
    return caught.value.kind


async def test_as_many_as_needed_are_asked_at_once_and_no_more() -> None:
    panel = Panel((1, FOUND), (1, FOUND), (1, FOUND))
    assert await answered(panel) == [1, 2]
    assert panel.asked == [(1, 0.0), (2, 0.0)]


async def test_a_server_that_fails_is_replaced_at_once() -> None:
    panel = Panel((0.5, DOWN), (1, FOUND), (1, FOUND))
    assert await answered(panel) == [2, 3]
    assert panel.asked == [(1, 0.0), (2, 0.0), (3, 0.5)]


async def test_beside_a_slow_server_one_more_is_asked_and_the_slow_one_may_still_answer() -> None:
    panel = Panel((HEDGE_S + 1, FOUND), (0.5, FOUND), (60, FOUND))
    assert await answered(panel) == [1, 2]
    assert panel.asked[2] == (3, HEDGE_S + 0.5)
    assert panel.unanswered == {3: 0.5}


async def test_absence_takes_two_servers_whatever_the_quorum() -> None:
    assert await answered(Panel((1, ABSENT), (1, ABSENT)), size=1) == [1, 2]
    assert await answered(Panel((1, FOUND), (1, FOUND)), size=1) == [1]
    panel = Panel((1, ABSENT), (1, FOUND), (1, FOUND))
    assert await answered(panel, size=1) == [1, 2]


async def test_two_servers_of_one_operator_wait_for_others_that_were_asked() -> None:
    slow = (HEDGE_S + 1.5, FOUND)
    others = Panel((3, FOUND), slow, (0.5, FOUND), operators="aba")
    assert await answered(others) == [1, 2, 3]
    failing = Panel((3, FOUND), (HEDGE_S + 1.5, DOWN), (0.5, FOUND), operators="aba")
    assert await answered(failing) == [1, 3]
    silent = Panel((3, FOUND), (NEVER, FOUND), (0.5, FOUND), operators="aba")
    assert await answered(silent) == [1, 3]
    assert silent.unanswered == {2: 3 + SILENCE_S}


async def test_while_there_is_hope_of_another_operator_none_is_asked_twice() -> None:
    panel = Panel(*[(1.0, FOUND)] * 3, operators="aab", connects=(0, 0, 4))
    assert await answered(panel) == [1, 3]
    assert panel.asked == [(1, 0.0), (3, 4.0)]


async def test_where_no_other_operator_is_reached_one_is_enough() -> None:
    panel = Panel(*[(1.0, FOUND)] * 3, operators="aab", connects=(0, 0, NEVER))
    assert await answered(panel) == [1, 2]
    assert panel.asked[-1][1] == pytest.approx(SILENCE_S, abs=1.0)


async def test_the_first_that_answer_are_asked_and_silent_ones_hold_nothing_up() -> None:
    """All but two of twelve are silent; no name is told to more than it takes."""
    silent = [NEVER] * 12
    silent[7] = silent[10] = 0.5
    panel = Panel(*[(0.5, FOUND)] * 12, connects=silent)
    assert await answered(panel) == [8, 11]
    assert [number for number, _ in panel.asked] == [8, 11]
    assert panel.asked[-1][1] <= 5 * BESIDE_S + 0.5


async def test_one_that_answers_and_eleven_that_are_silent_make_a_sentence_in_15_s() -> None:
    panel = Panel(*[(0.5, FOUND)] * 12, connects=[0.5] + [NEVER] * 11)
    began = asyncio.get_running_loop().time()
    with pytest.raises(TemporaryFailure, match="1 of 2 name servers answered with a proof"):
        await run(panel)
    assert asyncio.get_running_loop().time() - began <= 15.0


async def test_connections_can_be_had_before_anything_is_asked() -> None:
    panel = Panel(*[(1.0, FOUND)] * 4, connects=(NEVER, 0.5, 0.5))
    quorum = Quorum(panel, 2)
    await quorum.connect()
    assert asyncio.get_running_loop().time() == BESIDE_S + 0.5
    assert panel.asked == []
    assert [answer.server.target.port for answer in await quorum.run()] == [2, 3]
    assert panel.asked == [(2, BESIDE_S + 0.5), (3, BESIDE_S + 0.5)]
    await quorum.end()
    assert panel.under_way == 0


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        ([(1, DOWN)] * 3, ErrorKind.NAME_BACKEND_DOWN),
        ([(1, FOUND), (1, DOWN)], ErrorKind.NAME_NO_QUORUM),
        ([(1, FOUND), (1, StillSyncing())], ErrorKind.NAME_SYNCHRONISING),
        ([(1, DialError(kind=ErrorKind.TOR_UNREACHABLE))] * 3, ErrorKind.TOR_UNREACHABLE),
        ([(1, FOUND), (1, DialError(kind=ErrorKind.STALE_KEY))], ErrorKind.STALE_KEY),
    ],
)
async def test_with_too_few_answers_it_fails_and_says_why(
    script: list[Script], kind: ErrorKind
) -> None:
    panel = Panel(*script)
    assert await failure(panel) is kind
    assert len(panel.asked) == len(script)


@pytest.mark.parametrize("size", [1, 2])
async def test_too_few_answers_are_counted_in_the_failure(size: int) -> None:
    """Also with a quorum of one, where a single server says that a name is absent."""
    with pytest.raises(TemporaryFailure, match="1 of 2 name servers answered") as failed:
        await run(Panel((1, ABSENT), (1, DOWN)), size)
    assert ("takes two servers" in str(failed.value)) is (size == 1)


async def test_its_end_ends_every_question() -> None:
    panel = Panel((NEVER, FOUND), (NEVER, FOUND))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1.0):
            await run(panel)
    assert panel.under_way == 0
    assert panel.unanswered == {1: 1.0, 2: 1.0}
