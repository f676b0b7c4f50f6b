"""Every way a request can fail, and what each audience is told about it.

Theory of operation
    A failure has one `ErrorKind`.  The kind is all that outer layers look at: the
    table of `outcomes` turns it into a SOCKS reply (RFC 1928 §6, Tor's
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

from isoproxy.errors.kinds import ErrorKind
from isoproxy.errors.outcomes import (
    OUTCOMES,
    Outcome,
    explanation,
    kind_of_socks_reply,
    socks_reply_code,
)

__all__ = [
    "OUTCOMES",
    "ConfigError",
    "DialError",
    "ErrorKind",
    "IsoproxyError",
    "LimitExceeded",
    "LocalProtocolError",
    "NamingError",
    "OperationError",
    "Outcome",
    "PolicyRefusal",
    "ProtocolError",
    "RemoteProtocolError",
    "explanation",
    "kind_of_socks_reply",
    "socks_reply_code",
]


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
