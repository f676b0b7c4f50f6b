"""The life of Tor's streams as its controller sees it: decides what to do, does nothing itself.

Theory of operation
    With `__LeaveStreamsUnattached 1` Tor holds every new stream until a controller
    attaches it.  The controller learns of them by events, which may be forged (see
    `tor.control.session`).  Hence an event is only a hint that it is time to look; what is
    done about a stream follows from what Tor lists:

        NEW, NEWRESOLVE            remembered: where it came from, and what isolates it
        CONTROLLER_WAIT            a hint: the stream wants something
        CLOSED, FAILED             a hint, if its name is being looked up
        a line that is malformed   a hint: a stream's target is not a name
        the next listing           the truth about all streams that were hinted at

    A listed stream that waits is attached as it is if its target is not ours, else its
    name is looked up and the stream redirected, then attached.  A listed stream with a
    target that cannot be a name is closed.  Whatever a stream's target is, only a command
    of a controller's can change it, so that what was true in the listing still is when
    the stream is attached.

    Two claims about one stream mean that some other stream's name forges lines inside the
    listing.  Streams whose own events were malformed are closed and Tor is asked again; if
    the claims still differ, the stream is closed.

    NEW events decide the isolation ID only, and whose the stream is.  If several that fit
    were seen, one is forged; if one was malformed or had no room, the genuine one may be
    missing.  Then the stream gets an ID of its own and has no known client.

Invariants
    No `Attach` for a stream that was not listed with a target that is not ours; no
    `Redirect` to a target that is ours, nor to a private address.
    Forged events cost a look, and may keep a stream from sharing; they change nothing
    else.  What is remembered is bounded.

    Tor shows names and credentials up to their first NUL byte: user names that differ only
    after it are the same to a controller, though Tor keeps their circuits apart.
Specification: control-spec §3.13 (ATTACHSTREAM), §3.15 (REDIRECTSTREAM), §4.1.2 (STREAM).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from isoproxy.errors import ErrorKind
from isoproxy.namecoin.resolve.answer import is_public
from isoproxy.net.target import Target
from isoproxy.sharing import SharingTable
from stemns_plugin.grammar import (
    RESOLVES,
    WAITING,
    Claim,
    StreamEvent,
    bare,
    parse_listing,
    parse_mappings,
    parse_stream_event,
    stream_of,
)
from stemns_plugin.lookup_shares import Admission, LookupShares, UnderWay

MAX_REMEMBERED: Final = 16384
MAX_HINTS: Final = 65536
_MAX_CANDIDATES: Final = 4
_MAX_CONFLICTS: Final = 3
_ENDS: Final = frozenset({b"CLOSED", b"FAILED"})
_REVERSE: Final = (b".in-addr.arpa", b".ip6.arpa")


class CloseReason(IntEnum):
    """Why a stream is closed (tor-spec §6.3); 0 is not among them: it reports success."""

    RESOLVEFAILED = 2
    EXITPOLICY = 4
    TIMEOUT = 7


_REASONS: Final = {
    ErrorKind.ADDRESS_REFUSED: CloseReason.EXITPOLICY,
    ErrorKind.NAME_TIMEOUT: CloseReason.TIMEOUT,
    ErrorKind.DIAL_TIMEOUT: CloseReason.TIMEOUT,
}


@dataclass(frozen=True, slots=True)
class Attach:
    """Let Tor choose a circuit for the stream."""

    stream: int


@dataclass(frozen=True, slots=True, repr=False)
class Redirect:
    """Change the stream's target to `host`, and if that succeeded attach it."""

    stream: int
    host: str


@dataclass(frozen=True, slots=True)
class Close:
    """End the stream."""

    stream: int
    reason: CloseReason = CloseReason.RESOLVEFAILED


@dataclass(frozen=True, slots=True, repr=False)
class LookUp:
    """Find what `name` stands for, under `isolation`; RESOLVE streams want an address.

    `event` is the stream's NEW event, None where that is not certain.
    """

    stream: int
    name: str
    isolation: bytes
    wants_address: bool
    event: StreamEvent | None


@dataclass(frozen=True, slots=True)
class Abandon:
    """The stream is gone; its look-up is not wanted any more."""

    stream: int


Action = Attach | Redirect | Close | LookUp | Abandon


@dataclass(slots=True)
class _Remembered:
    """What events said about a stream, one candidate per distinct NEW event."""

    candidates: list[StreamEvent] = field(default_factory=list)
    malformed: bool = False
    wellformed: bool = False
    conflicts: int = 0
    seen: int = 0


class Streams:
    """Turns event lines and listings into actions.

    is_ours          whether a host (lower case, no trailing dots) must be looked up
    sharing          gives isolation IDs
    allow_internal   accept addresses that are private, loopback or the like
    """

    def __init__(
        self,
        is_ours: Callable[[str], bool],
        sharing: SharingTable,
        *,
        allow_internal: bool = False,
    ) -> None:
        self._is_ours = is_ours
        self._sharing = sharing
        self._allow_internal = allow_internal
        self.automaps = False
        """Whether Tor answers RESOLVE of an onion service with a virtual address."""
        self._remembered: OrderedDict[int, _Remembered] = OrderedDict()
        self._lookups = LookupShares()
        self._hints: set[int] = set()
        self._asked: set[int] = set()
        self._look_at_all = self._asked_for_all = True
        self._lines = self._lines_when_asked = 0

    @property
    def lookups(self) -> int:
        """Names being looked up."""
        return len(self._lookups)

    @property
    def wants_listing(self) -> bool:
        """Whether it is time to ask Tor for its streams."""
        return self._look_at_all or bool(self._hints)

    def on_line(self, line: bytes) -> None:
        """A line of the events connection."""
        self._lines += 1
        event = parse_stream_event(line)
        if event is None:
            self._on_malformed(line)
        elif event.status in WAITING:
            self._remember(event)
        elif event.status == b"CONTROLLER_WAIT" or (
            event.status in _ENDS and event.id in self._lookups
        ):
            self._entry(event.id).wellformed = True
            self._hint(event.id)

    def _on_malformed(self, line: bytes) -> None:
        stream = stream_of(line)
        if stream is not None:
            self._entry(stream).malformed = True
            self._hint(stream)

    def _hint(self, stream: int) -> None:
        if len(self._hints) < MAX_HINTS:
            self._hints.add(stream)
        else:
            self._look_at_all = True

    def _entry(self, stream: int) -> _Remembered:
        entry = self._remembered.get(stream)
        if entry is None:
            entry = self._remembered[stream] = _Remembered()
            if len(self._remembered) > MAX_REMEMBERED:
                self._remembered.popitem(last=False)
        entry.seen = self._lines
        return entry

    def _remember(self, event: StreamEvent) -> None:
        entry = self._entry(event.id)
        entry.wellformed = True
        candidates = entry.candidates
        if event not in candidates and len(candidates) < _MAX_CANDIDATES:
            candidates.append(event)

    # -- what Tor lists

    def begin_listing(self) -> None:
        """Tor is being asked now: what is hinted at from here on is for the next time."""
        self._asked, self._hints = self._hints, set()
        self._asked_for_all, self._look_at_all = self._look_at_all, False
        self._lines_when_asked = self._lines

    def on_listing(self, lines: Iterable[bytes], mappings: Iterable[bytes] = ()) -> list[Action]:
        """What is to be done, now that Tor answered with `lines`.

        `mappings` are the lines of `GETINFO address-mappings/all`, where Tor hands out
        virtual addresses.
        """
        listing = parse_listing(lines)
        names = parse_mappings(mappings)
        asked = set(self._asked)
        if self._asked_for_all:
            asked.update(listing)
        actions: list[Action] = []
        for stream in sorted(asked):
            actions += self._look_at(stream, listing.get(stream, set()), names)
        self._give_turns()  # those who had theirs may be gone
        return actions

    def _look_at(
        self, stream: int, claims: set[Claim], names: Mapping[bytes, set[bytes]]
    ) -> list[Action]:
        entry = self._remembered.get(stream)
        if not claims:
            return self._gone(stream, entry)
        if len(claims) > 1:
            return self._in_conflict(stream)
        (claim,) = claims
        if claim.status not in WAITING:
            return self._abandoned(stream)
        if claim.host is None:
            return [*self._abandoned(stream), Close(stream)]
        if stream in self._lookups:
            return []
        if entry is not None and entry.malformed and not entry.wellformed:
            return [Close(stream)]
        return self._decide(claim, claim.host, names)

    def _gone(self, stream: int, entry: _Remembered | None) -> list[Action]:
        if entry is not None and entry.seen <= self._lines_when_asked:
            del self._remembered[stream]
        return self._abandoned(stream)

    def _abandoned(self, stream: int) -> list[Action]:
        return [Abandon(stream)] if self._ended(stream) is not None else []

    def _ended(self, stream: int) -> UnderWay | None:
        """Take the look-up of `stream` off the list."""
        lookup = self._lookups.end(stream)
        if lookup is not None:
            self._give_turns()
        return lookup

    def _give_turns(self) -> None:
        for stream in self._lookups.whose_turn_it_is():
            self._hint(stream)

    def _in_conflict(self, stream: int) -> list[Action]:
        entry = self._entry(stream)
        entry.conflicts += 1
        if entry.conflicts <= _MAX_CONFLICTS:
            self._hint(stream)
            return []
        return [*self._abandoned(stream), Close(stream)]

    def _decide(self, claim: Claim, host: bytes, names: Mapping[bytes, set[bytes]]) -> list[Action]:
        mapped = names.get(bare(host))
        if mapped is not None and any(self._ours(name) for name in mapped):
            if len(mapped) > 1:
                return [Close(claim.id)]
            (host,) = mapped
        if claim.status in RESOLVES and _asks_for_internal_name(host):
            return [Close(claim.id, CloseReason.EXITPOLICY)]
        if not self._ours(host):
            return [self._not_ours(claim, host)]
        event = self._event_of(claim)
        client = (event.source if event is not None else None) or b""
        wants_address = claim.status in RESOLVES
        match self._lookups.admit(claim.id, UnderWay(wants_address, client)):
            case Admission.REFUSED:
                return [Close(claim.id, CloseReason.TIMEOUT)]
            case Admission.WAITS:
                return []
        name = _normal(host).decode("ascii")
        isolation = (
            self._sharing.own_id()
            if event is None
            else self._sharing.assign(event.fields, event.isolated)
        )
        return [LookUp(claim.id, name, isolation, wants_address, event)]

    def _not_ours(self, claim: Claim, host: bytes) -> Action:
        """Attach the stream; to Tor an onion service with a final dot is an exit's to find."""
        name = _normal(host)
        if name == b"onion":
            return Close(claim.id)
        if name == host.lower() or not name.endswith(b".onion"):
            return Attach(claim.id)
        if claim.status in RESOLVES and not self.automaps:
            return Close(claim.id)
        return Redirect(claim.id, name.decode("ascii"))

    def _ours(self, host: bytes) -> bool:
        return self._is_ours(_normal(host).decode("ascii", "replace"))

    def _event_of(self, claim: Claim) -> StreamEvent | None:
        """The NEW event of the stream, if exactly one was seen that fits what is listed."""
        entry = self._remembered.get(claim.id)
        if entry is None or entry.malformed or len(entry.candidates) >= _MAX_CANDIDATES:
            return None  # the genuine one may be the one that was not kept
        fitting = [
            event
            for event in entry.candidates
            if (event.status, event.host, event.port) == (claim.status, claim.host, claim.port)
        ]
        return fitting[0] if len(fitting) == 1 else None

    # -- what became of look-ups

    def on_found(self, stream: int, target: Target) -> list[Action]:
        """The look-up for `stream` ended with `target` (its port does not matter)."""
        lookup = self._ended(stream)
        if lookup is None:
            return []
        if target.is_ip and not self._allow_internal and not is_public(target.host):
            return [Close(stream, CloseReason.EXITPOLICY)]
        if self._is_ours(target.host) or not target.may_be_sent_to_tor():
            return [Close(stream)]
        if lookup.wants_address and target.is_onion and not self.automaps:
            return [Close(stream)]
        return [Redirect(stream, target.host)]

    def on_failed(self, stream: int, kind: ErrorKind) -> list[Action]:
        """The look-up for `stream` failed."""
        if self._ended(stream) is None:
            return []
        return [Close(stream, _REASONS.get(kind, CloseReason.RESOLVEFAILED))]


def _normal(host: bytes) -> bytes:
    """As Tor will take it: in lower case; and without dots at the end."""
    return host.lower().rstrip(b".")


def _asks_for_internal_name(host: bytes) -> bool:
    """Whether a reverse look-up is about an address that no exit should hear of."""
    name = _normal(host)
    if name.endswith(_REVERSE):
        return _is_internal_arpa(name)
    try:
        return not is_public(name.strip(b"[]").decode("ascii"))
    except ValueError:
        return False


def _is_internal_arpa(name: bytes) -> bool:
    """Whether a name under in-addr.arpa or ip6.arpa stands for an address not global.

    An incomplete one (a network's) is taken as what its missing parts may be: zeros.
    """
    labels = name.decode("ascii").split(".")[:-2][::-1]
    try:
        if name.endswith(b".in-addr.arpa"):
            text = ".".join((labels + ["0"] * 4)[:4])
        else:
            digits = ("".join(labels) + "0" * 32)[:32]
            text = ":".join(digits[at : at + 4] for at in range(0, 32, 4))
        return not is_public(text)
    except ValueError:
        return True
