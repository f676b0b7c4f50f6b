from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from isoproxy.isolation import Isolator
from isoproxy.namecoin.electrum.scores import (
    LAST_RETRY_S,
    LIE_S,
    SUSPICION_S,
    KeyScores,
    Scores,
)
from isoproxy.namecoin.electrum.servers import NameServer, parse_server

ONION = parse_server(f"{'a' * 56}.onion:50001:t")
A, B, C = (parse_server(f"{name}.example:50002:s", name) for name in "abc")
B2 = parse_server("b2.example:50002:s", "b")


def scores(*servers: NameServer) -> Scores:
    return Scores(servers, random.Random(1))


def test_onion_services_first_then_at_random() -> None:
    table = scores(A, B, ONION)
    firsts = {tuple(server.label for server in table.ranked(0)) for _ in range(50)}
    assert {order[0] for order in firsts} == {ONION.label}
    assert len(firsts) == 2


def test_what_a_key_already_uses_comes_before_its_equals() -> None:
    table = scores(A, B, C)
    for _ in range(20):
        assert table.ranked(0, bound=[C.label])[0] is C


FOUND_OUT: list[Callable[[Scores], None]] = [
    lambda table: table.record_invalid_proof(A, 0.0),
    lambda table: table.failed(A, 0.0),
    lambda table: table.mark_lagging(A, 0.0),
    lambda table: table.was_slow(A, 30.0),
]


@pytest.mark.parametrize("find_out", FOUND_OUT, ids=["lied", "failed", "suspect", "slow"])
def test_what_one_key_finds_out_changes_nothing_for_another(
    find_out: Callable[[Scores], None],
) -> None:
    isolator, common = Isolator(), scores(A, B)
    keys = KeyScores(common)
    one, two = (keys.of(isolator.own_key(name)) for name in ("one", "two"))
    for _ in range(10):
        find_out(one)
    assert one.choose(1.0, bound=[A.label]) == [B, A]
    for table in (two, common):
        assert {table.choose(1.0)[0].label for _ in range(30)} == {A.label, B.label}
        assert table.choose(1.0, bound=[A.label]) == [A, B]


def test_a_server_that_refuses_our_clocks_is_down_for_all_but_those_who_have_it() -> None:
    common = scores(A, B)
    key = KeyScores(common).of(Isolator().own_key("one"))
    for _ in range(2):
        common.failed(A, 0.0)
        assert {key.choose(1e6)[0].label for _ in range(30)} == {A.label, B.label}
    common.failed(A, 0.0)
    assert {key.choose(1e6)[0].label for _ in range(30)} == {B.label}
    assert key.choose(1e6, bound=[A.label]) == [A, B]
    common.answered(A, 0.1, 0.0)
    assert {key.choose(1e6)[0].label for _ in range(30)} == {A.label, B.label}


def test_of_keys_only_so_many_are_remembered_and_none_after_a_new_epoch() -> None:
    isolator = Isolator()
    keys = KeyScores(scores(A, B), max_keys=2)
    first, second, third = (isolator.own_key(name) for name in ("one", "two", "three"))
    keys.of(first).record_invalid_proof(A, 0.0)
    keys.of(second).record_invalid_proof(B, 0.0)
    assert keys.of(first).of(A).lies == 1
    keys.of(third)
    assert len(list(keys)) == 2
    assert keys.of(first).of(A).lies == 1
    assert keys.of(second).of(B).lies == 0
    keys.forget()
    assert not list(keys)


def test_failures_wait_longer_each_time_and_success_forgives() -> None:
    table = scores(A, B)
    waits = []
    for _ in range(15):
        table.failed(A, 100.0)
        waits.append(table.of(A).retry_at - 100.0)
    assert waits[0] < 3
    assert waits[4] > waits[0] * 4
    assert waits[-1] <= LAST_RETRY_S * 1.25
    assert not table.is_due(A, 101.0)
    assert table.ranked(101.0)[0] is B
    table.answered(A, 0.1, 0.0)
    assert table.is_due(A, 101.0)


def test_a_liar_is_left_alone_for_a_day_whatever_it_says_later() -> None:
    table = scores(A, B)
    table.record_invalid_proof(A, 0.0)
    table.failed(B, 0.0)
    table.answered(A, 0.01, 0.0)
    assert table.ranked(1.0) == [B, A]
    assert not table.is_due(A, LIE_S - 1)
    assert table.is_due(A, LIE_S)


def test_a_slow_server_and_a_suspect_come_later() -> None:
    table = scores(A, B, C)
    for _ in range(20):
        table.answered(A, 9.0, 0.0)
        table.answered(B, 0.2, 0.0)
    table.mark_lagging(C, 0.0)
    assert table.ranked(1.0) == [B, A, C]
    assert table.ranked(SUSPICION_S)[-1] is A


def test_a_server_that_kept_a_look_up_waiting_comes_later_at_once() -> None:
    table = scores(A, B)
    table.answered(A, 0.1, 0.0)
    table.was_slow(A, 2.5)
    assert table.ranked(0.0) == [B, A]
    for _ in range(3):
        table.answered(A, 0.1, 0.0)
    assert {table.ranked(0.0)[0].label for _ in range(30)} == {A.label, B.label}


def test_different_operators_are_heard_first() -> None:
    table = scores(B, B2, C)
    for _ in range(20):
        order = table.choose(0)
        assert order[0].operator != order[1].operator
        assert len(order) == 3


def test_a_server_that_is_not_due_does_not_silence_its_operator() -> None:
    table = scores(B, B2)
    table.failed(B, 0.0)
    assert table.choose(1.0)[0] is B2


def test_what_unwanted_keys_know_is_forgotten_alone() -> None:
    isolator = Isolator()
    keys = KeyScores(scores(A, B))
    first, second = (isolator.own_key(name) for name in ("one", "two"))
    for key in (first, second):
        keys.of(key).record_invalid_proof(A, 0.0)
    isolator.renew(first.label)
    keys.keep(isolator.is_current)
    assert len(list(keys)) == 1
    assert keys.of(second).of(A).lies == 1
