"""Every way a request can fail, and what each audience is told about it.

Theory of operation
    A failure has one `ErrorKind`.  The kind is all that outer layers look at: the
    table at the end of this module turns it into a SOCKS reply (RFC 1928 §6, Tor's
    extended codes F0-F7 of proposal 304), a SOCKS4 reply, an HTTP status, a Prop279
    status, a DNS rcode, a metric label and a sentence for a person.

    IsoproxyError
    ├── ProtocolError
    │   ├── LocalProtocolError     we used a codec wrongly: a defect of ours
    │   └── RemoteProtocolError    the other side broke the protocol
    │       └── LimitExceeded      ... by sending more than the protocol allows
    ├── PolicyRefusal              understood, and not allowed
    ├── DialError                  Tor, or the far end behind it, said no
    ├── NamingError                a name has no verified answer
    ├── ConfigError                a setting is wrong: says file, line and key
    └── OperationError             a command of ours failed

    A name that Namecoin resolves never fails with F0-F7, though these would tell more kinds
    apart: proposal 304 gives them to onion services, and Tor Browser answers each with its
    page about an onion site, whatever the name was.  Such a failure has the code that tor
    has for a name of the DNS: 04 for a name that leads nowhere, 06 for one that took too
    long, 01 for one about which nothing could be learnt.

Invariants
    The text of an exception never holds a name, a target, a credential or an isolation
    ID: exceptions reach logs.  What differs from request to request stays in the
    request.  Every kind has a row in every column (held by a test).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Final


class ErrorKind(Enum):
    """Why something failed; the value is the metric label."""

    # the client's side of the conversation
    MALFORMED = "malformed"
    TOO_LONG = "too_long"
    HANDSHAKE_TIMEOUT = "handshake_timeout"
    COMMAND_NOT_SUPPORTED = "command_not_supported"
    ADDRESS_TYPE_NOT_SUPPORTED = "address_type_not_supported"
    AUTH_REQUIRED = "auth_required"
    RESERVED_USERNAME = "reserved_username"
    # our policy
    NAME_SYNTAX = "name_syntax"
    NAME_NEVER_SENT_TO_TOR = "name_never_sent_to_tor"
    ADDRESS_REFUSED = "address_refused"
    NOT_ALLOWED = "not_allowed"
    BUSY = "busy"
    CIRCUITS_PENDING = "circuits_pending"
    STALE_KEY = "stale_key"
    INTERNAL = "internal"
    # Tor and what is behind it
    TOR_UNREACHABLE = "tor_unreachable"
    TOR_PROTOCOL = "tor_protocol"
    DIAL_TIMEOUT = "dial_timeout"
    GENERAL_FAILURE = "general_failure"
    EXIT_POLICY = "exit_policy"
    NETWORK_UNREACHABLE = "network_unreachable"
    HOST_UNREACHABLE = "host_unreachable"
    CONNECTION_REFUSED = "connection_refused"
    TTL_EXPIRED = "ttl_expired"
    ONION_NOT_FOUND = "onion_not_found"
    ONION_INVALID = "onion_invalid"
    ONION_INTRO_FAILED = "onion_intro_failed"
    ONION_REND_FAILED = "onion_rend_failed"
    ONION_AUTH_MISSING = "onion_auth_missing"
    ONION_AUTH_WRONG = "onion_auth_wrong"
    ONION_BAD_ADDRESS = "onion_bad_address"
    ONION_INTRO_TIMEOUT = "onion_intro_timeout"
    # names
    NAME_ABSENT = "name_absent"
    NAME_EXPIRED = "name_expired"
    NAME_UNCONFIRMED = "name_unconfirmed"
    NAME_NO_ADDRESS = "name_no_address"
    NAME_INVALID_VALUE = "name_invalid_value"
    NAME_UNVERIFIABLE = "name_unverifiable"
    NAME_NO_QUORUM = "name_no_quorum"
    NAME_BUDGET = "name_budget"
    NAME_BACKEND_DOWN = "name_backend_down"
    NAME_TIMEOUT = "name_timeout"
    # ourselves
    CONFIG = "config"
    OPERATION = "operation"
    V2_REQUIRED = "v2_required"


class IsoproxyError(Exception):
    """Anything isoproxy raises on purpose.

    `kind` decides what every audience is told; `str(error)` says what happened, why and
    what to do next, and holds nothing that identifies a person's activity.
    """

    default_kind = ErrorKind.INTERNAL

    def __init__(self, message: str = "", *, kind: ErrorKind | None = None) -> None:
        self.kind = kind if kind is not None else self.default_kind
        super().__init__(message or explanation(self.kind))


class ProtocolError(IsoproxyError):
    """A protocol rule was broken."""

    default_kind = ErrorKind.MALFORMED


class LocalProtocolError(ProtocolError):
    """A codec of ours was asked for something its state does not allow."""

    default_kind = ErrorKind.INTERNAL


class RemoteProtocolError(ProtocolError):
    """The other side sent what its protocol does not allow.

    `reply` holds the bytes that the protocol wants said before the connection closes.
    """

    def __init__(
        self, message: str = "", *, kind: ErrorKind | None = None, reply: bytes = b""
    ) -> None:
        super().__init__(message, kind=kind)
        self.reply = reply


class LimitExceeded(RemoteProtocolError):
    """The other side sent more than the protocol, or our budget for it, allows."""

    default_kind = ErrorKind.TOO_LONG


class PolicyRefusal(IsoproxyError):
    """The request was understood and is not allowed."""

    default_kind = ErrorKind.NOT_ALLOWED


class DialError(IsoproxyError):
    """No stream could be opened through Tor."""

    default_kind = ErrorKind.GENERAL_FAILURE


class NamingError(IsoproxyError):
    """A name has no answer that could be verified."""

    default_kind = ErrorKind.NAME_UNVERIFIABLE


class ConfigError(IsoproxyError):
    """A setting is wrong; the text begins with `file:line:` where they are known."""

    default_kind = ErrorKind.CONFIG


class OperationError(IsoproxyError):
    """A command could not be carried out; the text says what to do next."""

    default_kind = ErrorKind.OPERATION


@dataclass(frozen=True, slots=True)
class Outcome:
    """What each audience is told about one kind of failure.

    `socks` is a reply code of RFC 1928 §6; `extended` replaces it on a listener with
    extended errors; `http` is a status of RFC 9110; `prop279` a status of proposal 279;
    `rcode` a DNS response code.
    """

    socks: int
    extended: int
    http: int
    prop279: int
    rcode: int
    text: str


_SERVFAIL, _NXDOMAIN, _REFUSED = 2, 3, 5


def _row(
    socks: int,
    text: str,
    *,
    extended: int | None = None,
    http: int = 502,
    prop279: int = 1,
    rcode: int = _SERVFAIL,
) -> Outcome:
    return Outcome(socks, socks if extended is None else extended, http, prop279, rcode, text)


OUTCOMES: Final = MappingProxyType(
    {
        ErrorKind.MALFORMED: _row(
            1, "The request does not follow the protocol; check the client's proxy type.", http=400
        ),
        ErrorKind.TOO_LONG: _row(
            1, "The request is longer than the protocol allows; check the client.", http=431
        ),
        ErrorKind.HANDSHAKE_TIMEOUT: _row(
            1, "The client did not finish its request in time; try again.", http=408
        ),
        ErrorKind.COMMAND_NOT_SUPPORTED: _row(
            7, "Tor carries no UDP and accepts no inbound binds; use CONNECT.", http=405
        ),
        ErrorKind.ADDRESS_TYPE_NOT_SUPPORTED: _row(
            1, "The address type is unknown; use IPv4, IPv6 or a host name.", http=400
        ),
        ErrorKind.AUTH_REQUIRED: _row(
            2, "This listener requires an isolation user name and password; set both.", http=407
        ),
        ErrorKind.RESERVED_USERNAME: _row(
            1,
            "User names that begin with <torS0X> are reserved; use exactly <torS0X>0.",
            http=407,
        ),
        ErrorKind.NAME_SYNTAX: _row(
            1,
            "Host names may hold letters, digits, '.', '-' and '_', at most 249 bytes.",
            http=400,
            prop279=2,
            rcode=1,
        ),
        ErrorKind.NAME_NEVER_SENT_TO_TOR: _row(
            2,
            "This name is never sent to Tor unresolved, and no resolver for it is set up; "
            "see [names] in the configuration.",
            http=403,
            prop279=2,
            rcode=_REFUSED,
        ),
        ErrorKind.ADDRESS_REFUSED: _row(
            2,
            "The address is private, loopback or unspecified and is refused.",
            http=403,
            prop279=3,
        ),
        ErrorKind.NOT_ALLOWED: _row(
            2, "The configuration does not allow this.", http=403, prop279=3, rcode=_REFUSED
        ),
        ErrorKind.BUSY: _row(
            1, "Too many connections are open; close some or raise the limits.", http=503
        ),
        ErrorKind.CIRCUITS_PENDING: _row(
            6,
            "Too many new circuits are being built and the wait in the queue ran out; "
            "try again in a moment.",
            http=503,
            prop279=4,
        ),
        ErrorKind.STALE_KEY: _row(
            1, "The identity was renewed while this request was under way; try again.", http=503
        ),
        ErrorKind.INTERNAL: _row(1, "isoproxy has a defect; see its log and report it.", http=500),
        ErrorKind.TOR_UNREACHABLE: _row(
            1, "Tor does not answer; start it or wait until it is back.", http=503
        ),
        ErrorKind.TOR_PROTOCOL: _row(
            1, "The program at Tor's SocksPort does not speak SOCKS5 as Tor does.", http=502
        ),
        ErrorKind.DIAL_TIMEOUT: _row(
            6, "Tor did not open the stream in time; try again.", http=504, prop279=4
        ),
        ErrorKind.GENERAL_FAILURE: _row(1, "Tor could not open the stream; try again."),
        ErrorKind.EXIT_POLICY: _row(2, "No exit allows this address and port.", http=503),
        ErrorKind.NETWORK_UNREACHABLE: _row(3, "The exit cannot reach the network.", http=503),
        ErrorKind.HOST_UNREACHABLE: _row(
            4,
            "The host cannot be reached, or its name does not exist.",
            http=503,
            rcode=_NXDOMAIN,
        ),
        ErrorKind.CONNECTION_REFUSED: _row(5, "The far end refused the connection.", http=403),
        ErrorKind.TTL_EXPIRED: _row(6, "The far end did not answer in time.", http=504),
        ErrorKind.ONION_NOT_FOUND: _row(
            4, "The onion service has published no descriptor.", extended=0xF0, http=503
        ),
        ErrorKind.ONION_INVALID: _row(
            1, "The onion service's descriptor is invalid.", extended=0xF1
        ),
        ErrorKind.ONION_INTRO_FAILED: _row(
            1, "The introduction to the onion service failed.", extended=0xF2, http=503
        ),
        ErrorKind.ONION_REND_FAILED: _row(
            1, "The rendezvous with the onion service failed.", extended=0xF3, http=503
        ),
        ErrorKind.ONION_AUTH_MISSING: _row(
            1,
            "The onion service wants client authorization; give Tor its key.",
            extended=0xF4,
            http=403,
        ),
        ErrorKind.ONION_AUTH_WRONG: _row(
            1,
            "The onion service refused the client authorization key that Tor has.",
            extended=0xF5,
            http=403,
        ),
        ErrorKind.ONION_BAD_ADDRESS: _row(
            1, "The onion address is misspelt.", extended=0xF6, http=400
        ),
        ErrorKind.ONION_INTRO_TIMEOUT: _row(
            1, "All introductions to the onion service timed out.", extended=0xF7, http=504
        ),
        ErrorKind.NAME_ABSENT: _row(
            4,
            "The name is not registered.",
            http=404,
            prop279=3,
            rcode=_NXDOMAIN,
        ),
        ErrorKind.NAME_EXPIRED: _row(
            4,
            "The name's registration has expired.",
            http=410,
            prop279=3,
            rcode=_NXDOMAIN,
        ),
        ErrorKind.NAME_UNCONFIRMED: _row(
            4,
            "The name's registration is too young to be trusted; try again in two hours.",
            http=404,
            prop279=3,
            rcode=_NXDOMAIN,
        ),
        ErrorKind.NAME_NO_ADDRESS: _row(
            4,
            "The name is registered and has no address that may be used.",
            http=404,
            prop279=3,
            rcode=0,
        ),
        ErrorKind.NAME_INVALID_VALUE: _row(
            4,
            "The name's value cannot be read; its owner must mend it.",
            prop279=3,
        ),
        ErrorKind.NAME_UNVERIFIABLE: _row(
            1,
            "No server's answer for the name could be verified; nothing was connected.",
        ),
        ErrorKind.NAME_NO_QUORUM: _row(
            1,
            "Fewer name servers answered with a proof than names.electrum.quorum wants (an "
            "absent name takes two); try again, or add servers to names.electrum.servers.",
            http=503,
        ),
        ErrorKind.NAME_BUDGET: _row(
            4, "Resolving the name takes more steps than is allowed.", prop279=3
        ),
        ErrorKind.NAME_BACKEND_DOWN: _row(
            1,
            "No name server can be reached through Tor, or it is still synchronising; "
            "see 'isoproxy status'.",
            http=503,
        ),
        ErrorKind.NAME_TIMEOUT: _row(
            6, "The name was not resolved in time; try again.", http=504, prop279=4
        ),
        ErrorKind.CONFIG: _row(1, "A setting is wrong.", http=500),
        ErrorKind.OPERATION: _row(1, "The command failed.", http=500),
        ErrorKind.V2_REQUIRED: _row(
            2,
            "The peer does not speak the v2 transport, and plaintext is not allowed to it; "
            "see bitcoin.v1_fallback.",
            http=502,
        ),
    }
)

_FROM_SOCKS: Final = MappingProxyType(
    {
        0x01: ErrorKind.GENERAL_FAILURE,
        0x02: ErrorKind.EXIT_POLICY,
        0x03: ErrorKind.NETWORK_UNREACHABLE,
        0x04: ErrorKind.HOST_UNREACHABLE,
        0x05: ErrorKind.CONNECTION_REFUSED,
        0x06: ErrorKind.TTL_EXPIRED,
        0x07: ErrorKind.COMMAND_NOT_SUPPORTED,
        0x08: ErrorKind.ADDRESS_TYPE_NOT_SUPPORTED,
        0xF0: ErrorKind.ONION_NOT_FOUND,
        0xF1: ErrorKind.ONION_INVALID,
        0xF2: ErrorKind.ONION_INTRO_FAILED,
        0xF3: ErrorKind.ONION_REND_FAILED,
        0xF4: ErrorKind.ONION_AUTH_MISSING,
        0xF5: ErrorKind.ONION_AUTH_WRONG,
        0xF6: ErrorKind.ONION_BAD_ADDRESS,
        0xF7: ErrorKind.ONION_INTRO_TIMEOUT,
    }
)


def explanation(kind: ErrorKind) -> str:
    """The sentence a person is told: what happened and what to do next."""
    return OUTCOMES[kind].text


def socks_reply_code(kind: ErrorKind, *, extended: bool) -> int:
    """The SOCKS5 reply code for `kind`, F0-F7 allowed if the listener is `extended`."""
    outcome = OUTCOMES[kind]
    return outcome.extended if extended else outcome.socks


def kind_of_socks_reply(code: int) -> ErrorKind:
    """The kind that Tor's SOCKS5 reply `code` (1-255) stands for."""
    return _FROM_SOCKS.get(code, ErrorKind.GENERAL_FAILURE)
