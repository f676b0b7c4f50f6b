"""What becomes of a stream that is answered with TLS: a word for each end, and its alert.

Specification: RFC 8446 §6 (alerts).
"""

from __future__ import annotations

from enum import Enum
from types import MappingProxyType
from typing import Final


class TlsOutcome(Enum):
    """How a stream went; the value is what the log and `isoproxy tls status` say."""

    __hash__ = object.__hash__  # a member is itself alone; Enum hashes its name, in Python

    ONION = "onion"
    RECORD = "record"
    NOT_TLS = "not_tls"
    SILENT = "silent"
    SERVER_NAME = "server_name"
    NO_RECORD = "no_record"
    UNUSABLE_RECORD = "unusable_record"
    SITE_FAILED = "site_failed"
    NO_PUBLIC_AUTHORITY = "no_public_authority"
    WRONG_CERTIFICATE = "wrong_certificate"
    CLIENT_FAILED = "client_failed"


EXPLANATIONS: Final = MappingProxyType(
    {
        TlsOutcome.ONION: "carried: the site is an onion service, which Tor authenticates",
        TlsOutcome.RECORD: "carried: the site's certificate is the one in its name's record",
        TlsOutcome.NOT_TLS: "ended: the client did not begin with TLS; use another listener",
        TlsOutcome.SILENT: "ended: the client did not begin in time",
        TlsOutcome.SERVER_NAME: "refused: the client's TLS asked for another name than its stream, "
        "or for none",
        TlsOutcome.NO_RECORD: "refused: the name leads to no onion service and says nothing of a "
        "certificate",
        TlsOutcome.UNUSABLE_RECORD: "refused: the name's TLSA records cannot be used",
        TlsOutcome.SITE_FAILED: "refused: TLS with the site failed, or took too long",
        TlsOutcome.NO_PUBLIC_AUTHORITY: "refused: the name's record asks for a public authority, "
        "and none vouches for the site",
        TlsOutcome.WRONG_CERTIFICATE: "refused: the site's certificate is not the one in its "
        "name's record",
        TlsOutcome.CLIENT_FAILED: "ended: the client did not take our certificate; is the root "
        "imported?",
    }
)

_HANDSHAKE_FAILURE, _ACCESS_DENIED, _UNRECOGNIZED_NAME = 40, 49, 112
_ALERTS: Final = MappingProxyType(
    {
        TlsOutcome.SERVER_NAME: _UNRECOGNIZED_NAME,
        TlsOutcome.NO_RECORD: _UNRECOGNIZED_NAME,
        TlsOutcome.UNUSABLE_RECORD: _ACCESS_DENIED,
        TlsOutcome.NO_PUBLIC_AUTHORITY: _ACCESS_DENIED,
        TlsOutcome.WRONG_CERTIFICATE: _ACCESS_DENIED,
        TlsOutcome.SITE_FAILED: _HANDSHAKE_FAILURE,
    }
)


def alert(outcome: TlsOutcome) -> bytes:
    """The fatal alert that answers a ClientHello, as a record; nothing where none is due."""
    description = _ALERTS.get(outcome)
    return b"" if description is None else bytes((21, 3, 3, 0, 2, 2, description))
