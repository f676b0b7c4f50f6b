"""A tor of our own: a managed program that is controlled through its control port.

Theory of operation
    `ManagedTor` writes a torrc into its directory (see `torrc`), starts `tor` on it, and
    connects a `Control` to the unix socket there.  The control connection owns tor:
    TAKEOWNERSHIP makes tor exit the moment the connection closes, which the kernel sees
    to even when we are killed.  Until that connection is up, `__OwningControllerProcess`
    does the same more slowly: tor looks every 15 s whether our process is there.

Invariants
    The system's torrc is never read.  Tor's complaints are kept as they are until the
    control connection is up (scrubbed if it has a bridge or a proxy); our log repeats those
    of a tor that never ran, and no others.

Specification: tor(1); control-spec §3.23 TAKEOWNERSHIP.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from isoproxy.errors import ConfigError
from isoproxy.net.backoff import Backoff
from isoproxy.net.endpoint import Endpoint
from isoproxy.private_file import replace_file
from isoproxy.tor.control.connection import Control, ControlState, Phase
from isoproxy.tor.control.events import Bootstrap
from isoproxy.tor.managed.advice import advice
from isoproxy.tor.managed.child import Spawn, spawn_process
from isoproxy.tor.managed.egress import DIRECT, Egress
from isoproxy.tor.managed.program import ManagedProgram, Stage
from isoproxy.tor.managed.torrc import (
    NO_VERSION,
    TorOutput,
    Version,
    parse_version,
    socket_in,
    torrc,
)

_NOT_INSTALLED: Final = (
    "tor is not installed, or not where tor.binary says; install it (on Debian: apt install "
    'tor), or set tor.mode = "system" to use one that runs elsewhere'
)


class ManagedTor(ManagedProgram):
    """Tor as a child of ours; `extra_torrc` are further lines of torrc.

    `egress` is how it reaches its network.
    """

    name = "tor"

    def __init__(
        self,
        directory: Path,
        *,
        program: str = "tor",
        extra_torrc: Sequence[str] = (),
        egress: Egress = DIRECT,
        backoff: Backoff | None = None,
        spawn: Spawn = spawn_process,
        control: Control | None = None,
    ) -> None:
        super().__init__(directory, program=program, backoff=backoff, spawn=spawn)
        self._socks = socket_in(self.directory, "socks")
        self.version: Version | None = None
        endpoint = socket_in(self.directory, "control")
        self.control = control or Control(endpoint, own=True, backoff=Backoff(0.05, 1.0))
        self._extra = tuple(extra_torrc)
        self._egress = egress
        self._percent = -1
        self._progressed_at = 0.0
        self._read = self._reader()

    @property
    def socks(self) -> Endpoint:
        return self._socks

    def on_progress(self, callback: Callable[[Bootstrap], None]) -> Callable[[], None]:
        return self.control.on_bootstrap(callback)

    @property
    def advice(self) -> str | None:
        """What to do about a start that does not get on, in one sentence."""
        if self._state.stage is not Stage.BOOTSTRAPPING:
            return None
        waited = asyncio.get_running_loop().time() - self._progressed_at
        return advice(
            self.control.bootstrap,
            waited,
            bridges=bool(self._egress.bridges),
            complaint=self.log.complaint,
        )

    async def _configure(self) -> None:
        self.version = parse_version(await self._ask_version(_NOT_INSTALLED, NO_VERSION))
        lines = self._egress.lines(shutil.which)
        text = torrc(self.directory, self.version, [*lines, *self._extra])
        replace_file(self.directory / "torrc", text)

    def _begin(self) -> None:
        self._resources.callback(self.control.on_state(self._control_changed))
        self._resources.callback(self.control.on_bootstrap(self._bootstrapped))
        self._resources.callback(self.control.on_bootstrap(self._progressed))
        self.control.start()

    def _arguments(self) -> Sequence[str]:
        return [
            *(self._program, "-f", str(self.directory / "torrc")),
            *("--defaults-torrc", os.devnull),
            *("__OwningControllerProcess", str(os.getpid())),
        ]

    def _before_life(self) -> None:
        """What a dead tor left behind must not be taken for the next one's."""
        self._read = self._reader()
        self._percent = -1
        for endpoint in (self._socks, self.control.endpoint):
            assert endpoint.path is not None
            Path(endpoint.path).unlink(missing_ok=True)

    def _reader(self) -> TorOutput:
        return TorOutput(self.log, scrubbed=self._egress.is_secret)

    def _progressed(self, bootstrap: Bootstrap) -> None:
        if bootstrap.percent != self._percent:
            self._percent = bootstrap.percent
            self._progressed_at = asyncio.get_running_loop().time()

    def _output(self, data: bytes) -> None:
        self._read.feed(data)

    def _complaints(self) -> str:
        return "; ".join(self._read.problems)

    def _judge_first_end(self, problem: str) -> None:
        if self._read.lacks_isolation:
            raise ConfigError(
                "this tor does not know all isolation flags that isoproxy relies on; "
                'upgrade tor, or set tor.mode = "system"'
            )
        if self._read.is_bad_config:
            raise ConfigError(f"tor refuses its configuration: {problem}")

    def _control_changed(self, state: ControlState) -> None:
        if state.phase is Phase.READY and self._child is not None:
            if self._read.lacks_isolation:
                self._unfit.set()
                return
            self._read.settle()
            self._has_run = True
            self._running.set()
            if self._state.stage is Stage.STARTING:
                self._bootstrapped(self.control.bootstrap or Bootstrap(0, "", ""))
