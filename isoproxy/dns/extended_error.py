"""Why a query has no answer, in the words of extended DNS errors.

Theory of operation
    A failure's kind has an INFO-CODE, its own sentence is the EXTRA-TEXT, so that `dig`
    shows what `isoproxy status` says.  What no code fits is "Other".

Invariants
    The sentences hold no name and no client: they are those of exceptions.

Specification: RFC 8914 §4.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

from isoproxy.dns.query import ExtendedError
from isoproxy.errors import ErrorKind, IsoproxyError

OTHER: Final = 0
NOT_READY: Final = 14
PROHIBITED: Final = 18
NOT_SUPPORTED: Final = 21
NO_REACHABLE_AUTHORITY: Final = 22
NETWORK_ERROR: Final = 23
INVALID_DATA: Final = 24

_CODES: Final = MappingProxyType(
    {
        ErrorKind.NAME_SYNCHRONISING: NOT_READY,
        ErrorKind.NAME_NEVER_SENT_TO_TOR: NOT_SUPPORTED,
        ErrorKind.NOT_ALLOWED: PROHIBITED,
        ErrorKind.NAME_BACKEND_DOWN: NO_REACHABLE_AUTHORITY,
        ErrorKind.NAME_NO_QUORUM: NO_REACHABLE_AUTHORITY,
        ErrorKind.NAME_TIMEOUT: NO_REACHABLE_AUTHORITY,
        ErrorKind.TOR_UNREACHABLE: NETWORK_ERROR,
        ErrorKind.NAME_INVALID_VALUE: INVALID_DATA,
    }
)


def extended_error(error: IsoproxyError) -> ExtendedError:
    """What to tell a client of `error`."""
    return ExtendedError(_CODES.get(error.kind, OTHER), str(error))
