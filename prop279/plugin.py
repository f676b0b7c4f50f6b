"""A name plugin: queries on standard input, answers on standard output, all at once.

Theory of operation
    `Plugin` is the plugin without its pipes: bytes in, bytes out through `write`.  Each
    query is a task of its own, so a slow name delays no other.  Its isolation key comes
    from the stream isolation ID, as the user name of a stream at a listener that is the
    plugin's own; a query without an ID gets a key that no other query has.

    `serve` ties it to the pipes.  Too many queries under way, or a reader that does not
    take the answers, stop the reading of further queries; nothing is queued without bound.
    The protocol says nothing of clients, so all queries are one client's: shares are for the
    program that asks, as our controller has them.

Invariants
    A query is answered once: RESOLVED, or CANCELED if it was cancelled before.  A CANCEL
    that comes too late is silent.  Every failure has a status: 2 for names not ours, 3 for
    names that lead nowhere, whoever asks again, 4 for what took too long, 1 for failures that
    may pass (StemNS and our controller ask again at 1 and 4, for a minute).  A result is
    checked before it is written.  Nothing of a query is logged.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO, Final, Generic, Protocol, TypeVar, cast
from weakref import WeakValueDictionary

from isoproxy.errors import (
    OUTCOMES,
    ErrorKind,
    IsoproxyError,
    NamingError,
    PolicyRefusal,
    explanation,
)
from isoproxy.isolation import (
    ClientProtocol,
    Isolate,
    IsolationKey,
    IsolationTuple,
    Isolator,
    ListenerRule,
    own_group,
)
from isoproxy.namecoin.resolve.answer import NameAnswer, Want
from isoproxy.namecoin.resolve.cached_backend import MAX_IN_FLIGHT
from isoproxy.namecoin.value.name import BitName
from isoproxy.net.target import Target
from isoproxy.observe.log import logger
from prop279.protocol import (
    VERSION,
    Cancel,
    Canceled,
    Init,
    LineSplitter,
    Resolve,
    Resolved,
    Status,
    Unusable,
    answer_words,
    parse_command,
    write_answer,
)

_log = logger("prop279")

RULE: Final = ListenerRule(own_group("prop279"), Isolate.SOCKS_AUTH)
DEFAULT_TIMEOUT_S: Final = 60.0
MAX_QUERIES: Final = 2048
"""Queries under way at which reading stops; it goes on at half of them."""

_MAX_KEYS: Final = 4096
_MAX_ASKED: Final = 4096
_SUFFIXES: Final = (".bit", ".bit.onion")


Name = TypeVar("Name")
_Name = TypeVar("_Name", contravariant=True)


class Resolver(Protocol[_Name]):
    """Finds what a name stands for; `isoproxy.namecoin.resolve.resolver.Resolver` is one."""

    def lookup_cached(self, name: _Name, key: IsolationKey) -> NameAnswer | None:
        """The answer, if it is there at once."""
        ...

    async def resolve(self, name: _Name, key: IsolationKey, want: Want = Want.STREAM) -> NameAnswer:
        """Resolve `name` under `key`; a failure is an answer too."""
        ...


@dataclass(slots=True, repr=False)
class _Asked(Generic[Name]):
    """What was asked under an ID, and how the last answer to it is `said`."""

    name: Name
    key: IsolationKey
    answer: NameAnswer | None = None
    said: bytes = b""


class Plugin(Generic[Name]):
    """Answers the queries in the bytes it is fed.

    resolver  finds the names
    parse     makes the resolver's form of a name from a query's; raises IsoproxyError
    isolator  makes isolation keys from stream isolation IDs
    write     takes the bytes of the answers
    timeout   seconds that a query may take
    """

    def __init__(
        self,
        resolver: Resolver[Name],
        parse: Callable[[str], Name],
        isolator: Isolator,
        write: Callable[[bytes], object],
        *,
        timeout: float = DEFAULT_TIMEOUT_S,
    ) -> None:
        self._resolver = resolver
        self._parse = parse
        self._isolator = isolator
        self._write = write
        self._timeout = timeout
        self._lines = LineSplitter()
        self._keys: dict[bytes, IsolationKey] = {}
        self._asked: dict[tuple[bytes | None, bytes], _Asked[Name]] = {}
        isolator.on_new_epoch(self._asked.clear)
        self._running: dict[int, asyncio.Task[None]] = {}
        self._turns: WeakValueDictionary[IsolationKey, asyncio.Semaphore] = WeakValueDictionary()
        self._outbox: list[bytes] = []
        self._lonely_queries = 0
        self.on_settled: Callable[[], None] | None = None
        """Called after a query came to its end."""

    @property
    def running(self) -> int:
        """Queries under way."""
        return len(self._running)

    def greet(self) -> None:
        """Say that the plugin is ready."""
        self._write(write_answer(Init(VERSION, 0)))

    def feed(self, data: bytes) -> None:
        """Take bytes of the program's; must be called on the event loop."""
        for line in self._lines.feed(data):
            command = parse_command(line)
            if isinstance(command, Resolve):
                self._start(command)
            elif isinstance(command, Cancel):
                self._cancel(command.query)
            elif isinstance(command, Unusable):
                self._fail(command.query, ErrorKind.NAME_SYNTAX)

    def close(self) -> None:
        """Abandon every query without an answer."""
        running, self._running = self._running, {}
        for task in running.values():
            task.cancel()

    def _start(self, command: Resolve) -> None:
        """Answer at once what is known; everything else is a task."""
        if command.query in self._running:
            self._fail(command.query, ErrorKind.MALFORMED)
            return
        asked = self._asked.get((command.isolation, command.name))
        if asked is None or not self._isolator.is_current(asked.key):
            try:
                asked = self._understood(command)
            except IsoproxyError as error:
                self._fail(command.query, error.kind)
                return
        name, key = asked.name, asked.key
        known = self._resolver.lookup_cached(name, key)
        if known is None:
            self._running[command.query] = asyncio.create_task(self._run(command.query, name, key))
            return
        if known is not asked.answer:
            asked.answer, asked.said = known, answer_words(_answer(0, known))
        self._write_soon(b"RESOLVED %d %s\n" % (command.query, asked.said))

    def _understood(self, command: Resolve) -> _Asked[Name]:
        """The name and the key of a query, kept for the next one of the same ID."""
        name = self._parse(command.name.decode("ascii"))
        asked = _Asked(name, self._key(command.isolation))
        if command.isolation is not None:
            if len(self._asked) >= _MAX_ASKED:
                self._asked.clear()
            self._asked[command.isolation, command.name] = asked
        return asked

    def _cancel(self, query: int) -> None:
        task = self._running.pop(query, None)
        if task is None:
            return
        task.cancel()
        self._send(Canceled(query))
        self._settled()

    async def _run(self, query: int, name: Name, key: IsolationKey) -> None:
        task = self._running[query]
        answer = await self._resolve(query, name, key)
        if self._running.get(query) is task:
            del self._running[query]
            self._send(answer)
            self._settled()

    async def _resolve(self, query: int, name: Name, key: IsolationKey) -> Resolved:
        """What to say about one query; only cancellation is raised."""
        try:
            async with asyncio.timeout(self._timeout), self._turn(key):
                return _answer(query, await self._resolver.resolve(name, key))
        except IsoproxyError as error:
            return _failure(query, error.kind)
        except TimeoutError:
            return _failure(query, ErrorKind.NAME_TIMEOUT)
        except Exception as error:  # a defect of the resolver harms this query alone
            _log.err("internal_error", error=error)
            return _failure(query, ErrorKind.INTERNAL)

    def _turn(self, key: IsolationKey) -> asyncio.Semaphore:
        """What the look-ups of `key` wait at, beyond those that a resolver takes at once."""
        turn = self._turns.get(key)
        if turn is None:
            turn = self._turns[key] = asyncio.Semaphore(MAX_IN_FLIGHT)
        return turn

    def _key(self, isolation: bytes | None) -> IsolationKey:
        """The key for an ID; without one, a key of the query's own."""
        if isolation is None:
            self._lonely_queries += 1
            if self._lonely_queries == 1:
                _log.warn(
                    "queries_without_isolation_id",
                    consequence="each is kept apart from all others; nothing is remembered",
                    advice="use a controller that sends stream isolation IDs",
                )
            return self._derive(None, b"%d" % self._lonely_queries)
        key = self._keys.get(isolation)
        if key is None or not self._isolator.is_current(key):
            if len(self._keys) >= _MAX_KEYS:
                self._keys.clear()
            key = self._keys[isolation] = self._derive(isolation, None)
        return key

    def _derive(self, username: bytes | None, password: bytes | None) -> IsolationKey:
        stream = IsolationTuple(None, ClientProtocol.PLUGIN, username=username, password=password)
        return self._isolator.key_for(RULE, stream)

    def _fail(self, query: int, kind: ErrorKind) -> None:
        self._send(_failure(query, kind))

    def _send(self, answer: Resolved | Canceled) -> None:
        self._write_soon(write_answer(answer))

    def _write_soon(self, line: bytes) -> None:
        """Answers of one turn of the loop leave in one write."""
        if not self._outbox:
            asyncio.get_running_loop().call_soon(self._flush)
        self._outbox.append(line)

    def _flush(self) -> None:
        outbox, self._outbox = self._outbox, []
        self._write(b"".join(outbox))

    def _settled(self) -> None:
        if self.on_settled is not None:
            self.on_settled()


def parse_bit_name(text: str) -> BitName:
    """`example.bit`, or `example.bit.onion` (onion only), in any case.

    Raises IsoproxyError: NAME_NEVER_SENT_TO_TOR for other names, or as `BitName.parse`.
    """
    if not text.lower().rstrip(".").endswith(_SUFFIXES):
        raise NamingError(kind=ErrorKind.NAME_NEVER_SENT_TO_TOR)
    return BitName.parse(text)


def _answer(query: int, answer: NameAnswer) -> Resolved:
    """A name's answer in the protocol's words; a result is checked once more."""
    if answer.target is None:
        return _failure(query, answer.reason or ErrorKind.NAME_UNVERIFIABLE, answer.problem)
    try:
        host = Target.parse(answer.target, 0).host
    except PolicyRefusal:
        return _failure(query, ErrorKind.NAME_INVALID_VALUE)
    return Resolved(query, Status.SUCCESS, host.encode("ascii"))


def _failure(query: int, kind: ErrorKind, problem: str | None = None) -> Resolved:
    text = (problem or explanation(kind)).encode("ascii", "replace")
    return Resolved(query, OUTCOMES[kind].prop279, text)


# -- the pipes


class _Pipes(asyncio.Protocol):
    """Bytes of standard input to the plugin, as long as it can take them."""

    def __init__(self, max_queries: int) -> None:
        self.ended = asyncio.get_running_loop().create_future()
        self._max_queries = max_queries
        self._source: asyncio.ReadTransport | None = None
        self._plugin: Plugin[Any] | None = None
        self._blocked = self._stopped = False

    def attach(self, plugin: Plugin[Any]) -> None:
        self._plugin = plugin
        plugin.on_settled = self._regulate

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._source = cast(asyncio.ReadTransport, transport)

    def data_received(self, data: bytes) -> None:
        assert self._plugin is not None
        self._plugin.feed(data)
        self._regulate()

    def eof_received(self) -> None:
        self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()

    def block(self, blocked: bool) -> None:
        """Whether the reader of our answers is behind."""
        self._blocked = blocked
        self._regulate()

    def _regulate(self) -> None:
        """Stop or continue to read."""
        assert self._plugin is not None
        limit = self._max_queries // 2 if self._stopped else self._max_queries
        stop = self._blocked or self._plugin.running >= limit
        if self._source is None or stop is self._stopped or self._source.is_closing():
            return
        self._stopped = stop
        (self._source.pause_reading if stop else self._source.resume_reading)()

    def _end(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)


class _Answers(asyncio.BaseProtocol):
    """Standard output: says when its reader is behind, and when it is gone."""

    def __init__(self, pipes: _Pipes) -> None:
        self._pipes = pipes

    def pause_writing(self) -> None:
        self._pipes.block(True)

    def resume_writing(self) -> None:
        self._pipes.block(False)

    def connection_lost(self, exc: Exception | None) -> None:
        self._pipes.connection_lost(exc)


async def serve(
    resolver: Resolver[Name],
    parse: Callable[[str], Name],
    isolator: Isolator,
    stdin: BinaryIO,
    stdout: BinaryIO,
    *,
    timeout: float = DEFAULT_TIMEOUT_S,
    max_queries: int = MAX_QUERIES,
) -> None:
    """Answer queries until the end of `stdin`, SIGTERM or SIGINT; both are pipes or sockets."""
    loop = asyncio.get_running_loop()
    pipes = _Pipes(max_queries)
    sink, _ = await loop.connect_write_pipe(lambda: _Answers(pipes), stdout)
    plugin = Plugin(resolver, parse, isolator, sink.write, timeout=timeout)
    pipes.attach(plugin)
    plugin.greet()
    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(ValueError, RuntimeError):  # only the main thread may
            loop.add_signal_handler(number, pipes.eof_received)
    source: Any = None
    try:
        source, _ = await loop.connect_read_pipe(lambda: pipes, stdin)
        await pipes.ended
    finally:
        plugin.close()
        for transport in (source, sink):
            if transport is not None:
                transport.close()
        await asyncio.sleep(0)
