"""How many new circuits Tor is asked to build at a time.

Theory of operation
    Tor keeps at most `MaxClientCircuitsPending` (32) circuits under construction; beyond
    that it complains and makes everybody wait.  A stream whose credentials had a
    stream lately finds its circuit ready and passes at once.  Any other stream needs one
    of a bounded number of slots.  A slot is given back when the stream's fate is known,
    or after a few seconds: by then the circuit stands, and what still takes time (an
    onion service that does not answer) needs no general circuit any more.

    Waiting streams are served client by client in turn, and no client may hold all
    slots, so that one that opens a thousand identities delays the others by moments.

Invariants
    pending slots <= limit; a client's slots <= limit - reserve; the queue is bounded in
    total and per client; circuits remembered as standing are bounded and forgotten at a
    new epoch.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from typing import Final

from isoproxy.net.deadlines import Deadlines

MAX_QUEUED: Final = 4096
MAX_QUEUED_PER_CLIENT: Final = 1024
MAX_REMEMBERED: Final = 65536
STANDING_S: Final = 540.0
"""Seconds a circuit is taken to stand after its last new stream; Tor's
MaxCircuitDirtiness is 600."""
SLOT_LIFE_S: Final = 10.0
"""Seconds after which a slot is given back although the stream is still pending."""


class Slot:
    """One stream's place among the pending ones; call `release` once, whatever happens."""

    __slots__ = ("_budget", "_client", "_grant", "_held", "circuit")

    def __init__(
        self, budget: CircuitBudget, circuit: Hashable, client: bytes, grant: Callable[[], None]
    ) -> None:
        self._budget = budget
        self.circuit = circuit
        self._client = client
        self._grant: Callable[[], None] | None = grant
        self._held = False

    @property
    def waiting(self) -> bool:
        """Whether the slot is still queued."""
        return self._grant is not None

    def release(self) -> None:
        """Give the slot back, or leave the queue; a second call does nothing."""
        self._budget._release(self)

    def on_deadline(self) -> None:
        """The slot's life is over, though the stream may be pending."""
        self.release()


class CircuitBudget:
    """The bounded number of pending circuits.

    limit    slots in all, below Tor's own limit
    reserve  slots that no single client can take
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, limit: int = 24, reserve: int = 6) -> None:
        self._loop = loop
        self._deadlines = Deadlines(loop)
        self._limit = limit
        self._per_client = max(1, limit - reserve)
        self._held: dict[bytes, int] = {}
        self._pending = 0
        self._queues: OrderedDict[bytes, deque[Slot]] = OrderedDict()
        self._queued = 0
        self._serving = False
        self._standing: OrderedDict[Hashable, float] = OrderedDict()

    def resize(self, limit: int, reserve: int) -> None:
        """Another number of slots; those that are held beyond it are given back as ever."""
        self._limit = limit
        self._per_client = max(1, limit - reserve)
        self._serve_soon()

    @property
    def pending(self) -> int:
        return self._pending

    @property
    def queued(self) -> int:
        return self._queued

    def stands(self, circuit: Hashable) -> bool:
        """Whether a stream of `circuit` needs no slot."""
        until = self._standing.get(circuit)
        return until is not None and until > self._loop.time()

    def succeeded(self, circuit: Hashable) -> None:
        """A stream of `circuit` was opened: its circuit stands for a while."""
        self._standing[circuit] = self._loop.time() + STANDING_S
        self._standing.move_to_end(circuit)
        if len(self._standing) > MAX_REMEMBERED:
            self._standing.popitem(last=False)

    def forget_all(self) -> None:
        """A new epoch: no circuit of the old one is of use any more."""
        self._standing.clear()

    def request(self, circuit: Hashable, client: bytes, grant: Callable[[], None]) -> Slot | None:
        """Ask for a slot; `grant()` is called at once or when it is `client`'s turn.

        Returns None when the queue is full.
        """
        slot = Slot(self, circuit, client, grant)
        if self._may_start(client):
            self._start(slot)
            return slot
        queue = self._queues.setdefault(client, deque())
        if self._queued >= MAX_QUEUED or len(queue) >= MAX_QUEUED_PER_CLIENT:
            return None
        queue.append(slot)
        self._queued += 1
        return slot

    def close(self) -> None:
        """Forget all deadlines; slots may still be released."""
        self._deadlines.close()

    def _may_start(self, client: bytes) -> bool:
        return self._pending < self._limit and self._held.get(client, 0) < self._per_client

    def _start(self, slot: Slot) -> None:
        self._pending += 1
        self._held[slot._client] = self._held.get(slot._client, 0) + 1
        slot._held = True
        self._deadlines.set(slot, SLOT_LIFE_S)
        grant, slot._grant = slot._grant, None
        if grant is not None:
            grant()

    def _release(self, slot: Slot) -> None:
        if slot.waiting:
            slot._grant = None
            queue = self._queues.get(slot._client)
            if queue is not None and slot in queue:
                queue.remove(slot)
                self._queued -= 1
            return
        if not slot._held:
            return
        slot._held = False
        self._deadlines.clear(slot)
        self._pending -= 1
        self._held[slot._client] -= 1
        if not self._held[slot._client]:
            del self._held[slot._client]
        self._serve_soon()

    def _serve_soon(self) -> None:
        """Later, so that streams whose deadline is now leave the queue first."""
        if self._queues and not self._serving:
            self._serving = True
            self._loop.call_soon(self._serve)

    def _serve(self) -> None:
        """Start what may start, one stream per client in turn."""
        self._serving = False
        blocked = 0
        while self._queues and self._pending < self._limit and blocked < len(self._queues):
            client, queue = next(iter(self._queues.items()))
            if not queue:
                del self._queues[client]
                continue
            self._queues.move_to_end(client)
            if not self._may_start(client):
                blocked += 1
                continue
            blocked = 0
            self._queued -= 1
            self._start(queue.popleft())
