"""The table from a kind of failure to what each audience is told about it.

RFC 1928 §6, proposal 304, RFC 9110 §15, proposal 279, RFC 1035 §4.1.1.  Every kind has a row
in every column (held by a test).
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from isoproxy.errors.kinds import ErrorKind


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
            "What names are asked of does not answer; see 'isoproxy status'.",
            http=503,
        ),
        ErrorKind.NAME_BACKEND_REFUSED: _row(
            1,
            "The program at names.rpc.address cannot be used; see 'isoproxy doctor'.",
            http=503,
        ),
        ErrorKind.NAME_SYNCHRONISING: _row(
            1,
            "Blocks are still being fetched; 'isoproxy status --watch' shows how far it is.",
            http=503,
        ),
        ErrorKind.NAME_WRONG_CLOCK: _row(
            1,
            "This computer's clock and the newest block do not agree; set the clock.",
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
