"""Programs of `isoproxy exec`, as the main process keeps them: their sockets, and who serves them.

Theory of operation
    A program's sockets all go to one stream process, which alone knows what its virtual
    addresses stand for.  One that takes its place begins anew: addresses of before lead nowhere,
    and the program asks again.

Invariants
    At most MAX_PROGRAMS are served.  Their session group is no listener's, so no client of
    SOCKS is of their identities, whatever it sends.
"""

from __future__ import annotations

import itertools
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from isoproxy.config import Config, NamesConfig
from isoproxy.daemon.settings.front import program_listener
from isoproxy.errors import OperationError
from isoproxy.front.transparent import Program
from isoproxy.transparent.answer import BOTH
from isoproxy.workers.messages import TransparentPlan

MAX_PROGRAMS: Final = 256


@dataclass(frozen=True, slots=True, eq=False)
class RunningProgram:
    """One that is served: its sockets, so many of which listen, and by which stream process."""

    program: Program
    listeners: int
    sockets: Sequence[socket.socket]
    index: int


class RunningPrograms:
    """Those that are served by `processes` stream processes; `changed()` tells these."""

    def __init__(self, processes: int, changed: Callable[[], None]) -> None:
        self._processes: Final = processes
        self._changed: Final = changed
        self._running: Final[dict[str, RunningProgram]] = {}
        self._numbers: Final = itertools.count()

    def begin(
        self, program: Program, listeners: int, sockets: Sequence[socket.socket]
    ) -> Callable[[], None]:
        """Serve one; what is returned ends that.  Raises OperationError."""
        if len(self._running) >= MAX_PROGRAMS:
            raise OperationError(f"there are {MAX_PROGRAMS} programs already; end one of them")
        number = next(self._numbers)
        place = f"program {number}"
        running = RunningProgram(program, listeners, sockets, number % self._processes)
        self._running[place] = running
        self._changed()

        def end() -> None:
            del self._running[place]
            for sock in sockets:
                sock.close()
            self._changed()

        return end

    def plans(self, config: NamesConfig, index: int) -> Iterator[TransparentPlan]:
        """What the stream process of that number serves."""
        for place, its in self._running.items():
            if its.index == index:
                listener = program_listener(config)
                yield TransparentPlan(
                    place, listener, its.listeners, len(its.sockets), BOTH, its.program
                )

    def sockets_of(self, plan: TransparentPlan) -> Sequence[socket.socket]:
        """Those that go with a plan of ours; none for another one."""
        return self._running[plan.place].sockets if plan.place in self._running else ()

    def hidden(self, config: Config) -> list[str]:
        """The unix sockets of isoproxy, and of Tor, which a program must not find."""
        tor, observe = config.tor, config.observe
        places = [
            tor.socks,
            tor.control,
            tor.arti_rpc,
            observe.admin,
            observe.dashboard,
            config.dns.address,
            *(listener.address for listener in config.listener),
            *(proxy.address for proxy in config.bitcoin.proxy),
        ]
        return [place.path for place in places if place is not None and place.path is not None]
