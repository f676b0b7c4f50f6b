"""Tor's own word on which circuit carried which stream (control-spec §4.1.1, §4.1.2).

Theory of operation
    A `Witness` listens to STREAM and CIRC events of one tor on a control connection of its
    own and keeps, per stream, what its NEW event said (target, source, SOCKS user name and
    password; later events show the address that an exit resolved) and every circuit that
    it was attached to.  Legs of one conflux set count as one circuit: they share all ends.

    What makes two streams "of one tuple" is the test's to say, by a function of the stream;
    by default it is the user name and password that reached tor.  A test of isolation that
    does not want to believe in credentials gives each tuple a target port of its own.

Invariants
    The parser is this module's own: isoproxy's is not asked to testify about itself.  A
    line that does not parse is kept in `malformed` and fails the context's end.

Limits
    tor cuts user names at a NUL byte in events, though not for isolation.
"""

from __future__ import annotations

import re
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

from tests.kit.tornet import Node

_ESCAPES: Final = {"n": 10, "r": 13, "t": 9}
_KEYWORD: Final = re.compile(r'([A-Z0-9_]+)=("(?:[^"\\]|\\.)*"|[^ "]*)(?: |$)')


def unquote(text: str) -> bytes:
    r"""The bytes of a quoted string of the control port: `"a\"\303\251\n"`.

    `text` holds bytes one for one (Latin-1).  Raises ValueError if it is not one quoted
    string.
    """
    if len(text) < 2 or text[0] != '"' or text[-1] != '"':
        raise ValueError("not a quoted string")
    out, at, end = bytearray(), 1, len(text) - 1
    while at < end:
        if text[at] == '"':
            raise ValueError("a bare quote inside a quoted string")
        if text[at] != "\\":
            out += text[at].encode("latin-1")
            at += 1
            continue
        octal = re.compile(r"[0-3]?[0-7]{1,2}").match(text, at + 1, end)
        if octal:
            out.append(int(octal.group(), 8))
            at = octal.end()
        elif at + 1 < end:
            out.append(_ESCAPES.get(text[at + 1], ord(text[at + 1])))
            at += 2
        else:
            raise ValueError("a backslash before the closing quote")
    return bytes(out)


def keywords(text: str) -> dict[str, str]:
    """`A=b C="d e"` as a table; quoted values keep their quotes.  ValueError if malformed."""
    found: dict[str, str] = {}
    at = 0
    while at < len(text):
        match = _KEYWORD.match(text, at)
        if match is None:
            raise ValueError("not a list of keywords")
        found[match.group(1)] = match.group(2)
        at = match.end()
    return found


@dataclass
class Stream:
    """One stream, as tor told it."""

    id: int
    host: str
    """As the client asked for it (an IP literal without brackets)."""
    port: int
    source: str = ""
    """Where the client came from: "127.0.0.1:45750"; of a unix socket "/path:0"."""
    protocol: str = ""
    purpose: str = ""
    username: bytes | None = None
    password: bytes | None = None
    session_group: int = 0
    nym_epoch: int = 0
    iso_fields: frozenset[str] = frozenset()
    circuits: list[int] = field(default_factory=list)
    """All circuits it was attached to, in order; several after a retry."""
    states: list[str] = field(default_factory=list)
    reason: str = ""

    @property
    def credentials(self) -> tuple[bytes | None, bytes | None]:
        return self.username, self.password

    @property
    def closed(self) -> bool:
        return "CLOSED" in self.states

    @property
    def succeeded(self) -> bool:
        return "SUCCEEDED" in self.states


@dataclass
class Circuit:
    """One circuit, as tor told it."""

    id: int
    state: str = ""
    path: list[str] = field(default_factory=list)
    """Nicknames of its relays, the exit last."""
    purpose: str = ""
    conflux: str = ""


TupleOf = Callable[[Stream], Hashable]


def credentials(stream: Stream) -> Hashable:
    """The default tuple: what reached tor as user name and password."""
    return stream.credentials


class Record:
    """What event lines say, fed to `take` one by one; safe to use from several threads."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._streams: dict[int, Stream] = {}
        self._circuits: dict[int, Circuit] = {}
        self.malformed: list[str] = []
        """Lines that did not parse."""

    # -- questions

    def streams(
        self,
        *,
        host: str | None = None,
        port: int | None = None,
        source: str | None = None,
        username: bytes | None = None,
        password: bytes | None = None,
        after: int = 0,
    ) -> list[Stream]:
        """The users' streams that match, oldest first; `after` is a `mark`."""
        with self._changed:
            return [
                stream
                for stream in self._streams.values()
                if stream.id > after
                and stream.purpose in {"USER", "DNS_REQUEST"}
                and (host is None or stream.host == host)
                and (port is None or stream.port == port)
                and (source is None or stream.source == source)
                and (username is None or stream.username == username)
                and (password is None or stream.password == password)
            ]

    def circuit(self, number: int) -> Circuit:
        with self._changed:
            return self._circuits[number]

    def carrier(self, number: int) -> Hashable:
        """A circuit's identity: its own number, or that of the conflux set it is a leg of."""
        with self._changed:
            circuit = self._circuits.get(number)
        return circuit.conflux if circuit and circuit.conflux else number

    def exits(self, streams: Iterable[Stream]) -> set[str]:
        """Nicknames of the last relays of the circuits that carried these streams."""
        return {self.circuit(n).path[-1] for s in streams for n in s.circuits[-1:]}

    def by_carrier(self, streams: Iterable[Stream]) -> dict[Hashable, list[Stream]]:
        """The streams that each circuit carried, failed attempts included."""
        carried: dict[Hashable, list[Stream]] = defaultdict(list)
        for stream in streams:
            for carrier in {self.carrier(number) for number in stream.circuits}:
                carried[carrier].append(stream)
        return dict(carried)

    def mixed(
        self, streams: Iterable[Stream], tuple_of: TupleOf = credentials
    ) -> dict[Hashable, set[Hashable]]:
        """Circuits that carried streams of several tuples: empty where isolation holds."""
        tuples = {
            carrier: {tuple_of(stream) for stream in carried}
            for carrier, carried in self.by_carrier(streams).items()
        }
        return {carrier: found for carrier, found in tuples.items() if len(found) > 1}

    def spread(
        self, streams: Iterable[Stream], tuple_of: TupleOf = credentials
    ) -> dict[Hashable, set[Hashable]]:
        """Tuples whose streams ended up on several circuits: empty where all share."""
        carriers: dict[Hashable, set[Hashable]] = defaultdict(set)
        for stream in streams:
            if stream.circuits:
                carriers[tuple_of(stream)].add(self.carrier(stream.circuits[-1]))
        return {of: found for of, found in carriers.items() if len(found) > 1}

    def assert_isolated(self, streams: Iterable[Stream], tuple_of: TupleOf = credentials) -> None:
        """No circuit carried two tuples.  Fails for want of attached streams, too."""
        seen = list(streams)
        assert any(stream.circuits for stream in seen), "no stream was attached to a circuit"
        mixed = self.mixed(seen, tuple_of)
        assert not mixed, f"circuits that carried several tuples: {mixed}"

    def assert_shared(self, streams: Iterable[Stream], tuple_of: TupleOf = credentials) -> None:
        """Streams of one tuple share its circuit.

        Needs a client without conflux.  Streams to an onion service are on a rendezvous
        circuit, which no other destination can share: leave them out, or make the
        destination part of the tuple.
        """
        seen = list(streams)
        assert any(stream.circuits for stream in seen), "no stream was attached to a circuit"
        spread = self.spread(seen, tuple_of)
        assert not spread, f"tuples spread over several circuits: {spread}"

    # -- events

    def take(self, line: str) -> None:
        """One line of an event, Latin-1; those of other kinds are passed over."""
        with self._changed:
            try:
                self._take(line)
            except ValueError:
                self.malformed.append(line)
            self._changed.notify_all()

    def _take(self, line: str) -> None:
        number, kind, rest = line.split(" ", 2)
        if number == "650" and kind == "STREAM":
            self._take_stream(rest)
        elif number == "650" and kind == "CIRC":
            self._take_circuit(rest)

    def _take_stream(self, text: str) -> None:
        number, state, circuit, target, *more = text.split(" ", 4)
        # tor writes a reason that it has no word for with a space before it
        said = keywords(more[0].replace("REASON= UNKNOWN", "REASON=UNKNOWN") if more else "")
        host, _, port = target.rpartition(":")
        stream = self._streams.get(int(number))
        if stream is None:
            stream = Stream(int(number), host.strip("[]"), int(port))
            self._streams[stream.id] = stream
        stream.states.append(state)
        if circuit != "0" and int(circuit) not in stream.circuits[-1:]:
            stream.circuits.append(int(circuit))
        stream.reason = said.get("REMOTE_REASON") or said.get("REASON") or stream.reason
        if state in {"NEW", "NEWRESOLVE"}:
            _describe(stream, said)

    def _take_circuit(self, text: str) -> None:
        number, state, *more = text.split(" ", 2)
        circuit = self._circuits.setdefault(int(number), Circuit(int(number)))
        circuit.state = state
        rest = more[0] if more else ""
        if rest.startswith("$"):
            path, _, rest = rest.partition(" ")
            circuit.path = [relay.partition("~")[2] for relay in path.split(",")]
        said = keywords(rest)
        circuit.purpose = said.get("PURPOSE", circuit.purpose)
        circuit.conflux = said.get("CONFLUX_ID", circuit.conflux)


def _describe(stream: Stream, said: dict[str, str]) -> None:
    """Take over what only the first event of a stream is sure to say."""
    stream.source = said.get("SOURCE_ADDR", "")
    stream.purpose = said.get("PURPOSE", "")
    stream.protocol = said.get("CLIENT_PROTOCOL", "")
    if "SOCKS_USERNAME" in said:
        stream.username = unquote(said["SOCKS_USERNAME"])
    if "SOCKS_PASSWORD" in said:
        stream.password = unquote(said["SOCKS_PASSWORD"])
    stream.session_group = int(said.get("SESSION_GROUP", "0"))
    stream.nym_epoch = int(said.get("NYM_EPOCH", "0"))
    stream.iso_fields = frozenset(filter(None, said.get("ISO_FIELDS", "").split(",")))


class Witness(Record):
    """Listens to one tor from its creation to `close`; a context manager."""

    def __init__(self, node: Node):
        super().__init__()
        self._control = node.control()
        self._thread = threading.Thread(target=self._listen, name="witness", daemon=True)
        self._thread.start()
        self._control.check("SETEVENTS STREAM CIRC")
        for line in self._control.getinfo("circuit-status").splitlines():
            self.take("650 CIRC " + line)

    def settle(self) -> None:
        """Return when everything tor has reported so far is known here."""
        self._control.settle()
        self._control.events.join()

    def mark(self) -> int:
        """What has happened so far: give it as `after` to see only what comes later."""
        self.settle()
        with self._changed:
            return max(self._streams, default=0)

    def wait_for(
        self, wanted: int, select: Callable[[Stream], bool], timeout: float = 30.0, after: int = 0
    ) -> list[Stream]:
        """Wait until so many of the users' streams fulfil `select`; returns them."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                found = [stream for stream in self.streams(after=after) if select(stream)]
                if len(found) >= wanted:
                    return found
                left = deadline - time.monotonic()
                assert left > 0, f"{len(found)} of {wanted} streams after {timeout} s"
                self._changed.wait(left)

    def close(self) -> None:
        self._control.close()
        self._thread.join(5)

    def _listen(self) -> None:
        events = self._control.events
        while (line := events.get()) is not None:
            self.take(line)
            events.task_done()
        events.task_done()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()
        if error is None:
            assert not self.malformed, f"event lines that did not parse: {self.malformed}"
