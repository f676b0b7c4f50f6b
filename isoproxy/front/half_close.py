"""The client of a stream that Tor has ended, until it ends too.

Theory of operation
    A Tor stream has no half: with its end both directions are over.  The client is told,
    and most programs then close.  One that does not would keep two descriptors until the
    idle timeout.  So it has `TAIL_S` seconds, again and again as long as it has not taken
    all that it was sent, or what it says is still taken; then the relay ends in order.

    Where Tor's connection broke, the client's is to be reset, which would destroy what it
    has not taken yet: that is done as soon as it has.

Invariants
    A client that is still reading loses nothing: while its machine has not taken all,
    only the idle timeout ends the stream, as it does any other.
"""

from __future__ import annotations

from typing import Final, Protocol

from isoproxy.net.deadlines import Deadlines

TAIL_S: Final = 30.0
"""Seconds that a client may say nothing and stay after it was told of its stream's end."""
LOOK_AGAIN_S: Final = 1.0
"""Seconds between looks at whether a client has taken all that came before a break."""


class HalfClosed(Protocol):
    """A relay that Tor has left."""

    broken: bool
    """Tor's connection broke; it did not end in order."""

    @property
    def bytes_up(self) -> int:
        """Bytes that Tor has taken from the client."""
        ...

    def unread(self) -> int:
        """Bytes on their way to the client that it has not taken yet."""
        ...

    def finish(self) -> None:
        """End it."""
        ...


class HalfCloseTimeout:
    """Watches over a relay that Tor has left, until `close` or the relay's end."""

    __slots__ = ("_deadlines", "_moved", "_relay")

    def __init__(self, deadlines: Deadlines, relay: HalfClosed) -> None:
        self._deadlines = deadlines
        self._relay = relay
        self._moved = relay.bytes_up
        self._wait()

    def on_deadline(self) -> None:
        before, self._moved = self._moved, self._relay.bytes_up
        if self._moved != before or self._relay.unread():
            self._wait()
        else:
            self._relay.finish()

    def close(self) -> None:
        """Watch no more; the relay has ended."""
        self._deadlines.clear(self)

    def _wait(self) -> None:
        self._deadlines.set(self, LOOK_AGAIN_S if self._relay.broken else TAIL_S)
