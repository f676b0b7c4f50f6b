"""One connection to an Electrum server, from the handshake to its end.

Theory of operation
    The caller brings a connected stream.  `ElectrumSession.start` sends the handshake in
    one go (`server.version`, `server.features`, `blockchain.headers.subscribe`) and
    waits for the three results.  After that requests are written as they come, any
    number at once, and matched to answers by number: nothing waits for anything else.

    A server that breaks the protocol, closes, or is closed fails every request under way
    with the same error, and `closed` is set.  `end` closes as soon as no look-up uses the
    connection any more; until then `ending` is set and no new one should begin.

Invariants
    * Every wait has a deadline.
    * What is sent depends on what is asked for and on what this server said here; the client
      name is one that many programs send, and the same for everybody.
    * A server's bytes, reads and notifications are metered: what comes faster is read later,
      and too many notifications are a breach.  The loop has its turn after each read.

Specification: Electrum protocol 1.4, `server.version`, `server.features`,
`blockchain.headers.subscribe`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from isoproxy.errors import DialError, ErrorKind, IsoproxyError, RemoteProtocolError
from isoproxy.namecoin.chain.auxpow import MAX_HEADER
from isoproxy.namecoin.chain.params import ChainParams
from isoproxy.namecoin.electrum import results
from isoproxy.namecoin.electrum.rate_limit import CostBudget
from isoproxy.namecoin.electrum.results import TipClaim
from isoproxy.namecoin.electrum.wire import (
    MAX_LINE,
    MAX_OUTSTANDING,
    SUBSCRIBED,
    Notification,
    Refusal,
    Response,
    Wire,
)

CLIENT_NAME: Final = "4.0.6"
"""What the Electrum for Namecoin that most people run sends."""
PROTOCOL: Final = ("1.4", "1.4.3")
"""From 1.6 on servers cut merge-mined headers in wrong places."""
VALUE_PROOF_PROTOCOL: Final = (1, 4, 3)
LOOKUP_LINE: Final = 1_000_000
"""Bytes of one answer in a look-up; nodes relay transactions of at most 100 kB."""
TIP_LINE: Final = 2 * MAX_HEADER + LOOKUP_LINE
"""Bytes of one answer in the handshake, which brings the newest header."""
MAX_SYNC_LINE: Final = MAX_LINE
"""Bytes of one answer while headers are downloaded."""
READ_SIZE: Final = 1 << 16
LOOKUP_RATE: Final = 64_000.0
"""Bytes a second that are read over a connection for look-ups, after two of the longest results."""
SYNC_RATE: Final = 4_000_000.0
"""The same where headers are downloaded."""
_LEAST_READ: Final = 1024
"""Bytes that one read counts for at least: it is work however little it brings."""
MAX_TIPS: Final = 32
TIPS_PER_SECOND: Final = 0.05
"""Announcements of new blocks: so many at once, and one in 20 s from then on."""


class ServerRefused(RemoteProtocolError):
    """The server answered a request with an error `code`."""

    def __init__(self, code: int) -> None:
        super().__init__("a name server refused a request")
        self.code = code


class WrongNetwork(RemoteProtocolError):
    """The server serves another chain than ours."""


def _protocol_tuple(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split("."))[:4]
    except ValueError:
        raise RemoteProtocolError("a name server's protocol version is malformed") from None


class ElectrumSession:
    """A handshaken connection; made by `start`."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, max_line: int
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._wire = Wire(max_line)
        self._waiting: dict[int, asyncio.Future[object]] = {}
        self._loop = asyncio.get_running_loop()
        self.protocol: tuple[int, ...] = ()
        self.tip: TipClaim | None = None
        self.on_tip: Callable[[], None] = lambda: None
        self.on_closed: Callable[[], None] = lambda: None
        self.closed = asyncio.Event()
        self.ending = False
        self.round_trip = 0.0
        self._users = 0
        self._bytes = CostBudget(2.0 * max_line, LOOKUP_RATE)
        self._tips = CostBudget(float(MAX_TIPS), TIPS_PER_SECOND)
        self._heard_at = self._loop.time()
        self._ping: asyncio.Future[object] | None = None
        self._reading = self._loop.create_task(self._read())

    @classmethod
    async def start(
        cls,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        network: ChainParams,
        *,
        max_line: int = LOOKUP_LINE,
        timeout: float = 30.0,
    ) -> ElectrumSession:
        """Shake hands over a connected stream.

        Raises RemoteProtocolError if the server is of no use, DialError if it is gone or
        does not answer within `timeout` seconds.  The stream is closed then.
        """
        session = cls(reader, writer, max(max_line, TIP_LINE))
        began = session._loop.time()
        try:
            async with asyncio.timeout(timeout):
                await session._shake_hands(network)
            session.round_trip = session._loop.time() - began
            session._wire.max_line = max_line
            session._bytes = CostBudget(2.0 * max_line, LOOKUP_RATE)
        except TimeoutError:
            session.close()
            raise DialError(kind=ErrorKind.TTL_EXPIRED) from None
        except BaseException:
            session.close()
            raise
        return session

    async def _shake_hands(self, network: ChainParams) -> None:
        version, features, tip = await asyncio.gather(
            self.call("server.version", CLIENT_NAME, PROTOCOL),
            self.call("server.features"),
            self.call(SUBSCRIBED),
        )
        self.protocol = _protocol_tuple(results.server_version(version))
        if not _protocol_tuple(PROTOCOL[0]) <= self.protocol <= _protocol_tuple(PROTOCOL[1]):
            raise RemoteProtocolError("a name server chose a protocol that was not offered")
        if results.genesis_hash(features) != network.genesis:
            raise WrongNetwork("a name server serves another network")
        if self.tip is None:
            self.tip = results.tip_claim(tip, MAX_HEADER)

    @property
    def offers_value_proof(self) -> bool:
        """True if `blockchain.name.get_value_proof` may be asked."""
        return self.protocol >= VALUE_PROOF_PROTOCOL

    @property
    def claimed_height(self) -> int:
        """The height the server says it is at."""
        return self.tip.height if self.tip is not None else 0

    @property
    def is_usable(self) -> bool:
        """True if a look-up may begin here."""
        return not (self.ending or self.closed.is_set())

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """A look-up is under way here: `end` waits for it."""
        self._users += 1
        try:
            yield
        finally:
            self._users -= 1
            if self.ending and not self._users:
                self.close()

    def end(self) -> None:
        """Close, after the look-ups under way."""
        self.ending = True
        if not self._users:
            self.close()

    @property
    def silence(self) -> float:
        """The s since anything came from the server."""
        return self._loop.time() - self._heard_at

    def request(self, method: str, *params: object) -> asyncio.Future[object]:
        """Send a request now; the future gives its result.

        The future raises ServerRefused, RemoteProtocolError or DialError.  It must be
        awaited or cancelled; a cancelled one does not disturb the others.
        """
        future: asyncio.Future[object] = self._loop.create_future()
        if self._wire.outstanding >= MAX_OUTSTANDING:
            self.close()  # it has let us wait for far more than we ever need at once
        if self.closed.is_set():
            future.set_exception(DialError(kind=ErrorKind.CONNECTION_REFUSED))
            return future
        number, line = self._wire.request(method, params)
        self._waiting[number] = future
        future.add_done_callback(lambda _: self._waiting.pop(number, None))
        self._writer.write(line)
        return future

    async def call(self, method: str, *params: object) -> object:
        """The result of one request; the caller sets the deadline."""
        return await self.request(method, *params)

    def ping(self) -> None:
        """Keep the connection alive; one whose last ping was never answered is closed."""
        if self._ping is not None and not self._ping.done():
            self.close()
            return
        self._ping = self.request("server.ping")
        self._ping.add_done_callback(_look_at_outcome)

    def allow_long_answers(self, max_line: int) -> None:
        """Accept answers of up to `max_line` bytes from now on, and as fast as they come."""
        self._wire.max_line = max_line
        self._bytes = CostBudget(2.0 * max_line, SYNC_RATE)

    async def _read(self) -> None:
        failure: IsoproxyError = DialError(kind=ErrorKind.CONNECTION_REFUSED)
        try:
            while data := await self._reader.read(READ_SIZE):
                self._heard_at = self._loop.time()
                self._receive(data)
                self._bytes.spend(max(_LEAST_READ, len(data)))
                del data  # it can be long until there is more
                await asyncio.sleep(self._bytes.wait_for(0.0, self._loop.time()))
        except RemoteProtocolError as error:
            failure = error
        except OSError:
            failure = DialError(kind=ErrorKind.GENERAL_FAILURE)
        except asyncio.CancelledError:
            pass  # `close`: a task that ends as cancelled would keep this session in a cycle
        finally:
            self._end(failure)

    def _receive(self, data: bytes) -> None:
        for event in self._wire.receive(data):
            self._take(event)

    def _take(self, event: Response | Refusal | Notification) -> None:
        if isinstance(event, Notification):
            if event.method == SUBSCRIBED and event.params:
                self._tips.spend(1.0)
                if self._tips.wait_for(0.0, self._loop.time()) > 0.0:
                    raise RemoteProtocolError("a name server announces too many blocks")
                self.tip = results.tip_claim(event.params[0], MAX_HEADER)
                self.on_tip()
            return
        future = self._waiting.get(event.number)
        if future is None or future.done():
            return
        if isinstance(event, Response):
            future.set_result(event.result)
        else:
            future.set_exception(ServerRefused(event.code))

    def _end(self, failure: IsoproxyError) -> None:
        if self.closed.is_set():
            return
        self.closed.set()
        for future in list(self._waiting.values()):
            if not future.done():
                future.set_exception(failure)
        self._writer.transport.abort()
        self.on_tip()
        self.on_closed()

    def close(self) -> None:
        """End the connection at once; requests under way fail."""
        self._reading.cancel()
        if not self.closed.is_set():
            self._end(DialError(kind=ErrorKind.CONNECTION_REFUSED))

    async def wait_closed(self) -> None:
        """Return when nothing of this connection is left running."""
        await asyncio.gather(self._reading, return_exceptions=True)


def _look_at_outcome(future: asyncio.Future[object]) -> None:
    """Take note of a failure that nobody waits for."""
    if not future.cancelled():
        future.exception()


def abandon(futures: Iterable[asyncio.Future[object]]) -> None:
    """Give up on requests: their outcomes no longer matter to anybody."""
    for future in futures:
        future.add_done_callback(_look_at_outcome)
        future.cancel()
