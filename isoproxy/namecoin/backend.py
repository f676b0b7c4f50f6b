"""What the resolver asks of a source of name values, and how sure that source is.

Theory of operation
    A backend turns the raw bytes of a Namecoin name (`b"d/example"`) into the raw bytes
    of its current value.  It is asked under an isolation key and must let nothing of one
    key's look-ups be seen, in content, timing or circuit, by another's.  It interprets
    neither name nor value, and caches nothing between look-ups: that is the resolver's.

Invariants
    `Found` is returned only for a name that is registered, confirmed and unexpired as far
    as `evidence` says.  `Absent` is a statement about the chain (agreed on by several
    servers where the evidence is theirs); everything that may be different in a minute
    raises `TemporaryFailure`.  There is no fourth outcome: a backend never guesses.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final, Protocol

from isoproxy.errors import ErrorKind, NamingError
from isoproxy.isolation import IsolationKey

ABSENT_REASONS: Final = frozenset(
    {ErrorKind.NAME_ABSENT, ErrorKind.NAME_EXPIRED, ErrorKind.NAME_UNCONFIRMED}
)


class Evidence(Enum):
    """Why a value is believed; the value is what `resolve --json` prints."""

    SPV_CONFIRMED = "spv-12conf"
    """Proof of work above it, verified by ourselves, of every block from the trust anchor on."""
    SPV_SAMPLED = "spv-sampled-2^-40"
    """The same, of the newest blocks and of drawn ones; the probability that a fork of which
    less than half was worked for is not found."""
    FULL_NODE = "full-node"
    """A Namecoin Core of the user's validated the whole chain."""
    RPC_CLAIM = "rpc-claim"
    """Another program says so; its own checks are all there is."""


@dataclass(frozen=True, slots=True)
class Found:
    """A registered, unexpired name.

    `height` is the block of its newest update, `expires_in` the blocks it still has to
    live, `txid` 64 hexadecimal digits in display order (empty if the source did not say),
    `servers` the addresses of those who answered (empty for a local program).
    """

    value: bytes
    height: int
    txid: str
    expires_in: int
    evidence: Evidence
    servers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Absent:
    """No such name now; `reason` is one of `ABSENT_REASONS`."""

    reason: ErrorKind
    servers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.reason not in ABSENT_REASONS:
            raise ValueError("absence has no such reason")


class TemporaryFailure(NamingError):
    """No trustworthy answer at present; nothing may be concluded about the name."""

    default_kind = ErrorKind.NAME_BACKEND_DOWN


class Backend(Protocol):
    """A source of name values."""

    async def lookup(self, name: bytes, key: IsolationKey) -> Found | Absent:
        """The current value of `name` (at most 255 bytes), asked for under `key`.

        Raises:
            TemporaryFailure: nothing trustworthy is known now.
        """
        ...

    async def close(self) -> None:
        """Release every connection; look-ups under way fail."""
        ...
