"""The policy of the control filter, as a table."""

from __future__ import annotations

import pytest

from isoproxy.net.target import Target
from isoproxy.sharing import StreamFields, mask_of
from stemns_plugin.filter_policy import (
    Attached,
    ClientView,
    Closed,
    Effect,
    Offer,
    Quit,
    Redirected,
    Subscribed,
    judge,
)
from stemns_plugin.grammar import StreamEvent

FIELDS = StreamFields(b"127.0.0.2", None, None, b"SOCKS5", b"a.bit", 80, -6, 0)
MASK = mask_of(["SESSION_GROUP", "NYM_EPOCH"])


INFO = {
    b"version": b"0.4.9.11",
    b"status/bootstrap-phase": b'NOTICE BOOTSTRAP PROGRESS=100 TAG=done SUMMARY="Done"',
}
CONF = {b"__leavestreamsunattached": b"__LeaveStreamsUnattached=1"}


def view() -> ClientView:
    """Stream 5, untouched; stream 6, redirected; offer 9, ended."""

    def event(number: int) -> StreamEvent:
        return StreamEvent(number, b"NEW", b"a.bit", 80, FIELDS, MASK, b"127.0.0.2", b"USER")

    offers = {5: Offer(event(5)), 6: Offer(event(6), Target.parse("x.onion", 0))}
    return ClientView(offers, {9, 5}, INFO, CONF)


@pytest.mark.parametrize(
    ("line", "reply", "effect"),
    [
        # what a controller of names needs
        (b"PROTOCOLINFO 1", b"250-PROTOCOLINFO 1", None),
        (b"AUTHENTICATE", b"250 OK", None),
        (b"authenticate 00ff", b"250 OK", None),
        (b"USEFEATURE VERBOSE_NAMES", b"250 OK", None),
        (b"GETINFO version", b"250-version=0.4.9", None),
        (b"GETINFO status/bootstrap-phase", b"250-status/bootstrap-phase=NOTICE", None),
        (b"GETINFO stream-status", b"250+stream-status=\r\n5 NEW 0 a.bit:80\r\n6 NEW", None),
        (b"GETINFO 0123456789abcdef", b'552 Unrecognized key "0123456789abcdef"', None),
        (b"GETCONF __LeaveStreamsUnattached", b"250 __LeaveStreamsUnattached=1", None),
        (b"GETCONF __owningcontrollerprocess", b"552 ", None),
        (b"SETEVENTS STREAM", b"250 OK", Subscribed(frozenset({b"STREAM"}))),
        (b"setevents stream signal", b"250 OK", Subscribed(frozenset({b"STREAM", b"SIGNAL"}))),
        (b"SETEVENTS", b"250 OK", Subscribed(frozenset())),
        (b"REDIRECTSTREAM 5 x.onion", b"250 OK", Redirected(5, Target.parse("x.onion", 0))),
        (b"REDIRECTSTREAM 5 192.0.2.1", b"250 OK", Redirected(5, Target.parse("192.0.2.1", 0))),
        (b"ATTACHSTREAM 6 0", b"250 OK", Attached(6)),
        (b"CLOSESTREAM 5 2", b"250 OK", Closed(5)),
        (b"CLOSESTREAM 5 2 IfUnused", b"250 OK", Closed(5)),
        (b"QUIT", b"250 closing", Quit()),
        # as Tor reads it: keywords in any case, blanks anywhere
        (b"closestream 5 2 ", b"250 OK", Closed(5)),
        (b" attachstream\t6  0 ", b"250 OK", Attached(6)),
        (b"getconf __leavestreamsunattached ", b"250 __LeaveStreamsUnattached=1", None),
        (b"quit ", b"250 closing", Quit()),
        # an offer that has ended lately
        (b"CLOSESTREAM 9 2 ", b"250 OK", None),
        (b"ATTACHSTREAM 9 0", b"250 OK", None),
        (b"REDIRECTSTREAM 9 x.onion", b"250 OK", None),
        # streams of others, and streams that are not there, look the same
        (b"REDIRECTSTREAM 7 evil.test", b'552 Unknown stream "7"', None),
        (b"ATTACHSTREAM 7 0", b'552 Unknown stream "7"', None),
        (b"CLOSESTREAM 7 1", b'552 Unknown stream "7"', None),
        # circuits, hops and ports are nobody's to choose
        (b"ATTACHSTREAM 6 12", b"552 ", None),
        (b"ATTACHSTREAM 6 00", b"552 ", None),
        (b"ATTACHSTREAM 6 0 HOP=1", b"512 ", None),
        (b"REDIRECTSTREAM 5 x.onion 22", b"512 ", None),
        # nothing is attached unresolved, nothing is redirected to what is no host
        (b"ATTACHSTREAM 5 0", b"555 ", None),
        (b"REDIRECTSTREAM 5 a/b", b"512 ", None),
        (b"REDIRECTSTREAM 5 " + b"a" * 300, b"512 ", None),
        (b"REDIRECTSTREAM 5 caf\xe9.test", b"512 ", None),
        (b"REDIRECTSTREAM 5", b"512 ", None),
        (b"REDIRECTSTREAM x y", b"512 ", None),
        # the rest of the control port
        (b"SIGNAL NEWNYM", b"510 ", None),
        (b"SETCONF __LeaveStreamsUnattached=0", b"510 ", None),
        (b"RESETCONF SocksPort", b"510 ", None),
        (b"LOADCONF", b"510 ", None),
        (b"+LOADCONF", b"510 ", None),
        (b"MAPADDRESS a.bit=evil.test", b"510 ", None),
        (b"EXTENDCIRCUIT 0", b"510 ", None),
        (b"CLOSECIRCUIT 1", b"510 ", None),
        (b"ADD_ONION NEW:BEST Port=80", b"510 ", None),
        (b"TAKEOWNERSHIP", b"510 ", None),
        (b"RESOLVE a.bit", b"510 ", None),
        (b"AUTHCHALLENGE SAFECOOKIE 00", b"510 ", None),
        (b"GETCONF SocksPort", b"552 ", None),
        (b"GETCONF __LeaveStreamsUnattached SocksPort", b"552 ", None),
        (b"GETCONF", b"552 ", None),
        (b"GETINFO address", b"552 ", None),
        (b"GETINFO version circuit-status", b"552 ", None),
        (b"GETINFO" + b" stream-status" * 9, b"512 ", None),
        (b"GETINFO \xff\r", b'552 Unrecognized key "?"', None),
        (b"SETEVENTS STREAM CIRC", b"552 ", None),
        (b"", b"510 ", None),
        (b"   ", b"510 ", None),
    ],
)
def test_policy(line: bytes, reply: bytes, effect: Effect | None) -> None:
    decision = judge(line, view())
    assert decision.reply.startswith(reply)
    assert decision.effect == effect


def test_what_tor_has_not_told_is_not_told() -> None:
    for key in (b"version", b"status/bootstrap-phase"):
        assert judge(b"GETINFO " + key, ClientView()).reply.startswith(b"552 ")


def test_without_offers_there_are_no_streams() -> None:
    for verb in (b"REDIRECTSTREAM 5 x.onion", b"ATTACHSTREAM 5 0", b"CLOSESTREAM 5 1"):
        assert judge(verb, ClientView()).reply.startswith(b"552 ")
