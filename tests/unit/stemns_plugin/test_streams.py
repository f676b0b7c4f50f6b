"""The life of streams: what is done for honest lines, and that forged ones change nothing."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoproxy.errors import ErrorKind
from isoproxy.net.target import Target
from isoproxy.sharing import SharingTable
from stemns_plugin.lookup_shares import MAX_LOOKUPS, MAX_LOOKUPS_OF_ONE
from stemns_plugin.streams import (
    MAX_REMEMBERED,
    Abandon,
    Action,
    Attach,
    Close,
    CloseReason,
    LookUp,
    Redirect,
    Streams,
)
from stemns_plugin.suffix_router import SuffixRouter

ISO = (
    b" CLIENT_PROTOCOL=SOCKS5 NYM_EPOCH=%d SESSION_GROUP=-6"
    b" ISO_FIELDS=SOCKS_USERNAME,SOCKS_PASSWORD,CLIENTADDR,SESSION_GROUP,NYM_EPOCH"
)
ONION = "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid.onion"
CLOSED = CloseReason.RESOLVEFAILED


class _Tor:
    """Tells a `Streams` what a Tor would, and lists what Tor has."""

    def __init__(self, **options: bool) -> None:
        self.streams = Streams(SuffixRouter({}).is_ours, SharingTable(), **options)
        self.listed: dict[int, bytes] = {}
        self.forged: list[bytes] = []
        assert self.look() == []  # the first listing is asked for at once

    def say(self, line: bytes, epoch: int = 0) -> None:
        self.streams.on_line(line + ISO % epoch)

    def look(self, mappings: Iterable[bytes] = ()) -> list[Action]:
        """One listing, if it is wanted."""
        if not self.streams.wants_listing:
            return []
        self.streams.begin_listing()
        lines = [b"250+stream-status=", *self.forged, *self.listed.values(), b".", b"250 OK"]
        return self.streams.on_listing(lines, mappings)

    def new(
        self,
        number: int,
        target: bytes,
        *,
        status: bytes = b"NEW",
        source: bytes = b"127.0.0.1:5",
        user: bytes = b"",
        epoch: int = 0,
    ) -> list[Action]:
        """A new stream that waits."""
        head = b"650 STREAM %d %s 0 %s" % (number, status, target)
        name = b' SOCKS_USERNAME="%s"' % user if user else b""
        self.listed[number] = b"%d %s 0 %s" % (number, status, target)
        self.say(head + b" SOURCE_ADDR=" + source + b" PURPOSE=USER" + name, epoch)
        return self.wait(number, target, epoch)

    def wait(self, number: int, target: bytes, epoch: int = 0) -> list[Action]:
        self.say(b"650 STREAM %d CONTROLLER_WAIT 0 %s" % (number, target), epoch)
        return self.look()

    def isolation(self, number: int, target: bytes = b"a.bit:80", **fields: object) -> bytes:
        (action,) = self.new(number, target, **fields)  # type: ignore[arg-type]  # test fields
        assert isinstance(action, LookUp)
        return action.isolation


def looked_up(actions: list[Action]) -> list[str]:
    return [action.name for action in actions if isinstance(action, LookUp)]


@pytest.mark.parametrize(
    "target", [b"a.test:80", b"192.0.2.1:443", b"[2001:db8::1]:80", b"x.onion:1", b"a.bits:80"]
)
def test_what_is_not_ours_is_attached_at_once(target: bytes) -> None:
    assert _Tor().new(5, target) == [Attach(5)]


@pytest.mark.parametrize(
    ("target", "name"),
    [
        (b"example.bit:80", "example.bit"),
        (b"EXAMPLE.BIT:80", "example.bit"),
        (b"example.bit.:80", "example.bit"),
        (b"example.bit..:80", "example.bit"),
        (b"www.Example.Bit.:80", "www.example.bit"),
        (b"example.bit.onion:80", "example.bit.onion"),
        (b"example.bit.ONION.:80", "example.bit.onion"),
    ],
)
def test_ours_is_looked_up_whatever_its_spelling(target: bytes, name: str) -> None:
    assert looked_up(_Tor().new(5, target)) == [name]


def test_an_onion_service_with_a_final_dot_never_reaches_an_exit() -> None:
    for written in (ONION.encode() + b".", ONION.upper().encode() + b".."):
        assert _Tor().new(5, written + b":80") == [Redirect(5, ONION)]
        assert _Tor().new(5, written + b":0", status=b"NEWRESOLVE") == [Close(5, CLOSED)]
        tor = _Tor()
        tor.streams.automaps = True
        assert tor.new(5, written + b":0", status=b"NEWRESOLVE") == [Redirect(5, ONION)]
    for alone in (b"onion", b"Onion."):
        assert _Tor().new(5, alone + b":80") == [Close(5, CLOSED)]


@pytest.mark.parametrize("host", [ONION, "dest.test", "192.0.2.77", "2001:db8::7"])
def test_found_is_redirected(host: str) -> None:
    tor = _Tor()
    tor.new(5, b"a.bit:80")
    assert tor.streams.on_found(5, Target.parse(host, 0)) == [Redirect(5, host)]
    assert tor.streams.on_found(5, Target.parse(host, 0)) == []
    assert tor.streams.lookups == 0


@pytest.mark.parametrize("host", ["b.bit", "b.bit.", "b.bit.onion", "b.i2p", "localhost"])
def test_what_must_not_reach_an_exit_is_never_redirected_to(host: str) -> None:
    tor = _Tor()
    tor.new(5, b"a.bit:80")
    assert tor.streams.on_found(5, Target.parse(host, 0)) == [Close(5, CLOSED)]


@pytest.mark.parametrize("host", ["127.0.0.1", "10.0.0.1", "::1", "169.254.1.1", "0.0.0.0"])
def test_internal_addresses_are_refused_unless_allowed(host: str) -> None:
    for allowed, expected in (
        (False, [Close(5, CloseReason.EXITPOLICY)]),
        (True, [Redirect(5, host)]),
    ):
        tor = _Tor(allow_internal=allowed)
        tor.new(5, b"a.bit:80")
        assert tor.streams.on_found(5, Target.parse(host, 0)) == expected


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (ErrorKind.NAME_ABSENT, CloseReason.RESOLVEFAILED),
        (ErrorKind.NAME_TIMEOUT, CloseReason.TIMEOUT),
        (ErrorKind.ADDRESS_REFUSED, CloseReason.EXITPOLICY),
        (ErrorKind.INTERNAL, CloseReason.RESOLVEFAILED),
    ],
)
def test_a_failed_lookup_closes_the_stream(kind: ErrorKind, reason: CloseReason) -> None:
    tor = _Tor()
    tor.new(5, b"a.bit:80")
    assert tor.streams.on_failed(5, kind) == [Close(5, reason)]
    assert tor.streams.on_failed(5, kind) == []


def test_no_reason_is_success() -> None:
    assert 0 not in set(CloseReason)


def test_a_resolve_stream_gets_an_address_or_nothing() -> None:
    for host, expected in (
        (ONION, [Close(5, CLOSED)]),
        ("192.0.2.7", [Redirect(5, "192.0.2.7")]),
        ("dest.test", [Redirect(5, "dest.test")]),
    ):
        tor = _Tor()
        (action,) = tor.new(5, b"a.bit:0", status=b"NEWRESOLVE")
        assert isinstance(action, LookUp)
        assert action.wants_address
        assert tor.streams.on_found(5, Target.parse(host, 0)) == expected


@pytest.mark.parametrize(
    ("target", "passes"),
    [
        (b"192.0.2.1:0", True),
        (b"10.0.0.1:0", False),
        (b"127.0.0.1:0", False),
        (b"[fe80::1]:0", False),
        (b"8.8.8.8.in-addr.arpa:0", True),
        (b"1.0.168.192.in-addr.arpa:0", False),
        (b"1.0.168.192.IN-ADDR.ARPA.:0", False),
        (b"10.in-addr.arpa:0", False),
        (b"x.in-addr.arpa:0", False),
        (b"b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.0.0.0.0.1.2.3.4.ip6.arpa:0", True),
        (b"1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.ip6.arpa:0", False),
        (b"1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.e.f.ip6.arpa:0", False),
    ],
)
def test_reverse_lookups_of_internal_addresses_are_closed(target: bytes, passes: bool) -> None:
    expected: Action = Attach(5) if passes else Close(5, CloseReason.EXITPOLICY)
    assert _Tor().new(5, target, status=b"NEWRESOLVE") == [expected]


def test_after_a_failed_attempt_the_stream_is_attached_again() -> None:
    tor = _Tor()
    tor.new(25, b"nx.test:80")
    tor.say(b"650 STREAM 25 SENTCONNECT 7 nx.test:80")
    tor.say(b"650 STREAM 25 DETACHED 7 nx.test:80 REASON=END REMOTE_REASON=RESOLVEFAILED")
    assert tor.look() == []
    assert tor.wait(25, b"nx.test:80") == [Attach(25)]


def test_after_a_failed_attempt_a_redirected_stream_goes_where_it_was_redirected() -> None:
    tor = _Tor()
    tor.new(25, b"a.bit:80")
    tor.streams.on_found(25, Target.parse("dest.test", 0))
    tor.listed[25] = b"25 NEW 0 dest.test:80"
    assert tor.wait(25, b"dest.test:80") == [Attach(25)]


def test_waiting_again_during_a_lookup_starts_no_second_one() -> None:
    tor = _Tor()
    tor.new(5, b"a.bit:80")
    assert tor.wait(5, b"a.bit:80") == []


def test_a_stream_that_ends_during_its_lookup_abandons_it() -> None:
    tor = _Tor()
    tor.new(5, b"a.bit:80")
    del tor.listed[5]
    tor.say(b"650 STREAM 5 CLOSED 0 a.bit:80 REASON=DONE")
    assert tor.look() == [Abandon(5)]
    assert tor.streams.on_found(5, Target.parse(ONION, 0)) == []


def test_streams_that_wait_already_are_found_at_the_start() -> None:
    tor = _Tor.__new__(_Tor)
    tor.streams = Streams(SuffixRouter({}).is_ours, SharingTable())
    tor.forged = []
    tor.listed = {
        1: b"1 NEW 0 a.test:80",
        2: b"2 NEW 0 a.bit:80",
        3: b"3 SUCCEEDED 5 b.test:80",
        4: b"4 NEWRESOLVE 0 b.bit:0",
    }
    actions = tor.look()
    assert [action.stream for action in actions] == [1, 2, 4]
    assert looked_up(actions) == ["a.bit", "b.bit"]


# -- isolation


def test_isolation_follows_user_source_and_epoch() -> None:
    tor = _Tor()
    same = tor.isolation(1, user=b"u")
    assert tor.isolation(2, user=b"u", target=b"b.bit:443") == same
    others = {
        tor.isolation(3, user=b"v"),
        tor.isolation(4, user=b"u", source=b"127.0.0.2:5"),
        tor.isolation(5, user=b"u", epoch=1),
        tor.isolation(6),
    }
    assert len(others | {same}) == 5


def test_the_source_address_comes_from_the_new_event() -> None:
    tor = _Tor()
    assert tor.isolation(1, source=b"10.0.0.1:1") != tor.isolation(2, source=b"10.0.0.2:1")
    assert tor.isolation(3, source=b"10.0.0.1:9") == tor.isolation(4, source=b"10.0.0.1:8")


def test_a_stream_whose_new_event_was_missed_shares_with_nobody() -> None:
    tor = _Tor()
    ids = {tor.isolation(1)}
    for number in (2, 3):
        tor.listed[number] = b"%d NEW 0 a.bit:80" % number
        (action,) = tor.wait(number, b"a.bit:80")
        assert isinstance(action, LookUp)
        ids.add(action.isolation)
    assert len(ids) == 3


# -- forgeries


def test_a_forged_wait_for_another_target_attaches_nothing_unresolved() -> None:
    tor = _Tor()
    tor.new(5, b"victim.bit:80")
    assert tor.wait(5, b"innocent.test:80") == []
    tor.streams.on_failed(5, ErrorKind.NAME_BACKEND_DOWN)
    assert looked_up(tor.wait(5, b"innocent.test:80")) == ["victim.bit"]


def test_a_forged_new_cannot_change_a_target_nor_join_a_group() -> None:
    tor = _Tor()
    evil = tor.isolation(1, user=b"evil")
    tor.say(b"650 STREAM 2 NEW 0 elsewhere.test:80 SOURCE_ADDR=127.0.0.1:1")
    tor.say(b'650 STREAM 2 NEW 0 a.bit:80 SOURCE_ADDR=127.0.0.1:1 SOCKS_USERNAME="evil"')
    (action,) = tor.new(2, b"a.bit:80", user=b"good")
    assert isinstance(action, LookUp)
    assert action.name == "a.bit"
    assert action.event is None
    assert action.isolation not in {evil, tor.isolation(3, user=b"good")}


def test_a_new_event_with_another_target_than_is_listed_says_nothing_of_the_stream() -> None:
    """Not even where it is the only one: the genuine one may have been lost."""
    tor = _Tor()
    evil = tor.isolation(1, user=b"evil")
    tor.say(b'650 STREAM 2 NEW 0 b.bit:80 SOURCE_ADDR=127.0.0.1:1 SOCKS_USERNAME="evil"')
    tor.listed[2] = b"2 NEW 0 a.bit:80"
    (action,) = tor.wait(2, b"a.bit:80")
    assert isinstance(action, LookUp)
    assert (action.name, action.event) == ("a.bit", None)
    assert action.isolation != evil


def test_forged_news_cannot_crowd_out_the_genuine_one() -> None:
    tor = _Tor()
    evil = tor.isolation(1, user=b"evil")
    for number in range(10):
        tor.say(b"650 STREAM 2 NEW 0 x%d.test:80 SOURCE_ADDR=127.0.0.1:1" % number)
        tor.say(b'650 STREAM 2 NEW 0 a.bit:80 SOURCE_ADDR=127.0.0.1:1 SOCKS_USERNAME="evil"')
    (action,) = tor.new(2, b"a.bit:80", user=b"good")
    assert isinstance(action, LookUp)
    assert action.event is None
    assert action.isolation != evil


def test_a_stream_cannot_name_its_own_origin_and_epoch() -> None:
    tor = _Tor()
    victim = tor.isolation(1, user=b"u")
    tor.listed[18] = b"18 NEWRESOLVE 0 a.bit:0"  # and what its name holds behind a line break
    tor.streams.on_line(b"650 STREAM 18 NEWRESOLVE 0 a.bit:0")
    head = b"650 STREAM 18 NEWRESOLVE 0 a.bit:0 SOURCE_ADDR=127.0.0.1:5"
    tor.say(head + b' SOCKS_USERNAME="u"', epoch=7)
    (action,) = tor.wait(18, b"a.bit:0", epoch=7)
    assert isinstance(action, LookUp)
    assert action.event is None
    assert tor.isolation(2, user=b"u") == victim


def test_a_forged_end_abandons_nothing() -> None:
    tor = _Tor()
    tor.new(5, b"a.bit:80")
    tor.say(b"650 STREAM 5 CLOSED 0 a.bit:80 REASON=DONE")
    assert tor.look() == []
    assert tor.streams.on_found(5, Target.parse(ONION, 0)) == [Redirect(5, ONION)]


def test_streams_that_tor_does_not_list_are_left_alone() -> None:
    tor = _Tor()
    tor.say(b"650 STREAM 99 NEW 0 a.bit:80 SOURCE_ADDR=127.0.0.1:5")
    assert tor.wait(99, b"a.bit:80") == []
    assert tor.wait(98, b"a.test:80") == []


def test_a_stream_that_is_attached_already_is_left_alone() -> None:
    tor = _Tor()
    tor.listed[7] = b"7 SUCCEEDED 3 a.test:80"
    assert tor.wait(7, b"a.test:80") == []


@pytest.mark.parametrize(
    "line",
    [
        b"650 STREAM 18 NEWRESOLVE 0 a",
        b"650 STREAM 18 NEW 0 caf\xe9.bit:80",
        b"650 STREAM 18 NEW 0 a b.test:80",
        b"650 STREAM 18 NEW 0 " + b"a" * 250 + b".test",
    ],
)
def test_a_stream_whose_line_does_not_parse_is_closed(line: bytes) -> None:
    tor = _Tor()
    tor.listed[18] = line.removeprefix(b"650 STREAM ")
    tor.streams.on_line(line)
    assert tor.look() == [Close(18, CLOSED)]


def test_a_malformed_line_about_a_good_stream_changes_nothing() -> None:
    tor = _Tor()
    tor.streams.on_line(b"650 STREAM 5 NEW 0 a")
    assert looked_up(tor.new(5, b"a.bit:80")) == ["a.bit"]
    tor.streams.on_line(b"650 STREAM 5 CONTROLLER_WAIT 0 x")
    assert tor.look() == []


def test_while_claims_differ_nothing_is_done_and_the_forger_is_closed() -> None:
    tor = _Tor()
    tor.listed[18] = b"18 NEWRESOLVE 0 a:0"
    tor.forged = [b"9 NEW 0 innocent.test:80"]
    tor.streams.on_line(b"650 STREAM 18 NEWRESOLVE 0 a:0")
    tor.streams.on_line(b"9 NEW 0 innocent.test:80")
    assert tor.new(9, b"victim.bit:80") == [Close(18, CLOSED)]
    del tor.listed[18]
    tor.forged = []
    assert tor.streams.wants_listing
    assert looked_up(tor.look()) == ["victim.bit"]


def test_claims_that_go_on_to_differ_end_the_stream_and_the_asking() -> None:
    tor = _Tor()
    tor.forged = [b"9 NEW 0 innocent.test:80"]
    actions = tor.new(9, b"victim.bit:80")
    for _ in range(10):
        actions += tor.look()
    assert actions == [Close(9, CLOSED)]
    assert not tor.streams.wants_listing


def test_virtual_addresses_are_looked_through() -> None:
    tor = _Tor()
    tor.listed[5] = b"5 NEW 0 10.206.129.52:80"
    tor.say(b"650 STREAM 5 CONTROLLER_WAIT 0 10.206.129.52:80")
    mappings = [b"10.206.129.52 foo.bit NEVER", b"10.206.129.53 other.test NEVER"]
    assert looked_up(tor.look(mappings)) == ["foo.bit"]
    tor.listed[6] = b"6 NEW 0 10.206.129.53:80"
    tor.say(b"650 STREAM 6 CONTROLLER_WAIT 0 10.206.129.53:80")
    assert tor.look(mappings) == [Attach(6)]
    tor.listed[7] = b"7 NEW 0 10.206.129.52:80"
    tor.say(b"650 STREAM 7 CONTROLLER_WAIT 0 10.206.129.52:80")
    assert tor.look([*mappings, b"10.206.129.52 forged.test NEVER"]) == [Close(7, CLOSED)]


@pytest.mark.parametrize("host", [b"[fea3:7bae::1]", b"[FEA3:7BAE::1]", b"fea3:7bae::1"])
def test_virtual_addresses_of_ipv6_are_looked_through(host: bytes) -> None:
    tor = _Tor()
    tor.listed[5] = b"5 NEW 0 %s:80" % host
    tor.say(b"650 STREAM 5 CONTROLLER_WAIT 0 %s:80" % host)
    assert looked_up(tor.look([b"[fea3:7bae::1] foo.bit NEVER"])) == ["foo.bit"]


def test_a_mapping_forged_by_a_streams_name_maps_nothing() -> None:
    tor = _Tor()
    forged = [b"250+address-mappings/all=", b"192.0.2.1 evil.bit NEVER"]
    genuine = [b"250+address-mappings/all=", b"10.206.129.52 foo.bit NEVER", b".", b"250 OK"]
    streams = [b"250+stream-status=", b"18 NEWRESOLVE 0 a", *forged, b"5 NEW 0 192.0.2.1:80"]
    tor.listed[5] = b"5 NEW 0 192.0.2.1:80"
    tor.say(b"650 STREAM 5 CONTROLLER_WAIT 0 192.0.2.1:80")
    assert tor.look([*streams, b".", *genuine]) == [Attach(5)]


_lines = st.one_of(
    st.binary(max_size=60),
    st.builds(
        lambda number, status, host, tail: (
            b"650 STREAM %d %s 0 %s:80%s" % (number, status, host, ISO % 0 if tail else b"")
        ),
        st.integers(1, 4),
        st.sampled_from([b"NEW", b"NEWRESOLVE", b"CONTROLLER_WAIT", b"CLOSED", b"DETACHED"]),
        st.sampled_from([b"a.bit", b"b.test", b"a b", b"A.BIT.", b"10.0.0.1"]),
        st.booleans(),
    ),
)


_forgeries = st.lists(st.tuples(_lines, st.booleans()), max_size=20)


@given(_forgeries, _forgeries)
def test_forged_lines_change_nothing_for_honest_streams(
    before: list[tuple[bytes, bool]], after: list[tuple[bytes, bool]]
) -> None:
    """Streams 1 and 2 are honest: listed, and announced; all else is forged."""
    tor = _Tor()
    actions: list[Action] = []

    def forge(lines: list[tuple[bytes, bool]]) -> None:
        for line, look in lines:
            tor.streams.on_line(line)
            actions.extend(tor.look() if look else ())

    forge(before)
    actions += tor.new(1, b"victim.bit:80") + tor.new(2, b"b.test:80")
    forge(after)
    actions += tor.look()
    assert [action for action in actions if action.stream == 1] == [
        action for action in actions if isinstance(action, LookUp)
    ]
    assert looked_up(actions) == ["victim.bit"]
    assert {action for action in actions if action.stream == 2} == {Attach(2)}
    assert {action.stream for action in actions} == {1, 2}


# -- bounds


def test_streams_of_tors_own_are_left_alone() -> None:
    tor = _Tor()
    target = b"127.135.90.4.$E8138FCA3C3BBE9413304CDF7A74F71E3A2E6D9E.exit:9001"
    tor.listed[38] = b"38 NEW 0 " + target
    tor.streams.on_line(
        b"650 STREAM 38 NEW 0 " + target + b" PURPOSE=DIR_FETCH CLIENT_PROTOCOL=UNKNOWN"
        b" NYM_EPOCH=0 SESSION_GROUP=-2 ISO_FIELDS="
    )
    assert tor.look() == []


def test_what_is_remembered_is_bounded() -> None:
    tor = _Tor()
    for number in range(MAX_REMEMBERED + 100):
        tor.say(b"650 STREAM %d NEW 0 a.test:80 SOURCE_ADDR=127.0.0.1:5" % number)
    assert len(tor.streams._remembered) == MAX_REMEMBERED
    for number in range(50):
        tor.say(b'650 STREAM 1 NEW 0 a.test:80 SOCKS_USERNAME="%d"' % number)
    assert len(tor.streams._remembered[1].candidates) <= 4


def test_lookups_under_way_are_bounded() -> None:
    tor = _Tor()
    for number in range(MAX_LOOKUPS + 1):
        tor.listed[number] = b"%d NEW 0 a.bit:80" % number
        client = number // MAX_LOOKUPS_OF_ONE
        tor.say(b"650 STREAM %d NEW 0 a.bit:80 SOURCE_ADDR=192.0.2.%d:5" % (number, client))
        tor.say(b"650 STREAM %d CONTROLLER_WAIT 0 a.bit:80" % number)
    actions = tor.look()
    assert len(looked_up(actions)) == MAX_LOOKUPS
    assert actions[-1] == Close(MAX_LOOKUPS, CloseReason.TIMEOUT)


@pytest.mark.parametrize("certain", [True, False])
def test_streams_beyond_the_share_of_a_client_wait(certain: bool) -> None:
    tor = _Tor()
    count = MAX_LOOKUPS_OF_ONE + 3
    for number in range(count):
        tor.listed[number] = b"%d NEW 0 a.bit:80" % number
        if certain:
            tor.say(b"650 STREAM %d NEW 0 a.bit:80 SOURCE_ADDR=192.0.2.1:5" % number)
        tor.say(b"650 STREAM %d CONTROLLER_WAIT 0 a.bit:80" % number)
    assert len(looked_up(tor.look())) == MAX_LOOKUPS_OF_ONE
    assert looked_up(tor.new(count, b"a.bit:80", source=b"192.0.2.2:5")) == ["a.bit"]
    first, gone, last = range(MAX_LOOKUPS_OF_ONE, count)
    tor.streams.on_failed(0, ErrorKind.NAME_ABSENT)
    assert tor.streams.wants_listing
    (action,) = tor.look()
    assert isinstance(action, LookUp)
    assert action.stream == first
    del tor.listed[gone]
    tor.streams.on_failed(1, ErrorKind.NAME_ABSENT)
    assert tor.look() == []  # the turn was for the one that is gone
    (action,) = tor.look()
    assert isinstance(action, LookUp)
    assert action.stream == last


def test_a_resolve_of_an_onion_gets_a_virtual_address_where_tor_gives_one() -> None:
    tor = _Tor()
    tor.streams.automaps = True
    tor.new(5, b"a.bit:0", status=b"NEWRESOLVE")
    assert tor.streams.on_found(5, Target.parse(ONION, 0)) == [Redirect(5, ONION)]


def test_hints_beyond_the_limit_make_it_look_at_everything(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("stemns_plugin.streams.MAX_HINTS", 2)
    tor = _Tor()
    for number in range(5):
        tor.listed[number] = b"%d NEW 0 a.test:80" % number
        tor.say(b"650 STREAM %d CONTROLLER_WAIT 0 a.test:80" % number)
    assert tor.look() == [Attach(number) for number in range(5)]
