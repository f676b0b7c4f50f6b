"""What a listener counts, and that sums of processes are sums."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields

from isoproxy.errors import ErrorKind
from isoproxy.front.statistics import Counters, ListenerStatistics
from isoproxy.isolation import ClientProtocol
from isoproxy.socks import Command


def counted() -> ListenerStatistics:
    statistics = ListenerStatistics("old", Counters(1, 2, 3, 4, 5, 6, 7), Counter())
    statistics.admitted()
    statistics.greeted(ClientProtocol.SOCKS5, None)
    statistics.opened()
    statistics.dialled(0.2)
    statistics.listener = "new"
    statistics.admitted()
    statistics.answered(Command.RESOLVE, ErrorKind.BUSY)
    statistics.relayed(10, 20, (1, 2))
    return statistics


def test_a_listener_counts_under_the_name_that_it_has() -> None:
    statistics = counted()
    counters = statistics.counters
    assert statistics.accepted == {"old": 1, "new": 1}
    assert counters.handshakes == {("old", ClientProtocol.SOCKS5, None): 1}
    assert counters.requests == {
        ("old", Command.CONNECT, None): 1,
        ("new", Command.RESOLVE, ErrorKind.BUSY): 1,
    }
    assert counters.refusals == {ErrorKind.BUSY: 1}
    assert (counters.opened, counters.bytes_up, counters.bytes_down) == (2, 12, 23)
    assert (counters.spliced_up, counters.spliced_down) == (5, 7)


def test_every_count_is_in_the_sum() -> None:
    total, one = Counters(), counted().counters
    total.add(one)
    total.add(one)
    for field in fields(Counters):
        single, double = getattr(one, field.name), getattr(total, field.name)
        if isinstance(single, int):
            assert double == 2 * single > 0, field.name
        elif isinstance(single, Counter):
            assert double == {key: 2 * count for key, count in single.items()} != {}
    assert sum(total.dials.counts) == 2
