"""What a listener counts, and that sums of processes are sums."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields

from isoproxy.errors import ErrorKind
from isoproxy.front.judgement import ProxyRequest
from isoproxy.front.statistics import (
    Counters,
    ListenerStatistics,
    destinations_without_credentials,
)
from isoproxy.isolation import (
    DEFAULT_ISOLATION,
    ClientProtocol,
    Isolate,
    IsolationTuple,
    Isolator,
    ListenerRule,
    own_group,
)
from isoproxy.net.target import Target
from isoproxy.socks import Command
from isoproxy.tls.outcome import TlsOutcome


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
    statistics.secured(TlsOutcome.RECORD)
    statistics.secured(None)
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


def test_destinations_without_credentials_are_counted_where_they_share_an_identity() -> None:
    isolator = Isolator()

    def request(host: str, user: bytes | None, isolate: Isolate) -> ProxyRequest:
        stream = IsolationTuple(b"", ClientProtocol.SOCKS5, user, user and b"1", host.encode(), 443)
        key = isolator.key_for(ListenerRule(own_group("a"), isolate), stream)
        return ProxyRequest(Command.CONNECT, Target(host, 443), key, stream, False)

    hosts = ("a.test", "b.test", "b.test", "c.test")
    by_destination = DEFAULT_ISOLATION | Isolate.DEST_ADDR
    shared = [request(host, None, DEFAULT_ISOLATION) for host in hosts]
    apart = [request(host, None, by_destination) for host in hosts]
    named = [request(host, b"alice", DEFAULT_ISOLATION) for host in (*hosts, "d.test")]
    assert destinations_without_credentials([]) == 0
    assert destinations_without_credentials(named) == 0
    assert destinations_without_credentials(apart) == 1
    assert destinations_without_credentials(shared + apart + named) == 3
