"""Lines about streams: what an event says, what a listing claims, and what is neither.

Theory of operation
    `parse_stream_event` reads a STREAM event; the whole line has to match, the fields that every
    such line of Tor's ends with included.  `parse_listing` reads the lines of
    `GETINFO stream-status` into claims, all that are made about each stream: a forged
    line can add a claim, but none can take the genuine one away.

Invariants
    Nothing raises.  What does not match is None, or a claim without a host: a stream with
    a name that no name can be.  Every number fits its type.

Specification: control-spec §4.1.2 (STREAM), §3.9 (stream-status).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from isoproxy.sharing import FIELD_NAMES, StreamFields, mask_of
from isoproxy.tor.control.wire import quote, unquote

_HOST: Final = rb"[A-Za-z0-9._:\[\]$~=-]{0,255}"
_QUOTED: Final = rb'"(?:[ !#-\[\]-~]|\\[\\"\'nrt]|\\[0-3][0-7]{2})*"'
_FIELD: Final = (
    rb" (?:[A-Z][A-Z0-9_]{0,31}=(?:" + _QUOTED + rb"|[!#-~][!-~]{0,511}|)|UNKNOWN_[0-9]{1,5})"
)
_EVENT: Final = re.compile(
    rb"650 STREAM (?P<id>[0-9]{1,18}) (?P<status>[A-Z_]{1,32}) (?P<circuit>[0-9]{1,10})"
    rb" (?P<host>" + _HOST + rb"):(?P<port>[0-9]{1,5})"
    rb"(?P<fields>(?:" + _FIELD + rb"){0,32})"
)
_FIELDS: Final = re.compile(rb" ([A-Z][A-Z0-9_]{0,31})=(" + _QUOTED + rb"|[^ ]*)")
_HEAD: Final = re.compile(rb"650 STREAM ([0-9]{1,18}) ")
_INTEGER: Final = re.compile(rb"-?[0-9]{1,18}")
_PROTOCOL: Final = re.compile(rb"[A-Z0-9]{1,16}")
_CLAIM: Final = re.compile(
    rb"(?P<id>[0-9]{1,18}) (?P<status>[A-Z_]{1,32}) (?P<circuit>[0-9]{1,10})(?: (?P<target>.*))?",
    re.DOTALL,
)
_TARGET: Final = re.compile(rb"(?P<host>" + _HOST + rb"):(?P<port>[0-9]{1,5})")
_ADDRESS: Final = re.compile(rb"(?P<host>.+):[0-9]{1,5}")
_MAPPINGS: Final = b"address-mappings/all="
_MAPPING: Final = re.compile(rb"([0-9a-fA-F.:\[\]]{2,45}) ([!-~]{1,255}) [^\r\n]*")

RESOLVES: Final = frozenset({b"NEWRESOLVE", b"SENTRESOLVE"})
WAITING: Final = frozenset({b"NEW", b"NEWRESOLVE"})


@dataclass(frozen=True, slots=True, repr=False)
class StreamEvent:
    """One STREAM event.  `fields` and `isolated` (a mask) are of the tail every event has."""

    id: int
    status: bytes
    host: bytes
    port: int
    fields: StreamFields
    isolated: int
    source: bytes | None
    purpose: bytes | None

    def __repr__(self) -> str:
        return f"<StreamEvent {self.id} {self.status.decode()}>"


@dataclass(frozen=True, slots=True, repr=False)
class Claim:
    """What a listing says about a stream; `host` is None where it is no host's name."""

    id: int
    status: bytes
    host: bytes | None
    port: int = 0

    def __repr__(self) -> str:
        return f"<Claim {self.id} {self.status.decode()}>"


def stream_of(line: bytes) -> int | None:
    """The stream that a line is about, if it is about one, whatever else it says."""
    match = _HEAD.match(line)
    return None if match is None else int(match[1])


def parse_stream_event(line: bytes) -> StreamEvent | None:
    """The STREAM event that `line` is; None for anything else."""
    match = _EVENT.fullmatch(line)
    if match is None or int(match["port"]) > 0xFFFF:
        return None
    pairs = _FIELDS.findall(match["fields"])
    named: dict[bytes, bytes] = dict(pairs)
    numbers = [named.get(key, b"") for key in (b"SESSION_GROUP", b"NYM_EPOCH")]
    protocol = named.get(b"CLIENT_PROTOCOL", b"")
    if len(named) != len(pairs) or not all(_INTEGER.fullmatch(number) for number in numbers):
        return None
    try:
        names = named[b"ISO_FIELDS"].decode("ascii")  # empty for Tor's own streams
        isolated = mask_of(names.split(",") if names else ())
    except (KeyError, UnicodeDecodeError):
        return None
    source = _source_of(named.get(b"SOURCE_ADDR"))
    if not _PROTOCOL.fullmatch(protocol) or source == b"":
        return None
    port = int(match["port"])
    username, password = named.get(b"SOCKS_USERNAME"), named.get(b"SOCKS_PASSWORD")
    fields = StreamFields(
        client_addr=source,
        username=None if username is None else unquote(username),
        password=None if password is None else unquote(password),
        protocol=protocol,
        dest_addr=match["host"].lower(),
        dest_port=port,
        session_group=int(numbers[0]),
        nym_epoch=int(numbers[1]),
    )
    return StreamEvent(
        id=int(match["id"]),
        status=match["status"],
        host=match["host"],
        port=port,
        fields=fields,
        isolated=isolated,
        source=source,
        purpose=named.get(b"PURPOSE"),
    )


def write_stream_event(event: StreamEvent, status: bytes) -> bytes:
    """A line, without its end, that says `event` with another `status`, as Tor would."""
    fields = event.fields
    words = [b"650 STREAM %d %s 0 %s:%d" % (event.id, status, event.host, event.port)]
    if status in WAITING and event.source is not None:
        words.append(b"SOURCE_ADDR=%s:0" % event.source)
    if status in WAITING and event.purpose is not None:
        words.append(b"PURPOSE=" + event.purpose)
    for key, value in ((b"USERNAME", fields.username), (b"PASSWORD", fields.password)):
        if value is not None:
            words.append(b"SOCKS_%s=%s" % (key, quote(value)))
    names = [name for bit, name in enumerate(FIELD_NAMES) if event.isolated >> bit & 1]
    words.append(
        b"CLIENT_PROTOCOL=%s NYM_EPOCH=%d SESSION_GROUP=%d ISO_FIELDS=%s"
        % (fields.protocol, fields.nym_epoch, fields.session_group, ",".join(names).encode())
    )
    return b" ".join(words)


def _source_of(address: bytes | None) -> bytes | None:
    """The address without its port; b"" if it has none."""
    if address is None:
        return None
    match = _ADDRESS.fullmatch(address)
    return b"" if match is None else match["host"]


def parse_listing(lines: Iterable[bytes]) -> dict[int, set[Claim]]:
    """All claims that the lines of an answer to `GETINFO stream-status` make."""
    claims: dict[int, set[Claim]] = {}
    for line in lines:
        match = _CLAIM.fullmatch(_without_key(line, b"stream-status="))
        if match is not None:
            claim = _claim(match)
            claims.setdefault(claim.id, set()).add(claim)
    return claims


def _claim(match: re.Match[bytes]) -> Claim:
    target = _TARGET.fullmatch(match["target"] or b"")
    if target is None or int(target["port"]) > 0xFFFF:
        return Claim(int(match["id"]), match["status"], None)
    return Claim(int(match["id"]), match["status"], target["host"], int(target["port"]))


def parse_mappings(lines: Iterable[bytes]) -> dict[bytes, set[bytes]]:
    """From each address (as `bare` has it) to the names, in lower case, that Tor maps it to.

    Streams are listed before mappings, so what is forged in a stream's name comes before the
    last line that begins the mappings.
    """
    mappings: dict[bytes, set[bytes]] = {}
    for line in lines:
        told = _without_key(line, _MAPPINGS)
        if told is not line:
            mappings.clear()
        match = _MAPPING.fullmatch(told)
        if match is not None:
            mappings.setdefault(bare(match[1]), set()).add(match[2].lower())
    return mappings


def bare(address: bytes) -> bytes:
    """An address in lower case and without brackets, which Tor puts around those of IPv6."""
    return address.strip(b"[]").lower()


def _without_key(line: bytes, key: bytes) -> bytes:
    """A listing's first line begins with a code and the key that was asked for."""
    return line[4 + len(key) :] if line[3:4] in (b"-", b"+") and line[4:].startswith(key) else line
